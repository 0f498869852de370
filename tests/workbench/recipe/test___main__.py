import json
from pathlib import Path

import pytest

from workbench import recipe

ROOT = Path(__file__).parents[3]


def test_the_schema_for_editors_is_in_step(capsys: pytest.CaptureFixture[str]) -> None:
    import workbench.recipe.__main__  # noqa: F401

    printed = capsys.readouterr().out
    assert json.loads(printed) == recipe.json_schema()
    kept = (ROOT / "recipes/recipe.schema.json").read_text(encoding="utf-8")
    assert kept == printed, "renew it: python -m workbench.recipe > recipes/recipe.schema.json"
