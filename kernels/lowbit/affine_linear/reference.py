"""The definition of right: y = x @ W.T with W = scale * (code - zero_point), in plain torch and float32.

Shapes: codes [out, in]; scale [out, groups]; zero points [out, groups]; g_idx [in] names the
group of each input column and is None when groups are runs of in / groups neighbouring columns.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from lowbit.affine_linear.layout import implied_zero_point, unpack


def dequantize(
    codes: Tensor, scale: Tensor, zero_point: Tensor | None, g_idx: Tensor | None, bits: int
) -> Tensor:
    """W = scale * (code - zero_point).

    Args:
        codes: [out, in], integers in [0, 2**bits).
        scale: [out, groups], any float dtype.
        zero_point: [out, groups], in code units; None for a symmetric grid.
        g_idx: [in], integers in [0, groups), or None.
        bits: width of a code.

    Returns:
        W [out, in], float32.
    """
    step = scale.float()
    zero = torch.full_like(step, implied_zero_point(bits)) if zero_point is None else zero_point.float()
    if g_idx is not None:
        columns = g_idx.long()
        return step[:, columns] * (codes.float() - zero[:, columns])
    grouped: Tensor = codes.float().unflatten(1, (scale.shape[1], -1))  # [out, groups, in / groups]
    return (step[..., None] * (grouped - zero[..., None])).flatten(1)


def dequantize_packed(
    codes: Tensor, scale: Tensor, zero_point: Tensor | None, g_idx: Tensor | None, bits: int, in_features: int
) -> Tensor:
    """`dequantize` from packed storage.

    Args:
        codes: [out, bits * ceil(in / 32)], int32, packed along the input.
        scale: [out, groups].
        zero_point: [groups, bits * ceil(out / 32)], int32, packed along the output; None if symmetric.
        g_idx: [in], or None.
        bits: width of a code and of a zero point.
        in_features: input columns.

    Returns:
        W [out, in], float32.
    """
    zero = None if zero_point is None else unpack(zero_point, bits, scale.shape[0]).T
    return dequantize(unpack(codes, bits, in_features), scale, zero, g_idx, bits)


def affine_linear(
    x: Tensor, codes: Tensor, scale: Tensor, zero_point: Tensor | None, g_idx: Tensor | None, bits: int
) -> Tensor:
    """Compute y = x @ W.T with W from packed storage, in float32.

    Args:
        x: [..., in], any float dtype.
        codes: as in `dequantize_packed`, like the rest.
        scale: [out, groups].
        zero_point: packed, or None.
        g_idx: [in], or None.
        bits: width of a code.

    Returns:
        y [..., out], dtype of x.
    """
    weight = dequantize_packed(codes, scale, zero_point, g_idx, bits, x.shape[-1])
    return linear(x.float(), weight).to(x.dtype)
