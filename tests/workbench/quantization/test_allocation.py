"""Sensitivity is measured one linear at a time; the budget is spent as well as can be, and never exceeded."""

from __future__ import annotations

import copy
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from workbench import models, quantization
from workbench.errors import ModelError, NumericsError, RecipeError
from workbench.quantization import Grid, allocation
from workbench.quantization.allocation import Allotted, Sensitivities, Sizes
from workbench.quantization.methods import rtn
from workbench.recipe.quantize import Quantize

WIDTHS = [2, 3, 4, 8]


def stage(**settings: Any) -> Quantize:
    section = {
        "kind": "quantize",
        "methods": ["rtn"],
        "bits": [3.5],
        "group_size": 32,
        "calibration": {"mixture": {"text": 1}},
        "allocation": {"widths": WIDTHS},
    }
    return Quantize.model_validate(section | settings)


@pytest.fixture
def model(tiny_model_folder: Path) -> PreTrainedModel:
    return models.load(tiny_model_folder)


@pytest.fixture
def sequences() -> list[Tensor]:
    return [torch.randint(320, (24,)) for _ in range(2)] + [torch.randint(320, (7,))]


@pytest.fixture
def measured(model: PreTrainedModel, sequences: list[Tensor]) -> Sensitivities:
    return allocation.sensitivities(model, stage(), sequences, "test")


def by_hand(model: PreTrainedModel, name: str, bits: int, sequences: list[Tensor]) -> float:
    """KL(p || p~) token by token, from two whole models."""
    rounded = copy.deepcopy(model)
    weight = rounded.get_submodule(name).weight
    weight.data = rtn.quantize(weight, Grid(bits, 32, symmetric=False)).dequantize()
    found: list[Tensor] = []
    with torch.no_grad():
        for tokens in sequences:
            p, q = (one(tokens[None]).logits.double().softmax(-1) for one in (model, rounded))
            found.append((p * (p / q).log()).sum(-1).flatten())
    return float(torch.cat(found).mean())


def test_sensitivity_is_the_divergence_of_one_rounded_linear(
    model: PreTrainedModel, sequences: list[Tensor], measured: Sensitivities
) -> None:
    assert [*measured] == [*quantization.linear_shapes(model)]
    for name in ("model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.o_proj"):
        for bits in WIDTHS:
            expected = by_hand(model, name, bits, sequences)
            assert measured[name][bits] == pytest.approx(expected, rel=1e-3, abs=1e-7)
    assert all(own[2] > own[4] > own[8] > 0 for own in measured.values())


def test_divergence_is_exact_near_and_far() -> None:
    logits, noise = torch.randn(2, 50, 200, dtype=torch.float64)
    p = (3 * logits).log_softmax(-1)
    for size in (1e-4, 1e-2, 1, 100):
        q = (3 * logits + size * noise).log_softmax(-1)
        expected = (p.exp() * (p - q)).sum(-1)
        found = allocation.divergence(p.float(), q.float()).double()
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-11)
    assert bool((allocation.divergence(p, p) == 0).all())


def test_the_model_is_as_before(model: PreTrainedModel, sequences: list[Tensor]) -> None:
    before = copy.deepcopy(model)
    allocation.sensitivities(model, stage(), sequences, "test")
    assert [*model.state_dict()] == [*before.state_dict()]
    assert all(torch.equal(t, before.state_dict()[name]) for name, t in model.state_dict().items())
    assert torch.equal(model(sequences[0][None]).logits, before(sequences[0][None]).logits)


def test_a_stopped_measurement_goes_on(
    model: PreTrainedModel,
    sequences: list[Tensor],
    measured: Sensitivities,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, rounds, quantize = tmp_path / "s.json", 0, rtn.quantize

    def stopping(*args: Any) -> Any:
        nonlocal rounds
        rounds += 1
        if rounds > 10 * len(WIDTHS):
            raise KeyboardInterrupt
        return quantize(*args)

    with monkeypatch.context() as patch:
        patch.setattr(rtn, "quantize", stopping)
        with pytest.raises(KeyboardInterrupt):
            allocation.sensitivities(model, stage(), sequences, "test", unfinished=file)
    assert len(allocation.read(file)) == 10
    rounds = 6 * len(WIDTHS)  # four of fourteen linears are left
    monkeypatch.setattr(rtn, "quantize", stopping)
    assert allocation.sensitivities(model, stage(), sequences, "test", unfinished=file) == measured
    assert allocation.read(file) == measured


def test_what_is_not_a_number_is_refused_by_name(model: PreTrainedModel, sequences: list[Tensor]) -> None:
    with torch.no_grad():
        model.model.norm.weight[0] = torch.nan
    with pytest.raises(NumericsError, match=r"model\.layers\.0\.self_attn\.q_proj: rounded, it makes"):
        allocation.sensitivities(model, stage(), sequences, "test")


def test_a_group_that_does_not_divide_is_refused(model: PreTrainedModel, sequences: list[Tensor]) -> None:
    with pytest.raises(ModelError, match="group_size 48 does not divide"):
        allocation.sensitivities(model, stage(group_size=48), sequences, "test")


def instance(seed: int, linears: int, widths: list[int]) -> tuple[Sensitivities, Sizes]:
    """Costs that mostly fall with the width, and sizes of linears of a few shapes."""
    rng = np.random.default_rng(seed)
    costs: Sensitivities = {}
    sizes: Sizes = {}
    for i in range(linears):
        weights = int(rng.choice([1024, 1536, 4096]))
        costs[f"l{i}"] = {w: float(rng.lognormal(0, 2) * 4.0**-w) for w in widths}
        sizes[f"l{i}"] = {w: weights * w + weights // 32 * (16 + w) for w in widths}
    return costs, sizes


def total(choice: dict[str, Allotted]) -> float:
    return sum(own.divergences[own.bits] for own in choice.values())


def taken(choice: dict[str, Allotted], sizes: Sizes) -> int:
    return sum(sizes[name][own.bits] for name, own in choice.items())


@pytest.mark.parametrize("seed", range(12))
def test_no_other_choice_within_the_budget_is_better(seed: int) -> None:
    widths = [2, 3, 4, 8]
    costs, sizes = instance(seed, 6, widths)
    least = sum(min(own.values()) for own in sizes.values())
    most = sum(max(own.values()) for own in sizes.values())
    for budget in (least, least + 1, (3 * least + most) // 4, (least + most) // 2, most):
        best = min(
            sum(costs[name][w] for name, w in zip(costs, choice, strict=True))
            for choice in product(widths, repeat=6)
            if sum(sizes[name][w] for name, w in zip(costs, choice, strict=True)) <= budget
        )
        choice = allocation.allocate(costs, sizes, budget)
        assert taken(choice, sizes) <= budget
        assert total(choice) == pytest.approx(best, rel=1e-9)


def test_the_budget_of_a_uniform_width_is_spent_no_worse() -> None:
    widths = [2, 3, 4, 6, 8]
    costs, sizes = instance(0, 224, widths)
    for width in widths:
        budget = sum(own[width] for own in sizes.values())
        choice = allocation.allocate(costs, sizes, budget)
        assert taken(choice, sizes) <= budget
        assert total(choice) <= sum(own[width] for own in costs.values()) * (1 + 1e-9)
    better = total(allocation.allocate(costs, sizes, sum(own[4] for own in sizes.values())))
    assert better < 0.5 * sum(own[4] for own in costs.values())


def test_where_nothing_costs_anything_the_budget_is_still_kept() -> None:
    _, sizes = instance(1, 6, [2, 4])
    costs = {name: {2: 0.0, 4: 0.0} for name in sizes}
    budget = sum(own[2] for own in sizes.values())
    assert taken(allocation.allocate(costs, sizes, budget), sizes) == budget


def test_a_budget_that_nothing_fits_names_the_least() -> None:
    costs, sizes = instance(2, 3, [2, 4])
    least = sum(own[2] for own in sizes.values())
    with pytest.raises(ValueError, match=f"less than the least possible, {least}"):
        allocation.allocate(costs, sizes, least - 1)


def test_the_least_budget_of_a_model_is_named() -> None:
    shapes = {"a": (64, 128), "b": (32, 64)}
    with pytest.raises(RecipeError, match=r"rtn within 2.5 real bits .* take at least 2.5625"):
        allocation.sizes("rtn", stage(), 2.5, shapes)
    sizes = allocation.sizes("rtn", stage(), 2.5625, shapes)
    assert sizes["a"][2] + sizes["b"][2] == allocation.budget(2.5625, shapes)
    assert sizes["a"][8] == 64 * 128 * 8 + 64 * 4 * (16 + 8)


@pytest.mark.parametrize("method", ["rtn", "gptq", "awq", "hqq"])
def test_every_linear_gets_its_width_and_the_budget_holds(
    model: PreTrainedModel, sequences: list[Tensor], measured: Sensitivities, method: str
) -> None:
    shapes, bits = quantization.linear_shapes(model), 4.0
    mixed = stage(methods=[method], bits=[bits])
    sizes = allocation.sizes(method, mixed, bits, shapes)
    choice = allocation.allocate(measured, sizes, allocation.budget(bits, shapes))
    assert len({own.bits for own in choice.values()}) > 1
    texts = None if method in ("rtn", "hqq") else [torch.randint(320, (4, 32))]
    before = copy.deepcopy(model)
    report = quantization.quantize(model, mixed, method, bits, texts, "test", allotted=choice)
    for layer in report.layers:
        assert layer.diagnostics["width"] == choice[layer.name].bits
        assert layer.diagnostics["divergence"] == measured[layer.name][choice[layer.name].bits]
        assert layer.bits * layer.shape[0] * layer.shape[1] == sizes[layer.name][choice[layer.name].bits]
        assert 0.5 < layer.weight_error * 2.0 ** choice[layer.name].bits < 2.5
        if method == "rtn":
            grid = Grid(choice[layer.name].bits, 32, symmetric=False)
            expected = rtn.quantize(before.get_submodule(layer.name).weight, grid).dequantize()
            assert torch.equal(model.get_submodule(layer.name).dequantize(), expected)
    assert [layer.name for layer in report.layers] == [*shapes]
    assert report.stored_bits == taken(choice, sizes) and report.real_bits <= bits
    mean = sum(own.bits * np.prod(shapes[name]) for name, own in choice.items()) / report.num_weights
    assert report.nominal_bits == pytest.approx(mean)


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_one_width_for_all_is_the_uniform_method(
    model: PreTrainedModel, sequences: list[Tensor], method: str
) -> None:
    again, texts = copy.deepcopy(model), [torch.randint(320, (4, 32))]
    alike = {name: Allotted(3, {3: 0.0}) for name in quantization.linear_shapes(model)}
    quantization.quantize(model, stage(methods=[method]), method, 3.5, texts, "test", allotted=alike)
    quantization.quantize(again, stage(methods=[method]), method, 3, texts, "test")
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_members_of_a_subset_see_the_same_whatever_width_the_others_have(model: PreTrainedModel) -> None:
    """The query's codes do not depend on the width of key and value beside it."""
    texts, name = [torch.randint(320, (4, 32))], "model.layers.0.self_attn.q_proj"
    found = []
    for others in (3, 8):
        changed = copy.deepcopy(model)
        widths = {each: Allotted(others, {others: 0.0}) for each in quantization.linear_shapes(model)}
        widths[name] = Allotted(3, {3: 0.0})
        quantization.quantize(changed, stage(methods=["gptq"]), "gptq", 3.5, texts, "test", allotted=widths)
        found.append(changed.get_submodule(name).dequantize())
    assert torch.equal(*found)
