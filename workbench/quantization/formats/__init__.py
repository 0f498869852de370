"""How quantized weights are stored: each format says what it decodes to and how many bits it takes.

A format is a frozen dataclass, one file each. Its fields are tensors, plain numbers or words, and weights in
other formats; the numbers and words and the layouts of those weights, with the name of the format, are
its layout, which config.json keeps for each linear.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, ClassVar, Protocol

from torch import Tensor

from workbench.quantization.formats.adapted import AdaptedWeight
from workbench.quantization.formats.affine import AffineWeight
from workbench.quantization.formats.codebook import CodebookWeight
from workbench.quantization.formats.mixed import MixedWeight
from workbench.quantization.formats.planes import PlanesWeight
from workbench.quantization.formats.rotated import RotatedWeight

Layout = dict[str, Any]  # numbers and words, or the Layout of a weight in it


class Weight(Protocol):
    """A quantized matrix [out, in] in any format."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def stored_bits(self) -> int:
        """Bits of all its tensors on disk, computed from its layout."""
        ...

    def dequantize(self) -> Tensor:
        """W [out, in], float32."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """What is on disk, by name; none shares storage with another matrix."""
        ...


# From the tensors on disk, the shape [out, in] and the layout by keyword to the weight.
FORMATS: dict[str, Callable[..., Weight]] = {
    "affine": AffineWeight.from_tensors,
    "mixed": MixedWeight.from_tensors,
    "codebook": CodebookWeight.from_tensors,
    "planes": PlanesWeight.from_tensors,
    "rotated": RotatedWeight.from_tensors,
    "adapted": AdaptedWeight.from_tensors,
}
_NAMES: dict[type, str] = {
    AffineWeight: "affine",
    MixedWeight: "mixed",
    CodebookWeight: "codebook",
    PlanesWeight: "planes",
    RotatedWeight: "rotated",
    AdaptedWeight: "adapted",
}


def layout_of(weight: Weight) -> Layout:
    """All of a weight that is not a tensor: the name of its format, numbers, words, and layouts inside."""
    values = {field.name: getattr(weight, field.name) for field in fields(weight)}
    plain = {name: value for name, value in values.items() if isinstance(value, bool | int | float | str)}
    inner = {name: layout_of(value) for name, value in values.items() if type(value) in _NAMES}
    return {"format": _NAMES[type(weight)], **plain, **inner}


def from_layout(layout: Layout, tensors: Mapping[str, Tensor], shape: tuple[int, int]) -> Weight:
    """The weight of a layout and of its tensors on disk.

    Args:
        layout: as `layout_of` gives it.
        tensors: as `tensors` of the weight gives them; those of a weight inside have its name before.
        shape: [out, in].
    """
    values = {name: value for name, value in layout.items() if name != "format"}
    for name, value in values.items():
        if isinstance(value, dict):
            prefix = f"{name}_"
            own = {key.removeprefix(prefix): tensors[key] for key in tensors if key.startswith(prefix)}
            values[name] = from_layout(value, own, shape)
    return FORMATS[str(layout["format"])](tensors, shape, **values)
