"""y = x @ dequantize(W).T for weights on an affine grid, W = scale * (code - zero_point), 1 to 8 bits."""

from lowbit.affine_linear.layout import implied_zero_point, num_words, pack, unpack
from lowbit.affine_linear.op import affine_linear, prepack
from lowbit.affine_linear.reference import dequantize, dequantize_packed

__all__ = [
    "affine_linear",
    "dequantize",
    "dequantize_packed",
    "implied_zero_point",
    "num_words",
    "pack",
    "prepack",
    "unpack",
]
