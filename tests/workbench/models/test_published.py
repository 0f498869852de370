"""Published shapes give the published number of parameters."""

from __future__ import annotations

import pytest

from workbench.models import count_parameters
from workbench.models.published import published


@pytest.mark.parametrize(
    ("hub", "parameters"),
    [
        ("meta-llama/Llama-2-7b-hf", 6_738_415_616),
        ("meta-llama/Meta-Llama-3-8B", 8_030_261_248),
        ("meta-llama/Llama-3.2-1B", 1_235_814_400),
    ],
)
def test_counts(hub: str, parameters: int) -> None:
    config = published(hub)
    assert config is not None and count_parameters(config) == parameters


def test_others_are_unknown() -> None:
    assert published("org/model") is None
