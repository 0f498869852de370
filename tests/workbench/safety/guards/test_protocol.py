"""A missing verdict is not safe, and rows with nothing to judge are named."""

from __future__ import annotations

import pytest

from workbench.errors import DataError
from workbench.safety.guards import Verdict
from workbench.safety.guards.protocol import check_rows


def test_threshold_and_missing() -> None:
    assert Verdict(0.51).is_unsafe() is True and Verdict(0.5).is_unsafe() is False
    assert Verdict(0.51).is_unsafe(0.6) is False
    assert Verdict(None).is_unsafe() is None and Verdict(None).is_unsafe(0.0) is None


@pytest.mark.parametrize(
    ("prompts", "responses", "told"),
    [
        (["a", " "], None, "row 1: the prompt is empty"),
        (["a"], [""], "row 0: the response is empty"),
        (["a", "b"], ["c"], "2 prompts but 1 responses"),
    ],
)
def test_rows_with_nothing_to_judge(prompts: list[str], responses: list[str] | None, told: str) -> None:
    with pytest.raises(DataError, match=told):
        check_rows(prompts, responses)
