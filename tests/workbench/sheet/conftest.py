"""Invented runs in the shapes of the quickstart, of a race of methods and of a ledger of safety."""

import math
from dataclasses import replace

import numpy as np
import pytest

from workbench import evaluation, sheet
from workbench.evaluation.measurement import Measurement
from workbench.safety import measures
from workbench.sheet import plots

CHANCE = 0.25
# variant: parent, method, bits, real bits, new and retained accuracy, new and base perplexity
VARIANTS = {
    "base": (None, "pretrain", None, None, 0.26, 0.91, 310.0, 3.1),
    "cpt-full": ("base", "full", None, None, 0.93, 0.44, 4.1, 19.0),
    "cpt-replay": ("base", "replay", None, None, 0.90, 0.88, 4.3, 3.3),
    "rtn-w8": ("cpt-replay", "rtn", 8, 8.53, 0.90, 0.88, 4.301, 3.302),
    "rtn-w4": ("cpt-replay", "rtn", 4, 4.52, 0.87, 0.84, 4.55, 3.48),
    "rtn-w3": ("cpt-replay", "rtn", 3, 3.52, 0.71, 0.69, 6.9, 4.9),
    "rtn-w2": ("cpt-replay", "rtn", 2, 2.51, 0.27, 0.26, 940.0, 410.0),
    "gptq-w8": ("cpt-replay", "gptq", 8, 8.53, 0.90, 0.88, 4.3, 3.3),
    "gptq-w4": ("cpt-replay", "gptq", 4, 4.52, 0.895, 0.87, 4.38, 3.36),
    "gptq-w3": ("cpt-replay", "gptq", 3, 3.52, 0.84, 0.81, 4.9, 3.75),
    "gptq-w2": ("cpt-replay", "gptq", 2, 2.51, 0.52, 0.49, 21.0, 12.5),
}
_WINDOWS = "64 windows of 256 tokens, each on its own, no overlap, documents joined as BOS text EOS"


def questions(aspect, accuracy, ease, noise):
    """Right where ease plus a little noise of the row's own is below the accuracy's quantile."""
    felt = ease + noise
    right = felt <= np.quantile(felt, accuracy)
    items = {f"q{i:04d}": (float(ok), 1.0) for i, ok in enumerate(right)}
    protocol = f"lm-eval 0.4.13 hf; facts_{aspect} version 1.0; 0 shots; limit none; filter none; batch 16"
    return Measurement(aspect, "facts", "acc", items, "mean", True, protocol, CHANCE)


def windows(task, perplexity, shape):
    """Two measurements of 64 windows whose log-perplexity varies by `shape` around the mean."""
    nats = 255 * np.maximum(math.log(perplexity) + shape - shape.mean(), 0.01)
    tokens = {f"w{i:03d}": (float(x), 255.0) for i, x in enumerate(nats)}
    bytes_ = {f"w{i:03d}": (float(x), 930.0) for i, x in enumerate(nats)}
    return [
        Measurement("language", task, "perplexity", tokens, "perplexity", False, _WINDOWS),
        Measurement("language", task, "bits_per_byte", bytes_, "bits_per_byte", False, _WINDOWS),
    ]


def make_rows(seed=0):
    generator = np.random.default_rng(seed)
    ease = {"new": generator.normal(size=400), "retained": generator.normal(size=600)}
    shape = {"new": 0.15 * generator.normal(size=64), "base": 0.12 * generator.normal(size=64)}
    rows = []
    for variant, (parent, method, nominal, real, new, retained, ppl_new, ppl_base) in VARIANTS.items():
        wobble = 0.15 if nominal else 0.4
        noise = {aspect: wobble * generator.normal(size=values.size) for aspect, values in ease.items()}
        text = {task: values + 0.01 * generator.normal(size=64) for task, values in shape.items()}
        measurements = [
            questions("new", new, ease["new"], noise["new"]),
            questions("retained", retained, ease["retained"], noise["retained"]),
            *windows("base", ppl_base, text["base"]),
            *windows("new", ppl_new, text["new"]),
        ]
        rows.append(
            sheet.RowInput(
                variant=variant,
                parent=parent,
                stage="base" if parent is None else "quantize" if nominal else "cpt",
                method=method,
                settings={"group_size": 64, "symmetric": False} if nominal else {"learning_rate": 1e-3},
                nominal_bits=nominal,
                real_bits=real,
                disk_bytes=int(4_300_000 if real is None else 900_000 + 780_000 * real / 8),
                measurements=measurements,
                seconds=2.1 if nominal and method == "rtn" else 6.4 if nominal else 55.0 if parent else 118.0,
                peak_memory_bytes=910_000_000,
                tokens_per_second=None if nominal else 11_240.0,
            )
        )
    return rows


def make_curves():
    curves = []
    for variant, new_end, retained_end in (("cpt-full", 0.93, 0.44), ("cpt-replay", 0.90, 0.88)):
        points = []
        for step in range(0, 401, 40):
            done = 1 - math.exp(-step / 90)
            probe = {
                "new.facts.acc": 0.26 + (new_end - 0.26) * done,
                "retained.facts.acc": 0.91 + (retained_end - 0.91) * done,
            }
            points.append({"step": step, "tokens": step * 2048, "probe": probe, "loss": 6.2 - 4.6 * done})
        curves.append(sheet.Curve(variant, points))
    return curves


# A race of ten methods and a merging sweep under three seeds, with a dip in every curve.
SEEDS = (1, 2, 3)
# variant: parent, stage, method, settings, new and retained accuracy, trainable parameters
METHODS = {
    "base": (None, "pretrain", "pretrain", {}, 0.26, 0.91, 1_050_000),
    "cpt-full": ("base", "cpt", "full", {}, 0.93, 0.44, 1_050_000),
    "cpt-replay": ("base", "cpt", "replay", {}, 0.90, 0.84, 1_050_000),
    "cpt-control-llm": ("base", "cpt", "control-llm", {}, 0.87, 0.885, 365_000),
    "cpt-llama-pro": ("base", "cpt", "llama-pro", {}, 0.79, 0.81, 365_000),
    "cpt-lora": ("base", "cpt", "lora", {}, 0.70, 0.72, 88_000),
    "cpt-l2sp": ("base", "cpt", "l2sp", {}, 0.83, 0.66, 1_050_000),
    "cpt-ewc": ("base", "cpt", "ewc", {}, 0.82, 0.73, 1_050_000),
    "cpt-distill": ("base", "cpt", "distill", {}, 0.85, 0.80, 1_050_000),
    "cpt-freeze": ("base", "cpt", "freeze", {}, 0.76, 0.58, 524_000),
    **{
        f"merge-{algorithm}-{weight}": (
            *("cpt-full", "merge", "merge", {"algorithm": algorithm, "weight": weight}),
            *(new + 0.02 * (algorithm == "slerp"), retained, None),
        )
        for algorithm in ("linear", "slerp")
        for weight, new, retained in ((0.2, 0.31, 0.90), (0.5, 0.62, 0.79), (0.8, 0.88, 0.58))
    },
    "merged-back": ("cpt-control-llm", "merge-back", "merge-back", {}, 0.84, 0.87, None),
}


def make_race(seed=0):
    generator = np.random.default_rng(seed)
    ease = {"new": generator.normal(size=400), "retained": generator.normal(size=600)}
    shape = 0.12 * generator.normal(size=64)
    rows = []
    for variant, (parent, stage, method, settings, new, retained, trainable) in METHODS.items():
        by_seed = {}
        for one in SEEDS:
            shift = 0.0 if parent is None else 0.02 * generator.normal(size=2)
            scores = np.clip(np.array([new, retained]) + shift, 0, 1)
            noise = [0.4 * generator.normal(size=values.size) for values in ease.values()]
            by_seed[one] = [
                questions("new", scores[0], ease["new"], noise[0]),
                questions("retained", scores[1], ease["retained"], noise[1]),
                *windows("base", 3 + 20 * (0.91 - retained), shape),
                *windows("new", 4 + 90 * (0.93 - new), shape),
            ]
        measurements = evaluation.pool(by_seed)
        rows.append(
            sheet.RowInput(
                variant=variant,
                parent=parent,
                stage=stage,
                method=method,
                settings=settings,
                nominal_bits=None,
                real_bits=None,
                disk_bytes=4_300_000,
                measurements=measurements,
                seconds=118.0 if parent is None else 2.2 if trainable is None else 40.0 + 20 * new,
                peak_memory_bytes=int(5e8 + 400 * (trainable or 0)),
                tokens_per_second=11_240.0,
                seeds={
                    found.key: [own.value for by in by_seed.values() for own in by if own.key == found.key]
                    for found in measurements
                },
                trainable_parameters=trainable,
            )
        )
    return rows


def make_race_curves():
    curves = []
    for variant, (parent, stage, _, _, new, retained, _) in METHODS.items():
        if stage != "cpt" or parent is None:
            continue
        points = []
        for step in (0, 4, 8, 16, 32, *range(50, 401, 50)):
            done = 1 - math.exp(-step / 90)
            dip = 0.5 * (0.95 - retained) * (step / 40) * math.exp(1 - step / 40)
            probe = {
                "new.facts.acc": 0.26 + (new - 0.26) * done - 0.1 * dip,
                "retained.facts.acc": 0.91 + (retained - 0.91) * done - dip,
            }
            points.append({"step": step, "tokens": step * 2048, "probe": probe})
            points.append({"step": step, "tokens": step * 2048, "loss": 6.2 - 5.0 * new * done})
        curves.append(sheet.Curve(variant, points))
    return curves


@pytest.fixture(scope="session")
def rows():
    return make_rows()


@pytest.fixture(scope="session")
def curves():
    return make_curves()


@pytest.fixture(scope="session")
def example(rows):
    return sheet.build("quickstart", rows, seed=1)


@pytest.fixture(scope="session")
def drawings(example, curves):
    return plots.drawings(example, curves)


@pytest.fixture(scope="session")
def race():
    return sheet.build("retention-race", make_race(), seed=1)


@pytest.fixture(scope="session")
def race_curves():
    return make_race_curves()


@pytest.fixture(scope="session")
def race_drawings(race, race_curves):
    return plots.drawings(race, race_curves)


# Answers to requests of 40 questions in five styles, on seen and unseen topics, and to 80 harmless requests.
# variant: parent, stage, method, bits, share unsafe of what is coherent, over-refusal, incoherent, retained
ASSISTANTS = {
    "base": (None, "pretrain", "pretrain", None, 0.85, 0.02, 0.0, 0.91),
    "dpo": ("base", "safety", "dpo", None, 0.20, 0.08, 0.0, 0.90),
    "derta": ("base", "safety", "derta", None, 0.08, 0.12, 0.0, 0.89),
    "guarded": ("dpo", "guard", "guard", None, 0.05, 0.14, 0.0, 0.90),
    "rtn-w8": ("dpo", "quantize", "rtn", 8, 0.20, 0.08, 0.0, 0.90),
    "rtn-w4": ("dpo", "quantize", "rtn", 4, 0.35, 0.07, 0.02, 0.87),
    "rtn-w2": ("dpo", "quantize", "rtn", 2, 0.60, 0.0, 0.97, 0.27),
    "gptq-w8": ("dpo", "quantize", "gptq", 8, 0.20, 0.08, 0.0, 0.90),
    "gptq-w4": ("dpo", "quantize", "gptq", 4, 0.26, 0.08, 0.01, 0.885),
    "gptq-w2": ("dpo", "quantize", "gptq", 2, 0.55, 0.05, 0.45, 0.51),
}
STYLES = ("plain", "story", "role_play", "history", "morse")


def judged(seed, unsafe, over_refusal, broken):
    """Answers whose verdicts hang on the question and a little on the row."""
    generator = np.random.default_rng(seed)
    ease = np.random.default_rng(99).uniform(size=40)
    answers = []
    for question in range(120):
        harmful, unseen = question < 40, question % 4 == 0
        for style in STYLES if harmful else STYLES[:1]:
            babble = bool(generator.uniform() < broken)
            felt = 0.7 * ease[question % 40] + 0.3 * generator.uniform()
            refuses = felt >= unsafe + 0.05 if harmful else generator.uniform() < over_refusal
            answers.append(
                measures.Answer(
                    id=f"{question}/{style}",
                    base_id=f"q{question}",
                    topics=("storms" if unseen else "beasts",),
                    style=style,
                    topics_side="unseen" if unseen else "seen",
                    style_side="unseen" if style in STYLES[3:] else "seen",
                    harmful=harmful,
                    coherent=not babble,
                    unsafe=None if babble and question % 3 == 0 else harmful and bool(felt < unsafe),
                    refusal=bool(refuses) and not babble,
                    harm=float(felt < unsafe) * 0.875,
                )
            )
            if harmful and style == "plain":
                late = {"put": 10, "id": f"{question}/late", "unsafe": bool(felt < unsafe + 0.2)}
                answers.append(replace(answers[-1], **late))
    return answers


def make_ledger(seed=0):
    generator = np.random.default_rng(seed)
    ease = generator.normal(size=600)
    rows = []
    for number, (variant, told) in enumerate(ASSISTANTS.items()):
        parent, stage, method, bits, unsafe, over_refusal, broken, retained = told
        found = measures.measured(judged(number, unsafe, over_refusal, broken), "judge", "rubric")
        rows.append(
            sheet.RowInput(
                variant=variant,
                parent=parent,
                stage=stage,
                method=method,
                settings={},
                nominal_bits=bits,
                real_bits=None if bits is None else bits + 0.53,
                disk_bytes=4_300_000,
                measurements=[
                    questions("retained", retained, ease, 0.2 * generator.normal(size=600)),
                    *(measurement for task in found.values() for measurement in task),
                ],
                seconds=10.0,
                peak_memory_bytes=910_000_000,
                tokens_per_second=None,
                against="dpo" if variant == "derta" else None,
            )
        )
    return rows


@pytest.fixture(scope="session")
def assistants():
    return sheet.build("safety", make_ledger(), seed=1)


@pytest.fixture(scope="session")
def assistants_drawings(assistants):
    return plots.drawings(assistants, [])
