"""Processes train as one does, whoever starts them, and go on from one another's checkpoints."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from workbench.errors import RecipeError, RunError
from workbench.recipe.schema import Engine
from workbench.training import Anchor, command, launch
from workbench.training.launch import hosts

# What pdsh does, on this machine: the command once a host, %n the number of the host, the largest exit code.
PDSH = """
import subprocess, sys
words = sys.argv[1:]
assert words[:4] == ["-S", "-f", "1024", "-w"], words
line = " ".join(words[5:])
hosts = words[4].split(",")
started = [
    subprocess.Popen(["bash", "-c", line.replace("%n", str(number)).replace("%h", host)])
    for number, host in enumerate(hosts)
]
sys.exit(max(abs(process.wait()) for process in started))
"""
# What srun does, on this machine: the command once a task, with the task's numbers in the environment.
SRUN = """
import os, subprocess, sys
words = sys.argv[1:]
assert words[0] == "--nodes" and words[2] == "--ntasks-per-node", words
nodes, each = int(words[1]), int(words[3])
program = words[next(i for i, word in enumerate(words[4:], 4) if not word.startswith("--")):]
started = []
for rank in range(nodes * each):
    names = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank % each, "SLURM_NTASKS": nodes * each}
    environment = {**os.environ, **{name: str(value) for name, value in names.items()}}
    started.append(subprocess.Popen(program, env=environment))
sys.exit(max(abs(process.wait()) for process in started))
"""
SCONTROL = (
    "import sys\nassert sys.argv[1:] == ['show', 'hostnames', 'node[1-2]']\nprint('127.0.0.1\\nlocalhost')"
)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder with a hostfile of two names of this machine; pdsh and Slurm stand first on the path."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, program in {"pdsh": PDSH, "srun": SRUN, "scontrol": SCONTROL}.items():
        (tools / name).write_text(f"#!{sys.executable}\n{program}")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node[1-2]")
    (tmp_path / "hosts").write_text("# two names of one machine\n127.0.0.1 slots=1\nlocalhost slots=1\n")
    return tmp_path


def request(path: Path, **settings: Any) -> Path:
    path.write_text(json.dumps([settings]))
    return path


def test_two_processes_equal_one(
    toy: SimpleNamespace, tokens: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    requests = [
        {"folder": str(tokens), "out": str(tmp_path / str(stage)), "engine": {"zero_stage": stage}}
        for stage in (2, 3)
    ]
    (tmp_path / "requests.json").write_text(json.dumps(requests))
    launch([str(toy.path), str(tmp_path / "requests.json")], Engine(processes=2))
    one = toy.rows(plain)
    for stage in ("2", "3"):
        two = toy.rows(tmp_path / stage)
        assert [row.get("batch") for row in two] == [row.get("batch") for row in one]  # same data, same order
        for key in ("loss", "grad_norm"):
            expected = [row[key] for row in one if key in row]
            assert [row[key] for row in two if key in row] == pytest.approx(expected, rel=2e-5)
        assert (tmp_path / stage / "final.safetensors").is_file()
    assert not (tmp_path / "extensions").exists()  # nothing was compiled


def test_failure_of_a_process_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def fail(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(RunError, match="2 processes ended with exit code 3"):
        launch(["-m", "some.module", "a b; c"], Engine(processes=2))
    assert commands[0][-3:] == ["--module", "some.module", "a b; c"]


def test_goes_on_at_another_size_under_another_stage_and_launcher(
    toy: SimpleNamespace, tokens: Path, cluster: Path
) -> None:
    """Two hosts at ZeRO-2, killed; one process at ZeRO-0, stopped; two Slurm tasks at ZeRO-3 to the end."""
    out, frozen = cluster / "out", ["model.embed_tokens", "model.layers.0.mlp."]
    same = {"frozen": frozen, "strength": 0.1, "odd": True}
    toy.main({"folder": str(tokens), "out": str(cluster / "whole"), **same})

    def settings(zero_stage: int) -> dict[str, Any]:
        engine = {"zero_stage": zero_stage, "activation_checkpointing": True}
        return {"folder": str(tokens), "out": str(out), "engine": engine, **same}

    two = {"processes": 2, "nodes": 2}
    path = request(cluster / "first.json", **settings(2), kill_at=3)
    with pytest.raises(RunError, match="2 processes ended"):
        launch([str(toy.path), str(path)], Engine(**two, hostfile=str(cluster / "hosts")))
    assert (out / "checkpoints" / "step-000000002").is_dir()

    def stop(done: int) -> None:
        if done == 2:  # the third since the checkpoint of step 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        anchor, engine = Anchor(0.1), settings(0)["engine"]
        toy.run(tokens, out, engine=engine, frozen=frozen, anchor=anchor, odd=True, at_step=stop)
    assert (out / "checkpoints" / "step-000000004").is_dir()
    path = request(cluster / "last.json", **settings(3))
    launch([str(toy.path), str(path)], Engine(**two, launcher="slurm"))

    whole, parts = toy.rows(cluster / "whole"), toy.rows(out)
    assert [row.get("batch") for row in parts] == [row.get("batch") for row in whole]
    for key in ("loss", "grad_norm", "penalty"):
        assert [row[key] for row in parts if key in row] == pytest.approx(
            [row[key] for row in whole if key in row], rel=1e-4
        )
    expected, found = load_file(cluster / "whole" / "final.safetensors"), load_file(out / "final.safetensors")
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(("visible", "used"), [("2,3,5", ["2", "3"]), ("2", ["0", "1"]), ("", ["0", "1"])])
def test_processes_keep_to_the_devices_of_the_environment(
    visible: str, used: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    (world,) = (
        word for word in command(["-m", "x"], Engine(processes=2)) if word.startswith("--world_info=")
    )
    assert json.loads(base64.urlsafe_b64decode(world.partition("=")[2])) == {"localhost": used}


def test_commands_of_several_nodes(cluster: Path) -> None:
    module = ["-m", "some.module", "a b", "c;d"]
    hostfile = str(cluster / "hosts")
    by_hosts = command(module, Engine(processes=2, nodes=2, hostfile=hostfile))
    assert by_hosts[1:3] == ["-m", "deepspeed.launcher.runner"]
    assert by_hosts[by_hosts.index("--master_addr") + 1] == "127.0.0.1"
    assert by_hosts[-4:] == ["--module", "some.module", "a b", "'c;d'"]
    by_slurm = command(module, Engine(processes=16, nodes=2, launcher="slurm"))
    assert by_slurm[:5] == ["srun", "--nodes", "2", "--ntasks-per-node", "8"]
    assert by_slurm[-5:] == ["workbench.training.srun", *module]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a slots=1\n", "1 hosts with 1 slots"),
        ("a slots=2\nb slots=1\n", "2 hosts with 3 slots"),
        ("a slots=1\n\nb 1\n", "hosts:3: 'b 1'"),
        ("a slots=1\na slots=1\n", "hosts:2"),
    ],
)
def test_hostfiles_that_do_not_fit(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "hosts").write_text(text)
    with pytest.raises(RecipeError, match=message):
        hosts(tmp_path / "hosts", Engine(processes=2, nodes=2, hostfile="hosts"))


def test_a_missing_hostfile_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"engine\.hostfile: .*nowhere"):
        hosts(tmp_path / "nowhere", Engine(processes=2, nodes=2, hostfile="nowhere"))


def test_missing_tools_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hosts").write_text("a slots=1\nb slots=1\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    hostfile = str(tmp_path / "hosts")
    with pytest.raises(RunError, match="takes pdsh, not found; install pdsh"):
        launch(["program.py"], Engine(processes=2, nodes=2, hostfile=hostfile))
    with pytest.raises(RunError, match="takes srun, not found"):
        launch(["program.py"], Engine(processes=2, nodes=2, launcher="slurm"))


def test_slurm_needs_an_allocation(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_NODELIST")
    with pytest.raises(RunError, match="under sbatch or salloc with 2 nodes"):
        launch(["program.py"], Engine(processes=2, nodes=2, launcher="slurm"))
