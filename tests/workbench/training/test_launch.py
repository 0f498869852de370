"""Two processes under DeepSpeed's launcher train as one does."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from workbench.errors import RunError
from workbench.recipe.schema import Engine
from workbench.training import launch


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_two_processes_equal_one(
    toy: SimpleNamespace,
    tokens: Path,
    tmp_path: Path,
    zero_stage: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    toy.run(tokens, tmp_path / "one")
    extensions = tmp_path / "extensions"
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(extensions))
    out, request = tmp_path / "two", tmp_path / "request.json"
    settings = {"zero_stage": zero_stage, "processes": 2}
    request.write_text(json.dumps({"folder": str(tokens), "out": str(out), "engine": settings}))
    launch([str(toy.path), str(request)], Engine.model_validate(settings))
    one, two = toy.rows(tmp_path / "one"), toy.rows(out)
    assert [row.get("batch") for row in two] == [row.get("batch") for row in one]  # the same data in the same order
    for key in ("loss", "grad_norm"):
        assert [r[key] for r in two if key in r] == pytest.approx([r[key] for r in one if key in r], rel=2e-5)
    assert not extensions.exists()  # nothing was compiled
    assert (out / "final.safetensors").is_file()


def test_failure_of_a_process_is_told(tmp_path: Path) -> None:
    script = tmp_path / "fails.py"
    script.write_text("raise SystemExit(3)")
    with pytest.raises(RunError, match="2 processes ended with exit code"):
        launch([str(script)], Engine(processes=2))
