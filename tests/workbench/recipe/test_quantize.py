"""Which widths, groups and sections the methods take; a fault is found before anything runs."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from workbench.recipe.quantization import CALIBRATED, FIXED_BITS, UNGROUPED, QuantizationMethod
from workbench.recipe.quantize import Quantize


def quantize(**settings: Any) -> Quantize:
    return Quantize(**{"kind": "quantize", "calibration": {"mixture": {"a": 1}}} | settings)


@pytest.mark.parametrize(
    ("method", "bits", "said"),
    [
        ("nf4", 3, "nf4 has 4 bits, found 3; write it as widths"),
        ("int8", 4, "int8 has 8 bits"),
        ("billm", 2, "billm has 1 bits"),
        ("gptq", 2.5, "gptq has whole bits, found 2.5"),
        ("pb-llm", 1, "pb-llm mixes weights of 1 and of 8 bits, found bits 1"),
        ("pb-llm", 8, "pb-llm mixes weights of 1 and of 8 bits, found bits 8"),
        ("smoothquant", 1, "smoothquant has 2 to 8 bits, found 1"),
        ("slim-llm", 8, "slim-llm has 2 to 7 bits, found 8"),
        ("rtn", 0, "greater than or equal to 1"),
        ("rtn", 9, "less than or equal to 8"),
    ],
)
def test_methods_have_widths_and_sections(method: str, bits: float, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        quantize(methods=[method], bits=[bits])


def test_each_method_may_have_widths_of_its_own() -> None:
    stage = quantize(widths={"rtn": [4, 2], "nf4": [4], "pb-llm": [1.7]})
    assert stage.bits_of == {"rtn": [4, 2], "nf4": [4], "pb-llm": [1.7]}
    assert quantize(methods=["rtn", "gptq"], bits=[4, 4, 3]).bits_of == {"rtn": [4, 3], "gptq": [4, 3]}
    with pytest.raises(ValidationError, match="billm has 1 bits, found 2"):
        quantize(widths={"billm": [2]})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "one of both"),
        ({"methods": ["rtn"], "bits": [4], "widths": {"rtn": [4]}}, "one of both"),
        ({"methods": ["rtn"]}, "makes no row"),
        ({"bits": [4]}, "makes no row"),
        ({"widths": {"rtn": []}}, "makes no row"),
    ],
)
def test_every_method_has_widths_said_once(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        quantize(**settings)


def test_widths_are_whole_where_they_can_be() -> None:
    assert [type(bits) for bits in quantize(methods=["pb-llm"], bits=[2.0, 1.7]).bits] == [int, float]


def test_groups_stand_instead_of_group_size() -> None:
    stage = quantize(methods=["rtn", "nf4"], bits=[4], groups=[64, "channel"])
    assert stage.group_sizes("rtn") == [64, "channel"]
    assert stage.group_sizes("nf4") == [128]
    assert (stage.at("channel").group_size, stage.at("channel").groups) == ("channel", None)
    assert quantize(methods=["rtn"], bits=[4], group_size=32).group_sizes("rtn") == [32]
    with pytest.raises(ValidationError, match="group_size, or groups, not both"):
        quantize(methods=["rtn"], bits=[4], groups=[64], group_size=64)


def test_a_section_with_groups_is_read_back_as_it_was_written() -> None:
    stage = quantize(methods=["rtn"], bits=[4], groups=[64, "channel"])
    assert Quantize.model_validate(stage.model_dump(mode="json", by_alias=True)) == stage


@pytest.mark.parametrize("method", sorted(CALIBRATED))
def test_calibrated_methods_need_text(method: str) -> None:
    with pytest.raises(ValidationError, match=f"{method} needs calibration"):
        quantize(methods=[method], bits=[FIXED_BITS.get(method, 2)], calibration=None)


def test_sets_of_methods_name_methods() -> None:
    methods = set(get_args(QuantizationMethod))
    assert methods >= CALIBRATED | UNGROUPED | set(FIXED_BITS)
    section = Quantize.model_fields
    assert all(method == "rtn" or method.replace("-", "_") in section for method in methods)
