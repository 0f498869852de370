"""Starting the processes of a training: on this machine, on a list of hosts, or in a Slurm allocation.

Several machines must see the same folders under the same names, Python and this project included.
"""

from __future__ import annotations

import base64
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from workbench.errors import RecipeError, RunError
from workbench.recipe.schema import Engine
from workbench.training.processes import free_port

PORT = 29500  # torch's usual one, where nobody has looked for a free one
HANDED_ON = ("DS_ACCELERATOR", "OMP_NUM_THREADS", "WORKBENCH_DATA", "HF_HOME", "HF_HUB_OFFLINE")
INSTALL = {
    "pdsh": "install pdsh (package pdsh) and set up ssh without a password to every host",
    "srun": "run inside a Slurm allocation, where the Slurm client tools are installed",
    "scontrol": "run inside a Slurm allocation, where the Slurm client tools are installed",
}


def launch(arguments: Sequence[str], engine: Engine) -> None:
    """Run a program in `engine.processes` processes, and wait for all of them.

    Args:
        arguments: what would follow `python`: a script, or `-m` and a module, and their arguments.
        engine: how many processes, where, and started by what.

    Raises:
        RecipeError: the hostfile does not fit the recipe.
        RunError: something to start them with is missing, there are too few accelerators, or a process
            failed; its own message stands above.
    """
    port = free_port()
    words = command(arguments, engine, port)
    _check_tools(engine)
    environment = _environment(engine)
    with tempfile.TemporaryDirectory() as folder:
        if engine.launcher == "slurm":
            environment |= {"MASTER_ADDR": _first_of_allocation(engine), "MASTER_PORT": str(port)}
        elif engine.hostfile:
            environment["DS_ENV_FILE"] = str(_handed_on(Path(folder), environment))
        code = subprocess.run(words, env=environment, check=False).returncode
    if code:
        raise RunError(
            f"training in {engine.processes} processes ended with exit code {code}; the message of "
            "the process that failed stands above. Put that right and start the same command again: "
            "it goes on from the last checkpoint"
        )


def command(arguments: Sequence[str], engine: Engine, port: int = PORT) -> list[str]:
    """The command that starts the processes; nothing but the hostfile is looked at.

    Args:
        arguments: what would follow `python`.
        engine: how many processes, where, and started by what.
        port: on which the first process listens for the others.

    Raises:
        RecipeError: the hostfile does not fit the recipe.
    """
    if engine.launcher == "slurm":
        each = str(engine.processes // engine.nodes)
        srun = ["srun", "--nodes", str(engine.nodes), "--ntasks-per-node", each]
        srun += ["--kill-on-bad-exit=1", "--export=ALL"]
        return [*srun, sys.executable, "-m", "workbench.training.srun", *arguments]
    as_module, program = (["--module"], list(arguments[1:])) if arguments[0] == "-m" else ([], [*arguments])
    if engine.hostfile:
        slots = hosts(Path(engine.hostfile), engine)
        words = ["deepspeed.launcher.runner", "--hostfile", engine.hostfile, "--force_multi"]
        words += ["--no_ssh_check", "--master_addr", next(iter(slots))]
        # The runner itself quotes what has a blank in it, and nothing else, for the shells of the hosts.
        program = [word if " " in word else shlex.quote(word) for word in program]
    else:  # what the runner would start on one node, without the seconds that it takes
        here = json.dumps({"localhost": _devices(engine.processes)}).encode()
        words = ["deepspeed.launcher.launch", f"--world_info={base64.urlsafe_b64encode(here).decode()}"]
    words += ["--master_port", str(port), "--no_local_rank", "--log_level", "error"]
    return [sys.executable, "-m", *words, *as_module, *program]


def _devices(processes: int) -> list[str]:
    """One for each process, of those that the environment leaves to this run."""
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return (visible if len(visible) >= processes else list(map(str, range(processes))))[:processes]


def hosts(path: Path, engine: Engine) -> dict[str, int]:
    """Processes of each host of a hostfile.

    Raises:
        RecipeError: there is no such file, it cannot be read as one, or it does not fit `engine`.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise RecipeError(
            f"engine.hostfile: {path} cannot be read ({error}); name a file that is there"
        ) from error
    slots: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        count = words[-1].removeprefix("slots=")
        if len(words) != 2 or not count.isdigit() or not words[-1].startswith("slots=") or words[0] in slots:
            raise RecipeError(f"{path}:{number}: {line!r} is not a new `host slots=8`; write one host a line")
        slots[words[0]] = int(count)
    if len(slots) != engine.nodes or sum(slots.values()) != engine.processes:
        raise RecipeError(
            f"{path}: {len(slots)} hosts with {sum(slots.values())} slots, but the recipe has engine.nodes "
            f"{engine.nodes} and engine.processes {engine.processes}; make them agree"
        )
    return slots


def _check_tools(engine: Engine) -> None:
    available, needed = torch.cuda.device_count(), list[str]()
    if engine.launcher == "slurm":
        needed = ["srun", "scontrol"]
    elif engine.hostfile:
        needed = ["pdsh"]
    elif available and engine.processes > available:
        raise RunError(
            f"engine.processes: {engine.processes} asked for, {available} GPUs found; ask for {available}"
        )
    for tool in needed:
        if shutil.which(tool) is None:
            raise RunError(f"engine: starting {engine.nodes} nodes takes {tool}, not found; {INSTALL[tool]}")


def _environment(engine: Engine) -> dict[str, str]:
    """Of the processes; what stands in the environment already goes first."""
    threads = max(1, (os.cpu_count() or 1) * engine.nodes // engine.processes)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    here = engine.launcher == "deepspeed" and not engine.hostfile
    if here and not torch.cuda.is_available():  # other machines may have what this one lacks
        environment["DS_ACCELERATOR"] = "cpu"
    return environment


def _handed_on(folder: Path, environment: dict[str, str]) -> Path:
    """The file from which DeepSpeed takes what the hosts must know, beside the user's own."""
    usual = environment.get("DS_ENV_FILE", ".deepspeed_env")
    own = [place / usual for place in (Path.home(), Path())]
    lines = [line for file in own if file.is_file() for line in file.read_text("utf-8").splitlines() if line]
    lines += [f"{name}={environment[name]}" for name in HANDED_ON if name in environment]
    path = folder / "environment"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def _first_of_allocation(engine: Engine) -> str:
    nodes = os.environ.get("SLURM_JOB_NODELIST")
    if nodes is None:
        raise RunError(
            f"engine.launcher: slurm starts processes inside an allocation, and there is none; run this "
            f"under sbatch or salloc with {engine.nodes} nodes"
        )
    found = subprocess.run(
        ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=False
    )
    if found.returncode or not found.stdout.split():
        raise RunError(f"scontrol cannot read the nodes {nodes!r} of the allocation: {found.stderr.strip()}")
    return found.stdout.split()[0]
