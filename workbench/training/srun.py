"""`python -m workbench.training.srun ...` under Slurm: the program, told its rank in the words of torch.

DeepSpeed's own Slurm launcher cannot start modules. Every process that `srun` starts runs this, so an
allocation in which something else is started does not look like a training.
"""

from __future__ import annotations

import os
import runpy
import sys

NAMES = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_NTASKS", "LOCAL_RANK": "SLURM_LOCALID"}


def main(arguments: list[str]) -> None:
    """Run `-m MODULE ...` or `SCRIPT ...` as python would; MASTER_ADDR and MASTER_PORT are set already."""
    os.environ.update({name: os.environ[slurm] for name, slurm in NAMES.items()})
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
