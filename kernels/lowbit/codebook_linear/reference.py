"""The definition of right: y = x @ W.T with W = scale * table[code], in plain torch and float32.

Shapes: codes [out, words], packed in 4 bits along the input as `affine_linear.layout` says; scale
[out, groups], a group being in / groups neighbouring columns; table [16].
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import linear

from lowbit.affine_linear.layout import unpack

BITS = 4


def dequantize_packed(codes: Tensor, scale: Tensor, table: Tensor, in_features: int) -> Tensor:
    """W = scale * table[code].

    Args:
        codes: [out, 4 * ceil(in / 32)], int32.
        scale: [out, groups], any float dtype.
        table: [16], any float dtype.
        in_features: input columns.

    Returns:
        W [out, in], float32.
    """
    levels = table.float()[unpack(codes, BITS, in_features).int()]
    grouped: Tensor = levels.unflatten(1, (scale.shape[1], -1))  # [out, groups, in / groups]
    return (scale.float()[..., None] * grouped).flatten(1)


def codebook_linear(x: Tensor, codes: Tensor, scale: Tensor, table: Tensor) -> Tensor:
    """Compute y = x @ W.T with W from packed storage, in float32.

    Args:
        x: [..., in], any float dtype.
        codes: as in `dequantize_packed`, like the rest.
        scale: [out, groups].
        table: [16].

    Returns:
        y [..., out], dtype of x.
    """
    return linear(x.float(), dequantize_packed(codes, scale, table, x.shape[-1])).to(x.dtype)
