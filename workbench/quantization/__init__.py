"""Post-training quantization of weights: a method decides values, a format stores them, one walk drives all.

`quantize` replaces the linears of a model's decoder blocks. Importing this package teaches transformers
to load the folders that `models.save` then writes.
"""

from workbench.quantization.formats.affine import AffineWeight, stored_bits
from workbench.quantization.grid import Grid, check_group_size
from workbench.quantization.linear import AffineLinear, linear_shapes
from workbench.quantization.methods import METHODS
from workbench.quantization.walk import LayerReport, Report, quantize

__all__ = [
    "METHODS",
    "AffineLinear",
    "AffineWeight",
    "Grid",
    "LayerReport",
    "Report",
    "check_group_size",
    "linear_shapes",
    "quantize",
    "stored_bits",
]
