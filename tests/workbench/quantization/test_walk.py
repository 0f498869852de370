"""The walk replaces the linears of the blocks and nothing else, and stops before any work on bad input."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from workbench import models, quantization
from workbench.errors import DataError, ModelError, NumericsError
from workbench.quantization import QuantizedLinear, Report
from workbench.quantization.attended import Batch
from workbench.quantization.calibration import Statistics, capture, propagate, statistics
from workbench.quantization.grid import Grid
from workbench.quantization.methods import METHODS, Method, Plan, gptq, rtn
from workbench.recipe.quantization import FIXED_BITS, Gptq, QuantizationMethod
from workbench.recipe.quantize import Quantize

TUNING = {
    "mixture": {"text": 1},
    "tokens": 8,
    "batch_size": 1,
    "sequence_length": 8,
    "learning_rate": 1e-3,
}


@pytest.fixture
def model(tiny_model_folder: Path) -> PreTrainedModel:
    return models.load(tiny_model_folder)


@pytest.fixture
def calibration() -> list[Tensor]:
    return [torch.randint(320, (1, 32)) for _ in range(8)]


def run(
    model: PreTrainedModel,
    method: QuantizationMethod,
    bits: float,
    calibration: list[Tensor] | None,
    *,
    unfinished: Path | None = None,
    **settings: Any,
) -> Report:
    section = {
        "kind": "quantize",
        "methods": [method],
        "bits": [bits],
        "calibration": {"mixture": {"text": 1}},
        "tuning": TUNING,
    }
    stage = Quantize.model_validate(section | {"group_size": 32} | settings)
    return quantization.quantize(model, stage, method, bits, calibration, "test", unfinished=unfinished)


def test_every_method_of_the_schema_is_in_the_table() -> None:
    """But for db-llm, which is not rounded: its planes follow the scales that are trained."""
    assert set(METHODS) == set(get_args(QuantizationMethod)) - {"db-llm"}


@pytest.mark.parametrize("method", METHODS)
def test_all_linears_of_the_blocks_and_nothing_else(
    model: PreTrainedModel, calibration: list[Tensor], method: QuantizationMethod
) -> None:
    before = copy.deepcopy(model.state_dict())
    shapes = quantization.linear_shapes(model)
    bits = 2 if method == "pb-llm" else FIXED_BITS.get(method, 4)
    report = run(model, method, bits, calibration)
    replaced = {name for name, module in model.named_modules() if isinstance(module, QuantizedLinear)}
    assert replaced == set(shapes) and len(shapes) == 14
    assert {layer.name: layer.shape for layer in report.layers} == shapes
    for name, tensor in model.state_dict().items():
        folded = METHODS[method].prepare is not None and name.endswith("layernorm.weight")
        if name.rpartition(".")[0] not in shapes and not folded:
            assert torch.equal(tensor, before[name])
    assert report.nominal_bits == bits < report.real_bits < bits + 5
    assert all(0 < layer.weight_error < 0.8 for layer in report.layers)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("method", ["rtn", "gptq", "awq"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_every_width_runs(
    model: PreTrainedModel, calibration: list[Tensor], method: QuantizationMethod, bits: int, symmetric: bool
) -> None:
    before = copy.deepcopy(model)
    run(model, method, bits, calibration, symmetric=symmetric)
    with torch.no_grad():
        change = (model(calibration[0]).logits - before(calibration[0]).logits).norm()
        change = change / before(calibration[0]).logits.norm()
    assert 0 < change < 2.5 * 2.0**-bits if bits > 1 else torch.isfinite(change)


def test_rtn_is_rounding_of_each_linear(model: PreTrainedModel) -> None:
    before = copy.deepcopy(model)
    run(model, "rtn", 3, None)
    for name in quantization.linear_shapes(before):
        expected = rtn.quantize(before.get_submodule(name).weight, Grid(3, 32, symmetric=False))
        assert torch.equal(model.get_submodule(name).dequantize(), expected.dequantize())


@pytest.mark.parametrize("true_sequential", [True, False])
def test_gptq_sees_what_the_quantized_layers_before_put_out(
    model: PreTrainedModel, calibration: list[Tensor], true_sequential: bool
) -> None:
    """The last linear again, by hand, with the inputs that the finished model feeds it."""
    before = copy.deepcopy(model)
    report = run(model, "gptq", 4, calibration, gptq={"true_sequential": true_sequential})
    seen = copy.deepcopy(model)
    if not true_sequential:  # then the last block's inputs come from its unquantized linears
        models.blocks(seen)[1] = copy.deepcopy(models.blocks(before)[1])
    block, original = models.blocks(seen)[1], before.get_submodule("model.layers.1.mlp.down_proj")
    block.set_submodule("mlp.down_proj", original)
    with torch.no_grad():
        inputs = capture(seen, calibration, torch.device("cpu"))
        inputs.hidden = propagate(models.blocks(seen)[0], 0, inputs)
        (seen_inputs,) = statistics(block, 1, inputs, [original])
    grid = Grid(4, 32, symmetric=False)
    expected = gptq.quantize(original.weight.detach(), seen_inputs.hessian, Gptq(), grid).dequantize()
    torch.testing.assert_close(model.get_submodule("model.layers.1.mlp.down_proj").dequantize(), expected)
    assert report.layers[-1].name == "model.layers.1.mlp.down_proj"
    diagnostics = report.layers[-1].diagnostics
    assert diagnostics.pop("clipped_share") < 0.05
    assert diagnostics == {"damping": 0.01, "dead_columns": 0.0}


def test_gptq_changes_outputs_less_than_rounding(model: PreTrainedModel, calibration: list[Tensor]) -> None:
    logits = {}
    for method in ("rtn", "gptq"):
        changed = copy.deepcopy(model)
        run(changed, method, 3, calibration)
        with torch.no_grad():
            logits[method] = changed(torch.cat(calibration)).logits
    with torch.no_grad():
        exact = model(torch.cat(calibration)).logits
    assert (logits["gptq"] - exact).norm() < 0.9 * (logits["rtn"] - exact).norm()


def test_same_again(model: PreTrainedModel, calibration: list[Tensor]) -> None:
    again = copy.deepcopy(model)
    for copied in (model, again):
        run(copied, "gptq", 3, calibration)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_biases_are_kept(calibration: list[Tensor]) -> None:
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        attention_bias=True,
    )
    model = LlamaForCausalLM(config).eval()
    torch.nn.init.normal_(model.model.layers[0].self_attn.q_proj.bias)
    before = copy.deepcopy(model)
    run(model, "gptq", 8, calibration)
    with torch.no_grad():
        torch.testing.assert_close(
            model(calibration[0]).logits, before(calibration[0]).logits, rtol=0.02, atol=0.02
        )


def test_group_that_does_not_divide_stops_before_any_work(model: PreTrainedModel) -> None:
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(
        ModelError, match="sizes that divide all are 2, 4, 8, 16, 32, 64 or channel"
    ) as caught:
        run(model, "rtn", 4, None, group_size=128)
    assert "model.layers.0.self_attn.q_proj: in_features 64" in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("missing", [None, []])
def test_calibrated_method_without_calibration_is_refused(
    model: PreTrainedModel, missing: list[Tensor] | None
) -> None:
    with pytest.raises(DataError, match="gptq found no calibration text"):
        run(model, "gptq", 4, missing)


def test_quantizing_twice_is_refused(model: PreTrainedModel) -> None:
    run(model, "rtn", 4, None)
    with pytest.raises(ModelError, match="quantized already"):
        run(model, "rtn", 4, None)


def test_inputs_that_are_not_finite_are_refused_by_name(
    model: PreTrainedModel, calibration: list[Tensor]
) -> None:
    with torch.no_grad():
        model.model.layers[1].input_layernorm.weight[3] = torch.nan
    with pytest.raises(
        NumericsError, match=r"model\.layers\.1\.self_attn\.q_proj: its calibration inputs are NaN"
    ):
        run(model, "gptq", 4, calibration)


def test_weights_that_are_not_finite_are_refused_by_name(model: PreTrainedModel) -> None:
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[3, 3] = torch.inf
    with pytest.raises(NumericsError, match=r"model\.layers\.0\.mlp\.down_proj: a weight is NaN, infinite"):
        run(model, "rtn", 4, None)


def scaled(block: torch.nn.Module, batches: list[Batch], seen: dict[str, Statistics], plan: Plan) -> None:
    """A folding: by powers of two, so that the function of the block stays bit for bit."""
    seen["self_attn.q_proj"].fold(torch.full((64,), 2.0))
    norm, linears = block.input_layernorm, models.linears(block)
    norm.weight /= 2
    for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"):
        linears[name].weight *= 2


FOLDING = Method(METHODS["rtn"].quantize, calibrated=True, prepare=scaled)


def test_a_method_may_fold_within_a_block_before(
    model: PreTrainedModel, calibration: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = copy.deepcopy(model)
    run(plain, "rtn", 4, None)
    monkeypatch.setitem(METHODS, "rtn", FOLDING)
    run(model, "rtn", 4, calibration)
    with torch.no_grad():
        assert torch.equal(model(calibration[0]).logits, plain(calibration[0]).logits)


def test_singular_hessians_end_the_run_or_are_counted(model: PreTrainedModel) -> None:
    few = [torch.randint(320, (1, 3))]
    with pytest.raises(NumericsError, match=r"model\.layers\.0\.self_attn\.q_proj: the Hessian with damping"):
        run(copy.deepcopy(model), "gptq", 4, few, gptq={"damping": 1e-30})
    for choice, done in (("more_damping", "extra_damping"), ("rtn", "rounded")):
        changed = copy.deepcopy(model)
        report = run(changed, "gptq", 4, few, gptq={"damping": 1e-30}, on_singular=choice)
        counted = sum(done in layer.diagnostics for layer in report.layers)
        assert counted > 0 and report.warnings[0].startswith(
            f"{counted} of 14 linears had a singular Hessian"
        )
        with torch.no_grad():
            assert bool(torch.isfinite(changed(few[0]).logits).all())
    assert run(model, "gptq", 4, few).warnings == []


def test_rounded_with_the_identity_is_rounding(model: PreTrainedModel) -> None:
    few = [torch.randint(320, (1, 3))]
    plain = copy.deepcopy(model)
    run(plain, "rtn", 4, None)
    report = run(model, "gptq", 4, few, gptq={"damping": 1e-30}, on_singular="rtn")
    for layer in report.layers:
        if "rounded" in layer.diagnostics:
            found, expected = model.get_submodule(layer.name), plain.get_submodule(layer.name)
            assert torch.equal(found.dequantize(), expected.dequantize())
