"""The walk sees what the model computes, and its Hessians are those of the definition."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from workbench import models
from workbench.quantization.calibration import (
    Statistics,
    capture,
    observe,
    propagate,
    relative_output_error,
    statistics,
)

CPU = torch.device("cpu")


@pytest.fixture
def sequences() -> list[Tensor]:
    return [torch.randint(320, (1, 24)) for _ in range(5)] + [
        torch.randint(320, (2, 16)),
        torch.randint(320, (7,)),
    ]


def test_propagation_through_all_blocks_is_the_forward_pass(
    tiny_model_folder: Path, sequences: list[Tensor]
) -> None:
    model = models.load(tiny_model_folder)
    blocks = models.blocks(model)
    originals = list(blocks)
    with torch.no_grad():
        inputs = capture(model, sequences, CPU)
        assert list(blocks) == originals
        for index, block in enumerate(blocks):
            inputs.hidden = propagate(block, index, inputs)
        got = [row for batch in inputs.hidden for row in batch]
        rows = [row for tokens in sequences for row in torch.atleast_2d(tokens)]
        assert sum(len(batch) for batch in inputs.hidden) == len(rows) == 8
        for row, hidden in zip(rows, got, strict=True):
            expected = model(row[None], output_hidden_states=True).hidden_states[-1][0]
            torch.testing.assert_close(model.model.norm(hidden), expected, rtol=1e-5, atol=1e-5)


def test_blocks_are_put_back_when_the_forward_pass_fails(tiny_model_folder: Path) -> None:
    model = models.load(tiny_model_folder)
    originals = list(models.blocks(model))
    with pytest.raises(IndexError):
        capture(model, [torch.full((1, 4), 10_000)], CPU)
    assert list(models.blocks(model)) == originals


def test_statistics_do_not_depend_on_the_cut_into_batches() -> None:
    x = torch.randn(90, 12)
    x[:, 5] = 0
    for sizes in ([90], [1, 89], [30, 30, 30], [7, 13, 70]):
        seen = Statistics(12, CPU)
        for part in x.split(sizes):
            seen.update(part[None])
        torch.testing.assert_close(seen.hessian, 2 / 90 * x.T @ x, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(seen.mean_abs, x.abs().mean(0), rtol=1e-5, atol=1e-6)
        assert torch.equal(seen.max_abs, x.abs().amax(0))
        assert seen.num_tokens == 90 and seen.dead_columns == 1


def test_statistics_of_a_block_are_those_of_its_linears(
    tiny_model_folder: Path, sequences: list[Tensor]
) -> None:
    model = models.load(tiny_model_folder)
    block = models.blocks(model)[0]
    names = ["self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj"]
    linears = [models.linears(block)[name] for name in names]
    seen: dict[nn.Module, list[Tensor]] = {linear: [] for linear in linears}
    for linear in linears:
        linear.register_forward_pre_hook(lambda module, args: seen[module].append(args[0].flatten(0, -2)))
    with torch.no_grad():
        inputs = capture(model, sequences, CPU)
        got = statistics(block, 0, inputs, linears)
        outputs, observed = observe(block, 0, inputs)
        assert all(map(torch.equal, outputs, propagate(block, 0, inputs)))
    assert [*observed] == ["self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"]
    for name, linear, own in zip(names, linears, got, strict=True):
        assert torch.equal(own.hessian, observed[name].hessian)
        x = torch.cat(seen[linear])
        x = x[: len(x) // 3]  # of the first of three passes
        assert len(x) == 5 * 24 + 2 * 16 + 7
        torch.testing.assert_close(own.hessian, 2 / len(x) * x.T @ x, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(own.mean_abs, x.abs().mean(0))
        assert len(linear._forward_pre_hooks) == 1  # ours is gone, the test's is left


def test_statistics_follow_a_scale() -> None:
    x, scale = torch.randn(60, 12), torch.rand(12) + 0.5
    seen, divided = Statistics(12, CPU), Statistics(12, CPU)
    seen.update(x)
    seen.fold(scale)
    divided.update(x / scale)
    for name in ("hessian", "mean_abs", "max_abs"):
        torch.testing.assert_close(getattr(seen, name), getattr(divided, name))


def test_relative_output_error_is_that_of_the_outputs() -> None:
    x, weight, approximation = torch.randn(50, 8), torch.randn(3, 8), torch.randn(3, 8)
    expected = ((weight - approximation) @ x.T).norm() / (weight @ x.T).norm()
    assert relative_output_error(weight, approximation, x.T @ x) == pytest.approx(float(expected), rel=1e-4)
    assert relative_output_error(weight, weight, x.T @ x) == 0
    assert relative_output_error(torch.zeros(3, 8), torch.zeros(3, 8), x.T @ x) == 0
