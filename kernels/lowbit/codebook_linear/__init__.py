"""y = x @ dequantize(W).T for 4-bit codes into a table of 16 levels, W = scale * table[code]."""

from lowbit.codebook_linear.op import codebook_linear, prepack
from lowbit.codebook_linear.reference import dequantize_packed

__all__ = ["codebook_linear", "dequantize_packed", "prepack"]
