"""NF4 and FP4 give the numbers of bitsandbytes."""

from __future__ import annotations

import pytest
import torch
from bitsandbytes import functional
from torch import Tensor

from workbench.errors import NumericsError
from workbench.quantization.methods import nf4
from workbench.recipe.quantization import Nf4


def theirs(weight: Tensor, cfg: Nf4) -> tuple[Tensor, functional.QuantState]:
    packed, state = functional.quantize_4bit(
        weight, blocksize=cfg.block_size, quant_type=cfg.table, compress_statistics=cfg.double_quantization
    )
    codes = torch.stack([packed >> 4, packed & 15], -1).flatten()
    return codes[: weight.numel()].view(weight.shape), state


@pytest.mark.parametrize("table", ["nf4", "fp4"])
@pytest.mark.parametrize("block_size", [32, 64])
@pytest.mark.parametrize("shape", [(64, 172), (33, 77)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_codes_and_values_equal_those_of_bitsandbytes(
    table: str, block_size: int, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    cfg = Nf4.model_validate({"table": table, "block_size": block_size, "double_quantization": False})
    weight = (0.02 * torch.randn(shape)).to(dtype)
    weight[0] = 0  # blocks of zeros
    codes, state = theirs(weight, cfg)
    ours = nf4.quantize(weight, cfg)
    assert torch.equal(ours.codes, codes)
    assert torch.equal(ours.absmax.stored, state.absmax)
    absmax = state.absmax.repeat_interleave(block_size)[: weight.numel()].view(shape)
    assert torch.equal(ours.dequantize(), state.code[codes.int()] * absmax)


def test_double_quantization_equals_that_of_bitsandbytes_but_for_near_ties() -> None:
    cfg = Nf4()
    weight = torch.randn(256, 512)
    codes, state = theirs(weight, cfg)
    ours = nf4.quantize(weight, cfg)
    assert torch.equal(ours.codes, codes)
    assert ours.absmax.scale is not None and ours.absmax.offset is not None
    assert torch.equal(ours.absmax.scale, state.state2.absmax)
    assert torch.equal(ours.absmax.offset, state.offset[None])
    steps = (ours.absmax.stored.int() - state.absmax.int()).abs()
    assert int(steps.max()) <= 1 and float(steps.float().mean()) < 0.01


def test_a_damaged_weight_is_refused() -> None:
    weight = torch.randn(4, 64)
    weight[1, 2] = torch.nan
    with pytest.raises(NumericsError, match="NaN"):
        nf4.quantize(weight, Nf4())
