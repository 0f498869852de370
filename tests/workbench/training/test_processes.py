"""A process without a launcher is a group of one."""

from __future__ import annotations

import os
import socket

import torch

from workbench.training import is_first_process, processes


def test_alone_it_is_first_and_all() -> None:
    before = dict(os.environ)
    assert processes.start() == (0, 1)
    assert processes.start() == (0, 1)  # twice does no harm
    assert is_first_process()
    assert processes.total(torch.tensor([3, 4])).tolist() == [3, 4]
    with processes.local_rank_set():
        assert os.environ["LOCAL_RANK"] == "0"
    ours = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"} - set(before)
    assert not ours & set(os.environ)  # programs started from here are not taken for members of the group
    assert processes.device().type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_free_port_can_be_listened_on() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", processes.free_port()))
