"""The products by 4-bit codes into a table of 16 levels, W = scale * table[code], on a GPU.

The kernels are those of `affine_linear`, where a value is a level of the table and no zero point exists.
"""

from __future__ import annotations

from torch import Tensor

from lowbit.affine_linear.kernel import gradient, product
from lowbit.affine_linear.packed import Packed
from lowbit.codebook_linear.reference import BITS


def forward(x: Tensor, codes: Tensor, scale: Tensor, table: Tensor) -> Tensor:
    """Compute y = x W^T.

    Args:
        x: [M, K], float16, bfloat16 or float32, contiguous.
        codes: [N, 4 * ceil(K / 32)], int32, packed along K.
        scale: [N, groups], float; a group is K / groups neighbouring columns.
        table: [16], the levels; they are rounded to the dtype of x, best done before.

    Returns:
        y [M, N], dtype of x.

    Raises:
        ValueError: tensors that are not such, or on several devices.
    """
    return product(x, Packed(codes, scale, None, table, BITS, x.shape[1]))


def backward(dy: Tensor, codes: Tensor, scale: Tensor, table: Tensor, in_features: int) -> Tensor:
    """Compute dx = dy W.

    Args:
        dy: [M, N], float16, bfloat16 or float32, contiguous.
        codes: as in `forward`, like scale and table.
        scale: [N, groups].
        table: [16].
        in_features: K.

    Returns:
        dx [M, K], dtype of dy.

    Raises:
        ValueError: tensors that are not such, or on several devices.
    """
    return gradient(dy, Packed(codes, scale, None, table, BITS, in_features))
