"""The processes that train together: who we are, and sums over all of us."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

PATIENCE = timedelta(minutes=30)  # how long a process waits for another before it gives up


def start() -> tuple[int, int]:
    """Join the other processes, once; without a launcher, be a group of one.

    Returns:
        Rank of this process and number of processes.
    """
    if not torch.cuda.is_available():
        # Read when deepspeed is imported, hence the late import.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    import deepspeed.ops

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # DeepSpeed calls collectives by names that this torch has renamed; nothing that a user could change.
    warnings.filterwarnings("ignore", category=FutureWarning, message=".*Please use `torch.distributed")
    # DeepSpeed would compile a shared-memory all-reduce for CPUs at first use; gloo does without.
    vars(deepspeed.ops)["__compatible_ops__"] = {}
    if not dist.is_initialized():
        if "RANK" not in os.environ:  # not put there either: programs started from here would read it
            backend = deepspeed.get_accelerator().communication_backend_name()
            store = dist.HashStore()  # type: ignore[attr-defined]
            dist.init_process_group(backend, store=store, rank=0, world_size=1, timeout=PATIENCE)
        deepspeed.init_distributed(timeout=PATIENCE, verbose=False)
    return dist.get_rank(), dist.get_world_size()


def device() -> torch.device:
    """Where this process computes."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def local_rank_set() -> Iterator[None]:
    """Have LOCAL_RANK in the environment for as long as DeepSpeed insists on it.

    Left there, it would make other libraries, and programs started from here, look for processes that
    do not exist.
    """
    alone = "LOCAL_RANK" not in os.environ
    if alone:
        os.environ["LOCAL_RANK"] = "0"
    try:
        yield
    finally:
        if alone:
            del os.environ["LOCAL_RANK"]


def is_first_process() -> bool:
    """Whether this process is the one that writes files."""
    return int(os.environ.get("RANK", "0")) == 0


def total(value: Tensor) -> Tensor:
    """Sum a tensor over all processes, in place."""
    if dist.get_world_size() > 1:
        dist.all_reduce(value)
    return value


def from_first(value: float) -> float:
    """A number as the first process has it, so that all decide alike."""
    agreed = torch.tensor(value, dtype=torch.float64, device=device())
    if dist.get_world_size() > 1:
        dist.broadcast(agreed, 0)
    return float(agreed)


def free_port() -> int:
    """A TCP port that nobody listens on at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
