"""The product on a CPU: weights laid out for x of a dtype where the caller keeps them so, else decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear

from lowbit import byte_rows, dense_rows, int4_rows, int8_rows
from lowbit.affine_linear.layout import implied_zero_point, unpack
from lowbit.affine_linear.reference import dequantize

CHUNK_WEIGHTS = 2**20  # decoded at a time
# Of a matrix that is kept decoded: it stays in the cache, and finer calls would take longer than the product.
SMALL = 2**18
BYTE_ROWS = len(byte_rows.ByteRows._fields)  # tensors of a layout, which tell it from the others
INT8_ROWS = len(int8_rows.Int8Rows._fields)


def prepack(
    codes: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    g_idx: Tensor | None,
    bits: int,
    in_features: int,
    dtype: torch.dtype,
) -> list[Tensor]:
    """Lay weights out as rows of bytes; for x in bfloat16 also, or instead, as torch's kernels take them.

    A weight takes 8.7 bits, whatever the width of its code, and up to 4 bits, for x in bfloat16, 4 more; one
    scale a row at 5 to 8 bits, for x in bfloat16: 8. The scale of a group takes 32 bits, up to 4 bits and for
    x in bfloat16 twice, and its shift 32.

    Args:
        codes: as in `op.affine_linear`, like the rest.
        scale: [out, groups].
        zero_point: packed, fractions, or None.
        g_idx: [in], or None.
        bits: width of a code.
        in_features: input columns.
        dtype: of x.

    Returns:
        The tensors of `ByteRows`, and those of `int4_rows` behind them, or of `Int8Rows`; or W alone,
        float32, if it is small; none where groups differ in size.
    """
    out_features, groups = scale.shape
    if out_features * in_features <= SMALL:
        decoded = _decoded(codes, scale, zero_point, g_idx, bits, in_features)
        return [torch.cat([weight for _, weight in decoded])]
    if g_idx is not None and not equal_groups(g_idx, groups):
        return []
    values = unpack(codes, bits, in_features)
    columns = None if g_idx is None else columns_by_group(g_idx)
    values = values if columns is None else values[:, columns]
    middle, step = implied_zero_point(bits), scale.float()
    shift = None if zero_point is None else step * (middle - zero_points(zero_point, bits, out_features))
    signed = (values.short() - int(middle)).to(torch.int8)
    per_row = groups == 1 and columns is None and bits > 4
    if dtype == torch.bfloat16 and per_row and int8_rows.fits(out_features):
        return list(int8_rows.int8_rows(signed, step[:, 0], None if shift is None else shift[:, 0]))
    nibbles: list[Tensor] = []
    if dtype == torch.bfloat16 and bits <= 4 and int4_rows.fits(out_features, in_features // groups):
        step = step.bfloat16().float()  # the same weights for every number of rows
        # at 1 bit the middle lies between the codes: -1 and 1 in half steps
        nibbles = list(int4_rows.int4_rows(*((2 * signed - 1, step / 2) if bits == 1 else (signed, step))))
    return [*byte_rows.byte_rows(values, -middle, step, shift, columns), *nibbles]


def forward(
    x: Tensor,
    codes: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    g_idx: Tensor | None,
    bits: int,
    prepacked: Sequence[Tensor],
) -> Tensor:
    """Compute y [M, out] of x [M, in], in float32 inside; the other arguments are as in `prepack`."""
    layout, bfloat16 = len(prepacked), x.dtype == torch.bfloat16
    if layout == 1:
        return dense_rows.forward(x, prepacked[0])
    if layout == INT8_ROWS and bfloat16:
        return int8_rows.forward(x, prepacked, dense_rows.hardware())
    if layout > BYTE_ROWS and bfloat16 and x.shape[0] in int4_rows.ROWS[dense_rows.hardware()]:
        _, _, shift, columns, packed, grid = prepacked
        return int4_rows.forward(x[:, columns] if columns.numel() else x, packed, grid, shift)
    if layout >= BYTE_ROWS:
        return byte_rows.forward(x, prepacked[:BYTE_ROWS], scale.shape[0])
    y = torch.empty(len(x), len(scale), dtype=x.dtype)
    factor = x.float()
    for outputs, decoded in _decoded(codes, scale, zero_point, g_idx, bits, x.shape[1]):
        y[:, outputs] = linear(factor, decoded)
    return y


def backward(
    dy: Tensor,
    codes: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    g_idx: Tensor | None,
    bits: int,
    in_features: int,
    prepacked: Sequence[Tensor],
) -> Tensor:
    """Compute dx [M, in] = dy W of dy [M, out], summed in float32."""
    if len(prepacked) == INT8_ROWS:
        return int8_rows.backward(dy, prepacked)
    if len(prepacked) == 1:
        return dense_rows.backward(dy, prepacked[0])
    if prepacked:
        return byte_rows.backward(dy, prepacked[:BYTE_ROWS], in_features)
    dx = torch.zeros(len(dy), in_features)
    factor = dy.float()
    for rows, weight in _decoded(codes, scale, zero_point, g_idx, bits, in_features):
        dx.addmm_(factor[:, rows], weight)
    return dx.to(dy.dtype)


def columns_by_group(g_idx: Tensor) -> Tensor:
    """The columns [in] in the order of their groups, and in their own order within a group."""
    return torch.argsort(g_idx, stable=True)


def equal_groups(g_idx: Tensor, groups: int) -> bool:
    """Whether every group has as many columns."""
    return bool((torch.bincount(g_idx.long(), minlength=groups) * groups == len(g_idx)).all())


def zero_points(zero_point: Tensor, bits: int, out_features: int) -> Tensor:
    """Zero points [out, groups], float32, however they are stored."""
    packed = not zero_point.is_floating_point()
    return (unpack(zero_point, bits, out_features).T if packed else zero_point).float()


def _decoded(
    codes: Tensor, scale: Tensor, zero_point: Tensor | None, g_idx: Tensor | None, bits: int, in_features: int
) -> Iterator[tuple[slice, Tensor]]:
    """Output rows, and their weights [rows, in], float32."""
    zero = None if zero_point is None else zero_points(zero_point, bits, len(scale))
    together = max(CHUNK_WEIGHTS // in_features, 1)
    for start in range(0, len(scale), together):
        rows = slice(start, start + together)
        own = unpack(codes[rows], bits, in_features)
        yield rows, dequantize(own, scale[rows], None if zero is None else zero[rows], g_idx, bits)
