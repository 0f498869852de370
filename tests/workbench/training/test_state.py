"""The state by name is the same whatever ZeRO makes of it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from workbench.recipe.schema import Engine
from workbench.training import engine as engines
from workbench.training import processes, state
from workbench.training.objective import Objective


@pytest.mark.parametrize(
    "engine", [Engine(zero_stage=stage) for stage in (0, 1, 2, 3)] + [Engine(precision="bfloat16")]
)
@processes.local_rank_set()
def test_what_is_restored_is_gathered_again(toy: SimpleNamespace, engine: Engine) -> None:
    processes.start()
    model = toy.make_model()
    names = {name: parameter.shape for name, parameter in model.named_parameters()}
    ds = engines.build(Objective(model, None, autocast=False), toy.make_stage(), engine, 1)
    state.begin(ds, 17)
    put = {
        kind: {name: torch.randn(shape) for name, shape in names.items()}
        for kind in ("weight", *state.MOMENTS)
    }
    state.restore(ds, put)
    got = state.gather(ds, keep=True)
    assert state.updates(ds) == 17
    assert state.optimizer_bytes(ds) >= 2 * 4 * sum(shape.numel() for shape in names.values())
    for kind in put:
        assert got[kind].keys() == names.keys()
        assert all(torch.equal(got[kind][name], put[kind][name]) for name in names)
    assert not state.gather(ds, keep=False)["weight"]
    state.release(ds, torch.float64)
    assert {name: parameter.shape for name, parameter in model.named_parameters()} == names
    assert all(type(p) is torch.nn.Parameter and p.dtype == torch.float64 for p in model.parameters())
