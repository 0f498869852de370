"""The plan of every kind of curriculum, and the property that all of them keep in the mixture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.data import Mixture, TokenFile, pass_tokens, plan
from workbench.data.curriculum import first_memory, update
from workbench.recipe.curricula import Bandit, DoReMi, Topics
from workbench.recipe.training import TrainingStage

L = 16
NAMES = ("a", "b", "c", "d")
Make = Callable[[str, int], TokenFile]


@pytest.fixture
def files(make_tokens: Make) -> dict[str, TokenFile]:
    return {
        name: make_tokens(name, documents) for name, documents in zip(NAMES, (60, 25, 7, 40), strict=True)
    }


def stage(batch_size: int = 8, steps: int = 60, **changes: Any) -> TrainingStage:
    settings = {
        "mixture": {"a": 0.4, "b": 0.3, "c": 0.1, "d": 0.2},
        "tokens": steps * batch_size * L,
        "batch_size": batch_size,
        "sequence_length": L,
        "learning_rate": 1e-3,
    }
    return TrainingStage.model_validate(settings | changes)


def mixed(files: dict[str, TokenFile], section: TrainingStage, seed: int = 3) -> Mixture:
    tokens = pass_tokens(files, section.reading, L)
    return Mixture(
        files,
        section.mixture,
        seed,
        section.batch_size,
        L,
        plan=plan(section, section.mixture, tokens),
        reading=section.reading,
        when_dry=section.when_dry,
    )


def test_a_step_has_the_weights_of_the_tokens_before_it(files: dict[str, TokenFile]) -> None:
    points = [{"tokens": 20 * 8 * L, "mixture": {"b": 1.0}}]
    mixture = mixed(files, stage(curriculum={"kind": "staged", "points": points}))
    assert mixture.weights(19)["a"] == pytest.approx(0.4) and mixture.weights(20)["b"] == 1.0
    line = mixed(files, stage(curriculum={"kind": "linear", "points": points}))
    assert line.weights(10) == pytest.approx({"a": 0.2, "b": 0.65, "c": 0.05, "d": 0.1})


def test_sizes_make_the_weights_of_temperature_and_unimax(files: dict[str, TokenFile]) -> None:
    tokens = pass_tokens(files, {}, L)
    natural = mixed(files, stage(curriculum={"kind": "temperature", "temperature": 1.0}))
    assert natural.weights(5) == pytest.approx({n: t / sum(tokens.values()) for n, t in tokens.items()})
    section = stage(steps=20, curriculum={"kind": "unimax", "epochs": 1.5})
    capped = mixed(files, section)
    assert max(capped.epochs(20).values()) <= 1.5 + 1 / 4  # of a sample, where a pass has several


def test_what_a_method_replays_keeps_its_weight(files: dict[str, TokenFile]) -> None:
    section = stage(mixture={"a": 0.5, "b": 0.5}, curriculum={"kind": "temperature", "temperature": 1e9})
    weights = plan(section, {"a": 0.4, "b": 0.4, "d": 0.2}, {"a": 10, "b": 90, "d": 5})(0)
    assert weights == pytest.approx({"a": 0.4, "b": 0.4, "d": 0.2})


def test_every_controller_keeps_the_sum_and_its_floor() -> None:
    texts = {name: name for name in "abc"}
    controllers = [
        Topics(kind="topics", every=1, texts=texts),
        DoReMi(kind="doremi", every=1, texts=texts, reference="base"),
        Bandit(kind="bandit", every=1),
    ]
    for section in controllers:
        weights, memory = dict(stage().mixture), first_memory(section, stage(), dict.fromkeys("abc", 1.0))
        for turn in range(1, 30):
            measured = {name: 1 + (turn * 7 % (index + 2)) for index, name in enumerate(NAMES)}
            made = update(section, turn, weights, measured, memory)
            weights, memory = made.weights or weights, made.memory
            assert sum(weights.values()) == pytest.approx(1) and min(weights.values()) >= 0.01 - 1e-12


WEIGHTS = (
    st.lists(st.integers(0, 5), min_size=4, max_size=4)
    .filter(any)
    .map(lambda counts: {name: count / sum(counts) for name, count in zip(NAMES, counts, strict=True)})
)


@st.composite
def recipes(draw: st.DrawFn) -> TrainingStage:
    """A stage with any known curriculum, reading and rule for dry sources."""
    kind = draw(st.sampled_from([None, "linear", "staged", "temperature"]))
    batch_size = draw(st.integers(1, 12))
    if kind in ("linear", "staged"):
        places = sorted(draw(st.sets(st.integers(1, 40), min_size=1, max_size=3)))
        points = [{"tokens": place * batch_size * L, "mixture": draw(WEIGHTS)} for place in places]
        curriculum: Any = {"kind": kind, "points": points}
    else:
        curriculum = kind and {"kind": kind, "temperature": draw(st.floats(0.5, 9))}
    when_dry = draw(st.sampled_from(["repeat", "redistribute", "stop"]))
    reading: dict[str, Any] = {
        "b": {"tokens": 5 * L, "resample": draw(st.sampled_from(["fixed", "dynamic"]))}
    }
    if when_dry != "repeat":
        reading |= {"a": {"epochs": draw(st.floats(0.3, 3))}}
    return stage(
        batch_size, 50, mixture=draw(WEIGHTS), curriculum=curriculum, reading=reading, when_dry=when_dry
    )


@given(recipes(), st.integers(0, 3), st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_realised_shares_are_those_planned_for_any_recipe_ranks_and_resumption(
    files: dict[str, TokenFile], section: TrainingStage, seed: int, data: st.DataObject
) -> None:
    whole = mixed(files, section, seed)
    change, weights = data.draw(st.integers(0, 49)), data.draw(WEIGHTS)
    for mixture in (whole, resumed := mixed(files, section, seed)):
        mixture.reweigh(change, weights)
    due: Counter[str] = Counter()
    for step in range(50):
        if not whole.lasts(step):
            assert section.when_dry != "repeat"
            break
        drawn, planned = whole.drawn(step), whole.weights(step)
        due.update({name: section.batch_size * weight for name, weight in planned.items()})
        assert sum(drawn.values()) == section.batch_size
        for name, weight in planned.items():
            assert abs(drawn[name] - section.batch_size * weight) < 1
            assert drawn[name] == 0 or weight > 0
            assert abs(whole.counts(step + 1)[name] - due[name]) <= len(NAMES) / 2 + 1e-6
        if step % 17 == 0:
            ranks = data.draw(st.integers(1, 5))
            rows = [row for rank in range(ranks) for row in resumed.batch(step, rank, ranks).tokens.tolist()]
            assert rows == whole.batch(step).tokens.tolist()
            assert Counter(whole.batch(step).sources) == {k: v for k, v in drawn.items() if v}
