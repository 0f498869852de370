"""What a quantized matrix takes on disk, before it is made: exact where no width is drawn from the data."""

from __future__ import annotations

from workbench.quantization.formats import adapted, affine, codebook, planes, rotated
from workbench.quantization.methods import Plan


def expected_bits(method: str, shape: tuple[int, int], plan: Plan) -> int:
    """Bits on disk of a matrix, everything included.

    Args:
        method: one of the recipe's methods.
        shape: [out, in].
        plan: what the recipe wants.
    """
    rows, columns = shape
    stage, bits = plan.stage, int(plan.bits)
    groups = 1 if stage.group_size == "channel" else columns // stage.group_size
    match method:
        case "smoothquant" | "int8":
            return affine.stored_bits(rows, columns, bits, 1, symmetric=True)
        case "hqq":
            return affine.stored_bits(rows, columns, bits, groups, symmetric=False, fractional=True)
        case "slim-llm":
            return affine.stored_bits(rows, columns, bits, groups, symmetric=stage.symmetric) + 8 * groups
        case "quip":
            return rotated.stored_bits(rows, columns, bits, balanced=stage.quip.rescale)
        case "nf4":
            return codebook.stored_bits(
                rows, columns, stage.nf4.block_size, double_quantized=stage.nf4.double_quantization
            )
        case "qlora" | "ir-qlora":
            rounded = codebook.stored_bits(
                rows,
                columns,
                stage.nf4.block_size,
                double_quantized=stage.nf4.double_quantization,
                shifted=method == "ir-qlora",
            )
            rank = stage.qlora.rank if method == "qlora" else stage.ir_qlora.rank
            return rounded + adapted.stored_bits(rows, columns, rank)
        case "db-llm":
            return planes.stored_bits(rows, columns, groups, planes=2, numbers=2)
        case "billm":
            return planes.stored_bits(rows, columns, groups, planes=2, numbers=7, column_mask=True)
        case "pb-llm":
            wide = stage.pb_llm.salient_bits
            salient = round(rows * columns * (plan.bits - 1) / (wide - 1))
            return planes.stored_bits(
                rows, columns, groups, planes=1, numbers=2, salient=salient, salient_bits=wide
            )
        case _:
            return affine.stored_bits(rows, columns, bits, groups, symmetric=stage.symmetric)
