"""A program under Slurm hears its rank in the words of torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from workbench.training import srun


@pytest.mark.parametrize("as_module", [False, True])
def test_runs_what_python_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_module: bool) -> None:
    script = tmp_path / "slurm_program.py"
    script.write_text(
        "import os, sys, pathlib\n"
        "words = [__name__, *sys.argv[1:], *(os.environ[n] for n in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'))]\n"
        "pathlib.Path(sys.argv[1]).write_text(' '.join(words))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pytest"])
    for name, value in {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}.items():
        monkeypatch.setenv(name, value)
    with monkeypatch.context() as patch:
        patch.setattr(os, "environ", dict(os.environ))
        srun.main([*(["-m", "slurm_program"] if as_module else [str(script)]), str(tmp_path / "out")])
    assert (tmp_path / "out").read_text() == f"__main__ {tmp_path / 'out'} 5 8 1"
