"""The operation `lowbit::affine_linear`, y = x W^T with W = scale * (code - zero_point), on every device.

Weights are frozen: the gradient is that of x alone, dx = dy W, and is itself not differentiable.
Shapes: x [..., in]; codes [out, words]; scale [out, groups]; g_idx [in]; the README draws the storage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lowbit.affine_linear import cpu
from lowbit.affine_linear.layout import num_words, pack, unpack
from lowbit.dispatch import dispatched

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def affine_linear(
    x: Tensor,
    codes: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    g_idx: Tensor | None,
    bits: int,
    prepacked: Sequence[Tensor] = (),
) -> Tensor:
    """Compute y = x W^T from packed storage.

    Args:
        x: [..., in], float32, float16 or bfloat16, contiguous.
        codes: [out, ceil(in * bits / 32)], int32, packed along the input.
        scale: [out, groups], float16, bfloat16 or float32.
        zero_point: [groups, ceil(out * bits / 32)], int32, packed along the output; or [out, groups],
            fractions of any float dtype; or None for a symmetric grid.
        g_idx: [in], the group of each column, or None when groups are runs of neighbouring columns.
        bits: width of a code, 1 to 8.
        prepacked: what `prepack` made of these weights; without it the product is the same, but slower.

    Returns:
        y [..., out], dtype of x.

    Raises:
        ValueError: tensors that are not such.
    """
    if not dispatched(x):
        return _forward_cpu(x, codes, scale, zero_point, g_idx, bits, prepacked)
    product: Tensor = _forward(x, codes, scale, zero_point, g_idx, bits, list(prepacked))
    return product


def prepack(
    codes: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    g_idx: Tensor | None,
    bits: int,
    in_features: int,
    dtype: torch.dtype = torch.float32,
) -> list[Tensor]:
    """Lay weights out for the device they are on; for the caller to keep beside the weights.

    On a CPU: for x of a dtype, in 8 to 16 bits a weight; other x are multiplied too, but slower. On a GPU: as
    they are, but with the columns of a group next to each other.

    Args:
        codes: as in `affine_linear`, like the rest.
        scale: [out, groups].
        zero_point: packed, fractions, or None.
        g_idx: [in], or None.
        bits: width of a code.
        in_features: input columns.
        dtype: of x.

    Returns:
        Tensors for `prepacked`; none where weights are best used as they are.

    Raises:
        ValueError: tensors that are not such weights.
    """
    _check(in_features, codes, scale, zero_point, g_idx, bits)
    if codes.device.type == "cpu":
        return cpu.prepack(codes, scale, zero_point, g_idx, bits, in_features, dtype)
    return [] if g_idx is None else _regrouped(codes, scale, g_idx, bits)


def _forward_cpu(
    x: Tensor,
    codes: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    g_idx: Tensor | None,
    bits: int,
    prepacked: Sequence[Tensor],
) -> Tensor:
    _check_input(x, codes, scale, zero_point, g_idx, bits, prepacked)
    if x.dim() == 2:  # views take as long as a tenth of a small product
        return cpu.forward(x, codes, scale, zero_point, g_idx, bits, prepacked)
    y = cpu.forward(x.view(-1, x.shape[-1]), codes, scale, zero_point, g_idx, bits, prepacked)
    return y.view(*x.shape[:-1], len(scale))


_forward = torch.library.custom_op("lowbit::affine_linear", _forward_cpu, mutates_args=(), device_types="cpu")


@_forward.register_kernel("cuda")
def _forward_cuda(
    x: Tensor,
    codes: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    g_idx: Tensor | None,
    bits: int,
    prepacked: Sequence[Tensor],
) -> Tensor:
    from lowbit.affine_linear import kernel  # Triton is needed, and installed, only where a GPU is

    _check_input(x, codes, scale, zero_point, g_idx, bits, prepacked)
    rows = x.view(-1, x.shape[-1])
    if g_idx is not None:
        codes, columns = prepacked or _regrouped(codes, scale, g_idx, bits)
        rows = rows[:, columns]
    y: Tensor = kernel.forward(rows, codes, scale, zero_point, bits)
    return y.view(*x.shape[:-1], len(scale))


@_forward.register_fake
def _forward_fake(
    x: Tensor,
    codes: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    g_idx: Tensor | None,
    bits: int,
    prepacked: Sequence[Tensor],
) -> Tensor:
    _check_input(x, codes, scale, zero_point, g_idx, bits, prepacked)
    return x.new_empty(*x.shape[:-1], scale.shape[0])


@torch.library.custom_op("lowbit::affine_linear_backward", mutates_args=(), device_types="cpu")
def _backward(
    dy: Tensor,
    codes: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    g_idx: Tensor | None,
    bits: int,
    in_features: int,
    prepacked: Sequence[Tensor],
) -> Tensor:
    rows = dy.reshape(-1, dy.shape[-1])
    dx = cpu.backward(rows, codes, scale, zero_point, g_idx, bits, in_features, prepacked)
    return dx.view(*dy.shape[:-1], in_features)


@_backward.register_kernel("cuda")
def _backward_cuda(
    dy: Tensor,
    codes: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    g_idx: Tensor | None,
    bits: int,
    in_features: int,
    prepacked: Sequence[Tensor],
) -> Tensor:
    from lowbit.affine_linear import kernel

    rows = dy.reshape(-1, dy.shape[-1]).contiguous()
    if g_idx is None:
        dx: Tensor = kernel.backward(rows, codes, scale, zero_point, bits, in_features)
    else:
        codes, columns = prepacked or _regrouped(codes, scale, g_idx, bits)
        regrouped = kernel.backward(rows, codes, scale, zero_point, bits, in_features)
        dx = torch.empty_like(regrouped).index_copy_(1, columns, regrouped)
    return dx.view(*dy.shape[:-1], in_features)


@_backward.register_fake
def _backward_fake(
    dy: Tensor,
    codes: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    g_idx: Tensor | None,
    bits: int,
    in_features: int,
    prepacked: Sequence[Tensor],
) -> Tensor:
    return dy.new_empty(*dy.shape[:-1], in_features)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, codes, scale, zero_point, g_idx, bits, prepacked = inputs
    ctx.save_for_backward(codes, scale, zero_point, g_idx, *prepacked)
    ctx.bits, ctx.in_features = bits, x.shape[-1]


def _gradient(ctx: Any, dy: Tensor) -> tuple[Tensor | list[None] | None, ...]:
    codes, scale, zero_point, g_idx, *prepacked = ctx.saved_tensors
    dx = _backward(dy, codes, scale, zero_point, g_idx, ctx.bits, ctx.in_features, prepacked)
    return dx, None, None, None, None, None, [None] * len(prepacked)


_forward.register_autograd(_gradient, setup_context=_keep)


def _regrouped(codes: Tensor, scale: Tensor, g_idx: Tensor, bits: int) -> list[Tensor]:
    """The codes with the columns of a group next to each other, packed again, and their order."""
    if not cpu.equal_groups(g_idx, scale.shape[1]):
        raise ValueError("affine_linear on a GPU supports groups of as many columns each; g_idx has others")
    columns = cpu.columns_by_group(g_idx)
    return [pack(unpack(codes, bits, len(g_idx))[:, columns], bits), columns]


def _check_input(
    x: Tensor,
    codes: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    g_idx: Tensor | None,
    bits: int,
    prepacked: Sequence[Tensor],
) -> None:
    if x.dtype not in DTYPES:
        raise ValueError(f"affine_linear supports x in float32, float16 and bfloat16; found {x.dtype}")
    if not x.is_contiguous():
        raise ValueError("affine_linear supports contiguous x only; give it x.contiguous()")
    if x.device != codes.device:
        raise ValueError(f"affine_linear needs all on one device; x is on {x.device}, codes {codes.device}")
    if not prepacked or num_words(x.shape[-1], bits) != codes.shape[1]:  # `prepack` has seen the weights
        _check(x.shape[-1], codes, scale, zero_point, g_idx, bits)


def _check(
    in_features: int, codes: Tensor, scale: Tensor, zero_point: Tensor | None, g_idx: Tensor | None, bits: int
) -> None:
    if not 1 <= bits <= 8:
        raise ValueError(f"affine_linear supports 1 to 8 bits; found {bits}")
    out_features, groups = scale.shape
    packed_zero = zero_point is not None and not zero_point.is_floating_point()
    expected: dict[str, tuple[Tensor, tuple[int, ...], bool, str]] = {
        "codes": (codes, (out_features, num_words(in_features, bits)), codes.dtype == torch.int32, "int32"),
        "scale": (scale, (out_features, groups), scale.dtype in DTYPES, "a float dtype"),
    }
    if zero_point is not None:
        own = (groups, num_words(out_features, bits)) if packed_zero else (out_features, groups)
        fits = zero_point.dtype == torch.int32 if packed_zero else zero_point.dtype in DTYPES
        expected["zero_point"] = (zero_point, own, fits, "int32, or a float dtype")
    if g_idx is not None:
        fits = not g_idx.is_floating_point()
        expected["g_idx"] = (g_idx, (in_features,), fits, "integers")
    for name, (tensor, shape, fits, dtypes) in expected.items():
        if tuple(tensor.shape) != shape or not fits:
            raise ValueError(
                f"affine_linear supports {name} of shape {list(shape)} in {dtypes} for {in_features} inputs, "
                f"{out_features} outputs and {bits} bits; found {list(tensor.shape)} in {tensor.dtype}"
            )
        if tensor.device != codes.device:
            raise ValueError(
                f"affine_linear needs all on one device; {name} is on {tensor.device}, codes {codes.device}"
            )
    if g_idx is None and in_features % groups:
        raise ValueError(f"affine_linear supports groups of one size; {groups} do not divide {in_features}")
