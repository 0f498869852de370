"""Ours against other quantizers on one real model, the same calibration tokens and the same test text.

    WORKBENCH_DATA=../shared/data make oracles

puts the packages of requirements.txt in this folder beside the workbench; none of them is needed to use
it. Prints a table, writes a dated JSON file with versions, nats per token and seconds, and exits with 1
where a perplexity is more than 1.01 times theirs: GPTQ of gptqmodel and of llm-compressor, AWQ of
llm-compressor, HQQ of hqq, NF4 of bitsandbytes. Seconds are the median of ROUNDS, ours and theirs in turn, of
quantization alone, and comparable on an otherwise idle machine only.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import datetime
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from workbench import models, quantization
from workbench.recipe.quantize import Quantize

MODEL = "babyllama-0.9M"
WINDOW, GROUP, ROUNDS = 256, 32, 1
PACKAGES = (
    "torch", "transformers", "gptqmodel", "llmcompressor", "compressed-tensors", "hqq", "bitsandbytes"
)  # fmt: skip
Quantized = tuple[PreTrainedModel, float]  # a model, and the seconds that its quantization took
# What costs nothing at inference is on.
OURS: dict[str, dict[str, Any]] = {
    "gptq": {"gptq": {"act_order": True, "static_groups": True}, "mse_grid": True}
}
MARGIN = math.log(1.01)


def windows(data: Path, text: str, characters: int) -> Tensor:
    """Token ids [windows, WINDOW] of the first characters of a text, tail dropped."""
    tokenizer = models.load_tokenizer(data / "models" / MODEL)
    content = (data / "text" / text).read_text(encoding="utf-8")[:characters]
    tokens = tokenizer(content, add_special_tokens=False)["input_ids"]
    return torch.tensor(tokens[: len(tokens) // WINDOW * WINDOW]).view(-1, WINDOW)


def nats_per_token(model: PreTrainedModel, tokens: Tensor) -> float:
    """Mean cross-entropy over windows."""
    losses = []
    with torch.no_grad():
        for batch in tokens.split(8):
            logits = model(batch, use_cache=False).logits[:, :-1]
            losses.append(cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()))
    return float(torch.stack(losses).mean())


def timed(base: PreTrainedModel, quantize: Callable[[PreTrainedModel], None]) -> Quantized:
    """A copy of a model, quantized in place."""
    model = copy.deepcopy(base)
    start = time.perf_counter()
    quantize(model)
    return model, time.perf_counter() - start


def ours(model: PreTrainedModel, method: str, bits: int, calibration: Tensor, **settings: Any) -> None:
    """Quantize in place with the workbench."""
    section = {"kind": "quantize", "methods": [method], "bits": [bits], "group_size": GROUP}
    stage = Quantize.model_validate(section | {"calibration": {"mixture": {"text": 1}}} | settings)
    quantization.quantize(model, stage, method, bits, [calibration], "oracle")


def gptqmodel(folder: Path, bits: int, calibration: Tensor) -> Quantized:
    """A model of gptqmodel, symmetric, its defaults otherwise; it asks for CUDA to run AWQ."""
    from gptqmodel import GPTQModel, QuantizeConfig
    from transformers import AutoModelForCausalLM

    settings, source = QuantizeConfig(bits=bits, group_size=GROUP), str(folder.resolve())
    scratch = tempfile.TemporaryDirectory()
    with contextlib.redirect_stdout(None), scratch, contextlib.chdir(scratch.name):  # it logs where it runs
        model = GPTQModel.load(source, settings, dtype=torch.float32)
        rows = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in calibration.tolist()]
        start = time.perf_counter()
        model.quantize(rows, batch_size=8)
        seconds = time.perf_counter() - start
        model.save("saved")
        return AutoModelForCausalLM.from_pretrained("saved", dtype=torch.float32), seconds


def llm_compressor(model: PreTrainedModel, method: str, bits: int, calibration: Tensor) -> None:
    """Quantize in place with llm-compressor; asymmetric groups, its own defaults otherwise."""
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from llmcompressor.pipelines.cache import IntermediatesCache

    weights = {"num_bits": bits, "type": "int", "symmetric": False, "group_size": GROUP, "strategy": "group"}
    groups = {"g": {"targets": ["Linear"], "weights": weights}}
    where: dict[str, Any] = {"config_groups": groups, "ignore": ["lm_head"]}
    recipe = {
        "gptq": lambda: [GPTQModifier(**where)],
        "awq": lambda: [AWQModifier(), QuantizationModifier(**where)],
    }[method]()
    rows = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in calibration.tolist()]
    # without an accelerator there is no memory to pin, and its search stops at the attempt
    with patch.object(IntermediatesCache, "pin_memory", lambda *args, **kwargs: None):
        oneshot(
            model=model,
            dataset=Dataset.from_list(rows),
            recipe=recipe,
            max_seq_length=WINDOW,
            num_calibration_samples=len(rows),
        )


def hqq(model: PreTrainedModel, bits: int) -> None:
    """Round the weights in place as hqq does, along the input."""
    from hqq.core.quantize import Quantizer

    for linear in linears(model):
        packed, meta = Quantizer.quantize(
            linear.weight.data, nbits=bits, group_size=GROUP, axis=1, round_zero=bits == 4, device="cpu",
            compute_dtype=torch.float32,
        )  # fmt: skip
        linear.weight.data = Quantizer.dequantize(packed, meta).view_as(linear.weight).float()


def bitsandbytes(model: PreTrainedModel) -> None:
    """Round the weights in place as bitsandbytes does, NF4 in blocks of 64 with double quantization."""
    from bitsandbytes import functional

    for linear in linears(model):
        packed, state = functional.quantize_4bit(
            linear.weight.data, blocksize=64, quant_type="nf4", compress_statistics=True
        )
        linear.weight.data = functional.dequantize_4bit(packed, state)


def linears(model: PreTrainedModel) -> list[torch.nn.Linear]:
    """The linears that are quantized."""
    return [linear for block in models.blocks(model) for linear in models.linears(block).values()]


def compare(data: Path) -> list[dict[str, Any]]:
    """One row a method and width: nats per token and seconds, ours and theirs."""
    stories = windows(data, "tinystories_train_head.txt", 60_000)
    calibration = stories[:64]
    tests = {"grimm": windows(data, "grimm_en.txt", 60_000)[:80], "stories": stories[64:144]}
    base = models.load(data / "models" / MODEL)
    untied = data / "oracles" / "source-untied"

    def row(
        method: str, bits: int, package: str, theirs: Callable[[], Quantized], **settings: Any
    ) -> dict[str, Any]:
        chosen = OURS.get(method, {}) | settings
        makers = {
            "ours": lambda: timed(base, lambda model: ours(model, method, bits, calibration, **chosen)),
            "theirs": theirs,
        }
        rounds = [{name: make() for name, make in makers.items()} for _ in range(ROUNDS)]
        pair = {
            name: {text: nats_per_token(rounds[0][name][0], tokens) for text, tokens in tests.items()}
            | {"seconds": median(done[name][1] for done in rounds)}
            for name in makers
        }
        return {"method": method, "bits": bits, "against": package, "kept": kept(method, bits, pair)} | pair

    def of_llm_compressor(method: str, bits: int) -> dict[str, Any]:
        def theirs() -> Quantized:
            return timed(base, lambda model: llm_compressor(model, method, bits, calibration))

        return row(method, bits, "llmcompressor", theirs)

    def of_hqq(bits: int) -> dict[str, Any]:
        return row("hqq", bits, "hqq", lambda: timed(base, lambda model: hqq(model, bits)))

    def of_gptqmodel(bits: int) -> dict[str, Any]:
        return row("gptq", bits, "gptqmodel", lambda: gptqmodel(untied, bits, calibration), symmetric=True)

    return [
        *(of_gptqmodel(bits) for bits in (4, 3)),
        *(of_llm_compressor(method, bits) for method in ("gptq", "awq") for bits in (4, 3)),
        *(of_hqq(bits) for bits in (8, 4, 3, 2, 1)),
        row("nf4", 4, "bitsandbytes", lambda: timed(base, bitsandbytes)),
    ]


def kept(method: str, bits: int, pair: dict[str, dict[str, float]]) -> bool:
    """Whether our perplexity is at most 1.01 times theirs: the mean over both texts, in nats.

    HQQ and NF4 have one answer, so that they may not be better by more than that either; but for 1 bit,
    where errors exceed the weights and no model is left to agree on.
    """
    difference = sum(pair["ours"][text] - pair["theirs"][text] for text in ("grimm", "stories")) / 2
    return (abs(difference) if method in ("hqq", "nf4") and bits > 1 else difference) <= MARGIN


def main() -> int:
    """Compare, print, write, judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the result file")
    out = parser.parse_args().out
    rows = compare(Path(os.environ["WORKBENCH_DATA"]))
    for row in rows:
        texts = "  ".join(f"{t} {row['ours'][t]:.4f} / {row['theirs'][t]:.4f}" for t in ("grimm", "stories"))
        times = f"{row['ours']['seconds']:.1f} s / {row['theirs']['seconds']:.1f} s"
        verdict = "kept" if row["kept"] else "BROKEN"
        print(f"{row['method']:5} {row['bits']}  {row['against']:13} {texts}  {times}  {verdict}")
    result = {
        "model": MODEL,
        "group_size": GROUP,
        "threads": torch.get_num_threads(),
        "versions": {package: version(package) for package in PACKAGES},
        "rows": rows,
    }
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"quantizers-{datetime.datetime.now(datetime.UTC):%Y-%m-%d}.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
    return 0 if all(row["kept"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
