"""The planes format decodes as drawn, comes back from disk, and counts the bits that lie there."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from workbench.errors import ModelError
from workbench.quantization.formats.planes import PlanesWeight, Salient, stored_bits

OUT, IN, BLOCKS = 6, 40, 2


def half(*shape: int) -> Tensor:
    return torch.randn(*shape).half()


def bits(*shape: int) -> Tensor:
    return torch.rand(*shape) > 0.5


def partly_binarized(salient_bits: int = 8) -> PlanesWeight:
    mask = torch.rand(OUT, IN) < 0.2
    codes = torch.randint(0, 2**salient_bits, (int(mask.sum()),), dtype=torch.uint8)
    zero_point = torch.randint(0, 2**salient_bits, (OUT,), dtype=torch.uint8)
    salient = Salient(mask, codes, half(OUT), zero_point)
    planes = bits(1, OUT, IN) & ~mask
    numbers = half(1, OUT, BLOCKS), half(1, OUT, BLOCKS)
    return PlanesWeight(planes, *numbers, salient=salient, salient_bits=salient_bits)


def residual() -> PlanesWeight:
    return PlanesWeight(bits(2, OUT, IN), half(3, OUT, BLOCKS), half(4, OUT, BLOCKS), bits(IN))


def dual() -> PlanesWeight:
    return PlanesWeight(bits(2, OUT, IN), None, half(2, OUT, BLOCKS))


def split() -> PlanesWeight:
    return PlanesWeight(bits(2, OUT, IN), half(2, OUT, BLOCKS), half(2, OUT, BLOCKS))


def one_by_one(weight: PlanesWeight) -> Tensor:
    """The header's table, weight by weight."""
    result, salient = torch.zeros(OUT, IN), iter(range(OUT * IN))
    for row in range(OUT):
        for column in range(IN):
            block = column * BLOCKS // IN
            b = [int(plane[row, column]) for plane in weight.planes]
            s = weight.step[:, row, block].float()
            o = None if weight.offset is None else weight.offset[:, row, block].float()
            if weight.salient is not None and weight.salient.mask[row, column]:
                code = float(weight.salient.codes[next(salient)])
                scale, zero_point = weight.salient.scale[row], weight.salient.zero_point[row]
                result[row, column] = float(scale) * (code - float(zero_point))
            elif o is None:
                result[row, column] = s[0] * b[0] + s[1] * b[1]
            elif weight.additive is not None and weight.additive[column]:
                result[row, column] = o[-1] + s[-2] * b[0] + s[-1] * b[1]
            else:
                k = b[1] if len(b) == 2 else 0
                result[row, column] = o[k] + s[k] * b[0]
    return result


EXAMPLES = {"partly binarized": partly_binarized, "residual": residual, "dual": dual, "split": split}


@pytest.mark.parametrize("example", EXAMPLES)
def test_decodes_as_drawn(example: str) -> None:
    weight = EXAMPLES[example]()
    torch.testing.assert_close(weight.dequantize(), one_by_one(weight))


@pytest.mark.parametrize("example", EXAMPLES)
def test_disk_holds_the_bits_that_are_counted(example: str) -> None:
    weight = EXAMPLES[example]()
    tensors = load(save(weight.tensors()))
    assert weight.stored_bits == sum(8 * tensor.nbytes for tensor in tensors.values())
    again = PlanesWeight.from_tensors(tensors, (OUT, IN), weight.salient_bits)
    assert torch.equal(again.dequantize(), weight.dequantize())
    assert torch.equal(again.planes, weight.planes)


@pytest.mark.parametrize("salient_bits", range(2, 9))
def test_salient_codes_of_every_width_come_back(salient_bits: int) -> None:
    weight = partly_binarized(salient_bits)
    tensors = weight.tensors()
    assert weight.stored_bits == sum(8 * tensor.nbytes for tensor in tensors.values())
    again = PlanesWeight.from_tensors(tensors, (OUT, IN), salient_bits)
    assert again.salient is not None and weight.salient is not None
    assert torch.equal(again.salient.codes, weight.salient.codes)
    assert torch.equal(again.planes, weight.planes)


def test_real_bits_of_large_matrices() -> None:
    """In blocks of 128, PB-LLM takes 2.95 bits, DB-LLM 2.25 and BiLLM 2.875."""
    size, n = (4096, 4096, 32), 4096**2
    salient = round(0.1 * n)
    pb_llm = stored_bits(*size, planes=1, numbers=2, salient=salient) / n
    assert pb_llm == pytest.approx(1.7 + 1 + 32 / 128 + 24 / 4096, abs=1e-5)
    assert stored_bits(*size, planes=2, numbers=2) / n == 2.25
    assert stored_bits(*size, planes=2, numbers=7, column_mask=True) / n == 2 + 7 * 16 / 128 + 1 / 4096


def test_tensors_of_another_matrix_are_refused() -> None:
    tensors = partly_binarized().tensors()
    with pytest.raises(ModelError, match=r"shape \[6, 2\], its layout asks for \[6, 3\]"):
        PlanesWeight.from_tensors(tensors, (OUT, IN + 32), 8)
    with pytest.raises(ModelError, match=r"salient_codes: shape"):
        PlanesWeight.from_tensors(tensors | {"salient_codes": tensors["salient_codes"][1:]}, (OUT, IN), 8)
