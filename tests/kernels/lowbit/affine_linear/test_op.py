"""The operation is the product with the decoded weights, also in a compiled graph, and so is its gradient."""

from __future__ import annotations

import pytest
import torch
from lowbit import dense_rows
from lowbit.affine_linear import dequantize, pack
from lowbit.affine_linear.op import affine_linear, prepack
from torch import Tensor

OUT, IN = 130, 256
Weights = tuple[Tensor, Tensor, Tensor | None, Tensor | None, int]


def weights(
    bits: int, groups: int = 8, zero: str = "packed", scattered: bool = False, out: int = OUT
) -> tuple[Weights, Tensor]:
    """Packed weights and W in float64."""
    codes = torch.randint(2**bits, (out, IN), dtype=torch.uint8)
    codes[0] = 2**bits - 1  # words with the sign bit
    scale = torch.rand(out, groups).half()
    points = {
        "none": None,
        "packed": torch.randint(2**bits, (out, groups), dtype=torch.uint8),
        "fractions": (torch.rand(out, groups) * 2**bits).half(),
    }[zero]
    g_idx = torch.randperm(IN).remainder(groups).to(torch.int16) if scattered else None
    dense = dequantize(codes, scale, points, g_idx, bits).double()
    stored = pack(points.T, bits) if zero == "packed" and points is not None else points
    return (pack(codes, bits), scale, stored, g_idx, bits), dense


@pytest.fixture(autouse=True, params=["rows of bytes", "decoded"])
def layout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What `prepack` makes of the weights of these tests: what it makes of large ones, and of small ones."""
    if request.param == "rows of bytes":
        monkeypatch.setattr("lowbit.affine_linear.cpu.SMALL", 0)
    return str(request.param)


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("zero", ["none", "packed", "fractions"])
@pytest.mark.parametrize(("groups", "scattered"), [(8, False), (8, True), (1, False)])
@pytest.mark.parametrize("laid_out", [True, False])
def test_product_and_gradient_are_those_of_the_decoded_weight(
    bits: int, zero: str, groups: int, scattered: bool, laid_out: bool
) -> None:
    packed, dense = weights(bits, groups, zero, scattered)
    prepacked = prepack(*packed, IN) if laid_out else ()
    for m in (1, 3, 17):  # few rows of x and many are multiplied in different ways
        x = (
            torch.randn(m, IN) + 10
        ).requires_grad_()  # a large mean, where corrections for zero points cancel
        dy = torch.randn(m, OUT)
        y = affine_linear(x, *packed, prepacked)
        y.backward(dy)
        # sums of 256 in float32, and a cancellation of at most the range of the codes
        assert relative_error(y.detach(), x.detach().double() @ dense.T) < 1e-5
        assert x.grad is not None and relative_error(x.grad, dy.double() @ dense) < 1e-5


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
@pytest.mark.parametrize("m", [1, 40])
def test_half_precision_rounds_the_result_alone(dtype: torch.dtype, tolerance: float, m: int) -> None:
    packed, dense = weights(4)
    x = torch.randn(2, m, IN).to(dtype)
    y = affine_linear(x, *packed, prepack(*packed, IN, dtype))
    assert y.dtype == dtype and y.shape == (2, m, OUT)
    assert relative_error(y, x.double() @ dense.T) < tolerance


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("zero", ["none", "packed"])
@pytest.mark.parametrize(("groups", "scattered"), [(8, False), (8, True), (1, False)])
@pytest.mark.parametrize("hardware", [True, False])
def test_bfloat16_where_torchs_kernels_take_part(
    bits: int, zero: str, groups: int, scattered: bool, hardware: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense_rows, "hardware", lambda: hardware)
    packed, dense = weights(bits, groups, zero, scattered, out=128)
    prepacked = prepack(*packed, IN, torch.bfloat16)
    for m in (1, 2, 17, 65):  # each of the ways to multiply
        x = torch.randn(m, IN).bfloat16().requires_grad_()
        dy = torch.randn(m, 128).bfloat16()
        y = affine_linear(x, *packed, prepacked)
        y.backward(dy)
        # the result rounded to bfloat16, and scales
        assert relative_error(y.detach(), x.detach().double() @ dense.T) < 2**-7
        assert x.grad is not None and relative_error(x.grad, dy.double() @ dense) < 2**-7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_a_gradient_the_operation_is_the_same(dtype: torch.dtype) -> None:
    packed, _ = weights(4)
    prepacked = prepack(*packed, IN, dtype)
    x = torch.randn(3, IN, dtype=dtype, requires_grad=True)
    followed = affine_linear(x, *packed, prepacked)
    alone = affine_linear(x.detach(), *packed, prepacked)
    assert followed.requires_grad and not alone.requires_grad
    assert torch.equal(followed, alone)
    with torch.no_grad():
        assert torch.equal(affine_linear(x, *packed, prepacked), alone)


def test_an_outlier_and_zeros_in_the_input() -> None:
    packed, dense = weights(3)
    prepacked = prepack(*packed, IN)
    x = torch.randn(4, IN)
    x[0], x[1, 7] = 0, 1000
    y = affine_linear(x, *packed, prepacked)
    assert torch.equal(y[0], torch.zeros(OUT)) and relative_error(y[1], x[1].double() @ dense.T) < 1e-5
    assert torch.equal(y, affine_linear(x, *packed, prepacked))


def test_groups_of_different_sizes_have_no_rows_of_bytes(layout: str) -> None:
    (codes, scale, zero_point, _, bits), _ = weights(4)
    g_idx = torch.arange(IN).clamp(max=7).to(torch.int16)
    packed = (codes, scale, zero_point, g_idx, bits)
    assert len(prepack(*packed, IN)) == (0 if layout == "rows of bytes" else 1)
    assert affine_linear(torch.randn(2, IN), *packed).isfinite().all()


@pytest.mark.parametrize("scattered", [True, False])
def test_opcheck(scattered: bool) -> None:
    packed, _ = weights(5, scattered=scattered)
    for prepacked in ([], prepack(*packed, IN)):
        x = torch.randn(3, IN, requires_grad=True)
        torch.library.opcheck(torch.ops.lowbit.affine_linear.default, (x, *packed, prepacked))


def test_compiled_graph_with_any_number_of_rows() -> None:
    packed, dense = weights(2)
    prepacked = prepack(*packed, IN)

    @torch.compile(fullgraph=True, dynamic=True, backend="aot_eager")
    def twice(x: Tensor) -> Tensor:
        return 2 * affine_linear(x, *packed, prepacked)

    for m in (2, 5):
        x = torch.randn(m, IN, requires_grad=True)
        y = twice(x)
        y.sum().backward()
        assert relative_error(y.detach(), 2 * (x.detach().double() @ dense.T)) < 1e-5
        assert x.grad is not None and relative_error(x.grad, 2 * dense.sum(0).expand(m, -1)) < 1e-5


def test_what_is_not_supported_is_named() -> None:
    (codes, scale, zero_point, g_idx, bits), _ = weights(4)
    x = torch.randn(4, IN)
    rest = (codes, scale, zero_point, g_idx)
    with pytest.raises(ValueError, match=r"float32, float16 and bfloat16; found torch\.float64"):
        affine_linear(x.double(), *rest, bits)
    with pytest.raises(ValueError, match="contiguous"):
        affine_linear(torch.randn(IN, 4).T, *rest, bits)
    with pytest.raises(ValueError, match="1 to 8 bits; found 9"):
        affine_linear(x, *rest, 9)
    with pytest.raises(ValueError, match=r"codes of shape \[130, 24\] in int32"):
        affine_linear(x, *rest, 3)
    with pytest.raises(ValueError, match="codes of shape"):
        affine_linear(x, codes.float(), *rest[1:], bits)
    with pytest.raises(ValueError, match="zero_point of shape"):
        affine_linear(x, codes, scale, codes, None, bits)
    with pytest.raises(ValueError, match="g_idx of shape"):
        affine_linear(x, codes, scale, None, torch.zeros(3, dtype=torch.int16), bits)
    with pytest.raises(ValueError, match="do not divide"):
        affine_linear(x, codes, torch.rand(OUT, 7).half(), None, None, bits)
    with pytest.raises(ValueError, match="on one device"):
        affine_linear(x.to("meta"), *rest, bits)
