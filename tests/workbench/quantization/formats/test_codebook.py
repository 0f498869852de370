"""The codebook format decodes as drawn, is on disk what it says it is, and shares bitsandbytes' tables."""

from __future__ import annotations

import pytest
import torch
from bitsandbytes import functional
from safetensors.torch import save
from torch import Tensor

from workbench.errors import ModelError
from workbench.quantization.formats.codebook import (
    BlockValues,
    CodebookWeight,
    Table,
    dynamic_map,
    levels_of,
    nearest,
)


def make(shape: tuple[int, int], block_size: int, *, double_quantized: bool, shifted: bool) -> CodebookWeight:
    blocks = -(-shape[0] * shape[1] // block_size)
    absmax = BlockValues.of(torch.rand(blocks), double_quantized=double_quantized)
    tau = BlockValues.of(0.1 * torch.randn(blocks), double_quantized=double_quantized) if shifted else None
    return CodebookWeight(torch.randint(16, shape, dtype=torch.uint8), absmax, tau, "nf4", block_size)


@pytest.mark.parametrize("table", ["nf4", "fp4"])
def test_tables_are_those_of_bitsandbytes(table: Table) -> None:
    assert torch.equal(levels_of(table), functional.get_4bit_type(table, device="cpu"))  # type: ignore[no-untyped-call]
    assert torch.equal(dynamic_map(), functional.create_dynamic_map())  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("shape", [(12, 64), (7, 43), (70, 512)])
@pytest.mark.parametrize("double_quantized", [False, True])
@pytest.mark.parametrize("shifted", [False, True])
def test_disk(shape: tuple[int, int], double_quantized: bool, shifted: bool) -> None:
    """What is stored takes the bits that were counted, and is read back."""
    weight = make(shape, 32, double_quantized=double_quantized, shifted=shifted)
    tensors = weight.tensors()
    header = len(save({name: tensor[:0] for name, tensor in tensors.items()}))
    assert weight.stored_bits == sum(8 * tensor.nbytes for tensor in tensors.values())
    assert abs(len(save(tensors)) - weight.stored_bits // 8 - header) < 128  # offsets have more digits
    again = CodebookWeight.from_tensors(tensors, shape, "nf4", 32)
    assert torch.equal(again.codes, weight.codes)
    assert torch.equal(again.dequantize(), weight.dequantize())


def test_real_bits_of_a_large_matrix() -> None:
    """4 bits, 8 for each block of 64, 32 for each 256 blocks, as the paper counts, and one offset."""
    weight = make((512, 1024), 64, double_quantized=True, shifted=False)
    assert weight.stored_bits == 512 * 1024 * (4 + 8 / 64 + 32 / (64 * 256)) + 32
    assert make((512, 1024), 64, double_quantized=False, shifted=False).stored_bits == 512 * 1024 * 4.5


def test_blocks_run_on_over_the_ends_of_rows() -> None:
    codes = torch.full((2, 6), 15, dtype=torch.uint8)
    absmax, tau = BlockValues(torch.tensor([1.0, 2.0, 3.0])), BlockValues(torch.tensor([0.0, 0.5, 0.0]))
    decoded = CodebookWeight(codes, absmax, tau, "nf4", 4).dequantize()
    assert decoded.flatten().tolist() == [1.0] * 4 + [2.5] * 4 + [3.0] * 4


@pytest.mark.parametrize("name", ["codes", "absmax", "absmax_scale", "absmax_offset"])
def test_tensors_of_another_matrix_are_refused(name: str) -> None:
    tensors = make((8, 64), 32, double_quantized=True, shifted=False).tensors()
    tensors[name] = torch.cat([tensors[name], tensors[name]])
    with pytest.raises(ModelError, match=name):
        CodebookWeight.from_tensors(tensors, (8, 64), "nf4", 32)


@pytest.mark.parametrize("count", [1, 255, 256, 1000])
def test_double_quantization_takes_the_nearest_level(count: int) -> None:
    """Of 256, in runs of 256 around the mean: no other index would be nearer."""
    values = torch.rand(count)
    stored = BlockValues.of(values, double_quantized=True)
    assert stored.scale is not None and stored.offset is not None
    scale = stored.scale.repeat_interleave(256)[:count, None]
    distances = (values[:, None] - (stored.offset + scale * dynamic_map())).abs()
    torch.testing.assert_close((stored.decode() - values).abs(), distances.amin(1), rtol=0, atol=1e-6)


def test_equal_values_survive_double_quantization() -> None:
    values = torch.full((300,), 0.25)
    assert torch.equal(BlockValues.of(values, double_quantized=True).decode(), values)


@pytest.mark.parametrize("levels", [levels_of("nf4"), levels_of("fp4"), dynamic_map()])
def test_nearest_is_nearest(levels: Tensor) -> None:
    values = torch.rand(500) * 2 - 1
    chosen = (levels[nearest(values, levels).int()] - values).abs()
    assert torch.equal(chosen, (levels - values[:, None]).abs().amin(1))
