"""Starting the processes of a training through DeepSpeed's launcher."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import torch

from workbench.errors import RunError
from workbench.recipe.schema import Engine
from workbench.training.processes import free_port


def launch(arguments: Sequence[str], engine: Engine) -> None:
    """Run a program in `engine.processes` processes on this machine, and wait for all of them.

    Args:
        arguments: what would follow `python`: a script, or `-m` and a module, and their arguments.
        engine: how many processes.

    Raises:
        RunError: there are too few accelerators, or a process failed; its own message stands above.
    """
    available = torch.cuda.device_count()
    if available and engine.processes > available:
        raise RunError(
            f"engine.processes: {engine.processes} asked for, {available} GPUs found; ask for {available}"
        )
    threads = max(1, (os.cpu_count() or 1) // engine.processes)
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    if not available:
        environment["DS_ACCELERATOR"] = "cpu"
    as_module, program = (["--module"], arguments[1:]) if arguments[0] == "-m" else ([], arguments)
    command = [sys.executable, "-m", "deepspeed.launcher.runner"]
    command += ["--num_accelerators", str(engine.processes), "--master_port", str(free_port())]
    command += ["--no_local_rank", "--log_level", "error", *as_module, *program]
    code = subprocess.run(command, env=environment, check=False).returncode
    if code:
        raise RunError(
            f"training in {engine.processes} processes ended with exit code {code}; the message of "
            "the process that failed stands above. Put that right and start the same command again: "
            "it goes on from the last checkpoint"
        )
