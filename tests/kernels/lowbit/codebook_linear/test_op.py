"""The operation is the product with the decoded weights, also in a compiled graph, and so is its gradient."""

from __future__ import annotations

import pytest
import torch
from lowbit.affine_linear import pack
from lowbit.codebook_linear.op import codebook_linear, prepack
from torch import Tensor

OUT, IN, GROUPS = 70, 192, 3
TABLE = torch.randn(16).sort().values  # any table, in any order


def weights() -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """Packed weights and W in float64."""
    codes = torch.randint(16, (OUT, IN), dtype=torch.uint8)
    scale = torch.rand(OUT, GROUPS)
    table = TABLE[torch.randperm(16)]
    dense = table[codes.int()].double() * scale.repeat_interleave(IN // GROUPS, 1)
    return (pack(codes, 4), scale, table), dense


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("laid_out", [True, False])
@pytest.mark.parametrize("m", [1, 3, 17])
def test_product_and_gradient_are_those_of_the_decoded_weight(m: int, laid_out: bool) -> None:
    packed, dense = weights()
    prepacked = prepack(*packed, IN) if laid_out else ()
    x = torch.randn(m, IN, requires_grad=True)
    dy = torch.randn(m, OUT)
    y = codebook_linear(x, *packed, prepacked)
    y.backward(dy)
    assert relative_error(y.detach(), x.detach().double() @ dense.T) < 1e-6
    assert x.grad is not None and relative_error(x.grad, dy.double() @ dense) < 1e-6
    prepacked = prepack(*packed, IN, torch.bfloat16) if laid_out else ()
    half = codebook_linear(x.detach().bfloat16(), *packed, prepacked)
    assert half.dtype == torch.bfloat16
    assert relative_error(half, x.detach().bfloat16().double() @ dense.T) < 2**-8


def test_a_table_of_one_level() -> None:
    (codes, scale, _), _ = weights()
    packed = (codes, scale, torch.full((16,), 0.5))
    y = codebook_linear(torch.ones(1, IN), *packed, prepack(*packed, IN))
    torch.testing.assert_close(y[0], 0.5 * scale.sum(1) * IN / GROUPS)


def test_opcheck_and_compiled_graph() -> None:
    packed, dense = weights()
    for prepacked in ([], prepack(*packed, IN)):
        x = torch.randn(3, IN, requires_grad=True)
        torch.library.opcheck(torch.ops.lowbit.codebook_linear.default, (x, *packed, prepacked))
        compiled = torch.compile(codebook_linear, fullgraph=True, backend="aot_eager")
        assert relative_error(compiled(x, *packed, prepacked).detach(), x.detach().double() @ dense.T) < 1e-6


def test_what_is_not_supported_is_named() -> None:
    (codes, scale, table), _ = weights()
    x = torch.randn(2, IN)
    with pytest.raises(ValueError, match=r"float32, float16 and bfloat16; found torch\.float64"):
        codebook_linear(x.double(), codes, scale, table)
    with pytest.raises(ValueError, match="contiguous"):
        codebook_linear(torch.randn(IN, 2).T, codes, scale, table)
    with pytest.raises(ValueError, match=r"table of shape \[16\]"):
        codebook_linear(x, codes, scale, table[:8])
    with pytest.raises(ValueError, match=r"codes of shape \[70, 24\]"):
        codebook_linear(x, codes[:, 1:], scale, table)
    with pytest.raises(ValueError, match="do not divide"):
        codebook_linear(x, codes, torch.rand(OUT, 5), table)
    with pytest.raises(ValueError, match="on one device"):
        codebook_linear(x, codes, scale.to("meta"), table)
