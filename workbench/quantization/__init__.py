"""Post-training quantization of weights: a method decides values, a format stores them, one walk drives all.

`quantize` replaces the linears of a model's decoder blocks. Importing this package teaches transformers
to load the folders that `models.save` then writes.
"""

from workbench.quantization.allocation import Allotted
from workbench.quantization.finished import LayerReport, discard_blocks
from workbench.quantization.formats.affine import AffineWeight
from workbench.quantization.grid import Grid, check_group_size
from workbench.quantization.linear import QuantizedLinear, linear_shapes
from workbench.quantization.methods import METHODS, Method, Plan
from workbench.quantization.size import expected_bits
from workbench.quantization.walk import Report, quantize

__all__ = [
    "METHODS",
    "AffineWeight",
    "Allotted",
    "Grid",
    "LayerReport",
    "Method",
    "Plan",
    "QuantizedLinear",
    "Report",
    "check_group_size",
    "discard_blocks",
    "expected_bits",
    "linear_shapes",
    "quantize",
]
