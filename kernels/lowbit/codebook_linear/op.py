"""The operation `lowbit::codebook_linear`, y = x W^T with W = scale * table[code], on every device.

Weights are frozen: the gradient is that of x alone, dx = dy W, and is itself not differentiable.
Shapes: x [..., in]; codes [out, words]; scale [out, groups]; table [16]. Codes are packed as those of
`affine_linear` in 4 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lowbit.affine_linear.layout import num_words
from lowbit.codebook_linear import cpu
from lowbit.codebook_linear.reference import BITS
from lowbit.dispatch import dispatched

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def codebook_linear(
    x: Tensor, codes: Tensor, scale: Tensor, table: Tensor, prepacked: Sequence[Tensor] = ()
) -> Tensor:
    """Compute y = x W^T from packed storage.

    Args:
        x: [..., in], float32, float16 or bfloat16, contiguous.
        codes: [out, 4 * ceil(in / 32)], int32, packed along the input.
        scale: [out, groups], a float dtype; a group is in / groups neighbouring columns.
        table: [16], the levels, float32.
        prepacked: what `prepack` made of these weights; without it the product is slower.

    Returns:
        y [..., out], dtype of x.

    Raises:
        ValueError: tensors that are not such.
    """
    if not dispatched(x):
        return _forward_cpu(x, codes, scale, table, prepacked)
    product: Tensor = _forward(x, codes, scale, table, list(prepacked))
    return product


def prepack(
    codes: Tensor, scale: Tensor, table: Tensor, in_features: int, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """Lay weights out for the device they are on; for the caller to keep beside the weights.

    Args:
        codes: as in `codebook_linear`, like the rest.
        scale: [out, groups].
        table: [16].
        in_features: input columns.
        dtype: of x; others are multiplied too, but slower.

    Returns:
        Tensors for `prepacked`: on a CPU the decoded weight, in 16 bits for x in bfloat16, else in 32; none
        on a GPU, which takes weights as they are.

    Raises:
        ValueError: tensors that are not such weights.
    """
    _check(in_features, codes, scale, table)
    return cpu.prepack(codes, scale, table, in_features, dtype) if codes.device.type == "cpu" else []


def _forward_cpu(
    x: Tensor, codes: Tensor, scale: Tensor, table: Tensor, prepacked: Sequence[Tensor]
) -> Tensor:
    _check_input(x, codes, scale, table, prepacked)
    if x.dim() == 2:  # views take as long as a tenth of a small product
        return cpu.forward(x, codes, scale, table, prepacked)
    y = cpu.forward(x.view(-1, x.shape[-1]), codes, scale, table, prepacked)
    return y.view(*x.shape[:-1], len(scale))


_forward = torch.library.custom_op(
    "lowbit::codebook_linear", _forward_cpu, mutates_args=(), device_types="cpu"
)


@_forward.register_kernel("cuda")
def _forward_cuda(
    x: Tensor, codes: Tensor, scale: Tensor, table: Tensor, prepacked: Sequence[Tensor]
) -> Tensor:
    from lowbit.codebook_linear import kernel  # Triton is needed, and installed, only where a GPU is

    _check_input(x, codes, scale, table, prepacked)
    y: Tensor = kernel.forward(x.view(-1, x.shape[-1]), codes, scale, table)
    return y.view(*x.shape[:-1], len(scale))


@_forward.register_fake
def _forward_fake(
    x: Tensor, codes: Tensor, scale: Tensor, table: Tensor, prepacked: Sequence[Tensor]
) -> Tensor:
    _check_input(x, codes, scale, table, prepacked)
    return x.new_empty(*x.shape[:-1], scale.shape[0])


@torch.library.custom_op("lowbit::codebook_linear_backward", mutates_args=(), device_types="cpu")
def _backward(
    dy: Tensor, codes: Tensor, scale: Tensor, table: Tensor, in_features: int, prepacked: Sequence[Tensor]
) -> Tensor:
    rows = dy.reshape(-1, dy.shape[-1])
    return cpu.backward(rows, codes, scale, table, in_features, prepacked).view(*dy.shape[:-1], in_features)


@_backward.register_kernel("cuda")
def _backward_cuda(
    dy: Tensor, codes: Tensor, scale: Tensor, table: Tensor, in_features: int, prepacked: Sequence[Tensor]
) -> Tensor:
    from lowbit.codebook_linear import kernel

    rows = dy.reshape(-1, dy.shape[-1]).contiguous()
    dx: Tensor = kernel.backward(rows, codes, scale, table, in_features)
    return dx.view(*dy.shape[:-1], in_features)


@_backward.register_fake
def _backward_fake(
    dy: Tensor, codes: Tensor, scale: Tensor, table: Tensor, in_features: int, prepacked: Sequence[Tensor]
) -> Tensor:
    return dy.new_empty(*dy.shape[:-1], in_features)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, codes, scale, table, prepacked = inputs
    ctx.save_for_backward(codes, scale, table, *prepacked)
    ctx.in_features = x.shape[-1]


def _gradient(ctx: Any, dy: Tensor) -> tuple[Tensor | list[None] | None, ...]:
    codes, scale, table, *prepacked = ctx.saved_tensors
    dx = _backward(dy, codes, scale, table, ctx.in_features, prepacked)
    return dx, None, None, None, [None] * len(prepacked)


_forward.register_autograd(_gradient, setup_context=_keep)


def _check_input(x: Tensor, codes: Tensor, scale: Tensor, table: Tensor, prepacked: Sequence[Tensor]) -> None:
    if x.dtype not in DTYPES:
        raise ValueError(f"codebook_linear supports x in float32, float16 and bfloat16; found {x.dtype}")
    if not x.is_contiguous():
        raise ValueError("codebook_linear supports contiguous x only; give it x.contiguous()")
    if x.device != codes.device:
        raise ValueError(f"codebook_linear needs all on one device; x is on {x.device}, codes {codes.device}")
    if not prepacked or num_words(x.shape[-1], BITS) != codes.shape[1]:  # `prepack` has seen the weights
        _check(x.shape[-1], codes, scale, table)


def _check(in_features: int, codes: Tensor, scale: Tensor, table: Tensor) -> None:
    out_features, groups = scale.shape
    expected = {
        "codes": (codes, (out_features, num_words(in_features, BITS)), (torch.int32,)),
        "scale": (scale, (out_features, groups), DTYPES),
        "table": (table, (2**BITS,), DTYPES),
    }
    for name, (tensor, shape, dtypes) in expected.items():
        if tuple(tensor.shape) != shape or tensor.dtype not in dtypes:
            raise ValueError(
                f"codebook_linear supports {name} of shape {list(shape)} in {', '.join(map(str, dtypes))} "
                f"for {in_features} inputs, {out_features} outputs; found {[*tensor.shape]}, {tensor.dtype}"
            )
        if tensor.device != codes.device:
            raise ValueError(
                f"codebook_linear needs all on one device; {name} is on {tensor.device}, codes {codes.device}"
            )
    if in_features % groups:
        raise ValueError(f"codebook_linear supports groups of one size; {groups} do not divide {in_features}")
