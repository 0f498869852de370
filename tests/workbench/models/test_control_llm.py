"""A Control LLM starts as its base, generates the same with and without a cache, and survives the disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig, LlamaForCausalLM

from workbench import models, quantization
from workbench.errors import ModelError, NumericsError
from workbench.models.interpolators import INTERPOLATORS
from workbench.recipe.methods import ControlLlm
from workbench.recipe.quantize import Quantize

TOKENS = torch.randint(0, 97, (2, 10), generator=torch.Generator().manual_seed(5))
LLAMA_3_8B = LlamaConfig(
    vocab_size=128_256,
    hidden_size=4096,
    intermediate_size=14_336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
)


def make(tie: bool = True) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        tie_word_embeddings=tie,
    )
    return LlamaForCausalLM(config).eval()


def expand(seed: int = 1, **settings: Any) -> models.ControlLlamaForCausalLM:
    expanded = models.expand(make(), ControlLlm.model_validate({"blocks": 2, **settings}), seed)
    assert isinstance(expanded, models.ControlLlamaForCausalLM)
    return expanded


def trained(**settings: Any) -> models.ControlLlamaForCausalLM:
    """An expanded model whose copies and interpolators have moved."""
    expanded = expand(**settings)
    with torch.no_grad():
        for block in models.parallel_blocks(expanded):
            for parameter in (*block.expanded.parameters(), *block.interpolator.parameters()):
                parameter.add_(0.05 * torch.randn_like(parameter))
    return expanded


@pytest.mark.parametrize("structure", ["concat", "hybrid"])
@pytest.mark.parametrize("interpolator", sorted(set(INTERPOLATORS) - {"prog"}))
def test_step_0_is_the_base_bit_for_bit(structure: str, interpolator: str) -> None:
    for factor in (0.0, [1.3, -0.4][: 2 if structure == "concat" else 1]):
        base = make(tie=factor == 0.0)
        section = ControlLlm(blocks=2, structure=structure, interpolator=interpolator, factor=factor)
        expanded = models.expand(base, section, 1)
        assert models.step_0_deviation(base, expanded, TOKENS) == 0
        assert torch.equal(base(TOKENS).logits, expanded(TOKENS).logits)


def test_a_deviation_is_refused_for_all_but_prog() -> None:
    base = make()
    assert (
        0
        < models.step_0_deviation(
            base, models.expand(base, ControlLlm(blocks=2, interpolator="prog"), 1), TOKENS
        )
        < 0.5
    )
    with pytest.raises(NumericsError, match="differs from its base"):
        models.step_0_deviation(make(), trained(), TOKENS)


def test_seed_draws_the_interpolators_and_nothing_else() -> None:
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    one = expand(seed=1, interpolator="prog").state_dict()
    torch.manual_seed(0)
    same = expand(seed=1, interpolator="prog").state_dict()
    torch.manual_seed(0)
    other = expand(seed=2, interpolator="prog").state_dict()
    torch.random.set_rng_state(state)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert {name for name in one if not torch.equal(one[name], other[name])} == {
        f"model.layers.{index}.interpolator.linear" for index in (1, 3)
    }


@pytest.mark.parametrize("structure", ["concat", "hybrid"])
@pytest.mark.parametrize("interpolator", sorted(INTERPOLATORS))
def test_cached_equals_uncached(structure: str, interpolator: str) -> None:
    model = trained(structure=structure, interpolator=interpolator)
    expected = model(TOKENS).logits.detach()
    cache = DynamicCache(config=model.config)
    assert len(cache.layers) == 6
    for position in range(TOKENS.shape[1]):
        step = model(TOKENS[:, position : position + 1], past_key_values=cache, use_cache=True)
        torch.testing.assert_close(step.logits[:, 0], expected[:, position], rtol=0, atol=2e-6)
    assert all(layer.get_seq_length() == TOKENS.shape[1] for layer in cache.layers)


@pytest.mark.parametrize("interpolator", sorted(INTERPOLATORS))
def test_generation_does_not_depend_on_the_cache(interpolator: str) -> None:
    model = trained(interpolator=interpolator)
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(TOKENS, use_cache=False, **options)
    assert torch.equal(model.generate(TOKENS, use_cache=True, **options), expected)
    static = model.generate(TOKENS, use_cache=True, cache_implementation="static", **options)
    assert torch.equal(static, expected)


@pytest.mark.parametrize(
    "settings",
    [{"interpolator": name} for name in sorted(INTERPOLATORS)]
    + [{"structure": "hybrid"}, {"factor": None}, {"factor": [0.1, 0.2]}],
    ids=str,
)
def test_survives_the_disk(settings: dict[str, Any], tmp_path: Path) -> None:
    model = trained(**settings)
    model.save_pretrained(tmp_path)
    for loaded in (models.load(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path).eval()):
        assert type(loaded) is models.ControlLlamaForCausalLM
        assert torch.equal(loaded(TOKENS).logits, model(TOKENS).logits)
        assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
        assert len(models.blocks(loaded)) == loaded.config.num_hidden_layers


def test_loads_in_a_new_process_that_imports_models(tmp_path: Path, stranger: Callable[..., None]) -> None:
    model = trained(structure="hybrid", interpolator="dlerp")
    model.save_pretrained(tmp_path)
    stranger(
        "import sys, torch, workbench.models\n"
        "from safetensors.torch import save_file\n"
        "from transformers import AutoModelForCausalLM\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()\n"
        "tokens = torch.tensor(eval(sys.argv[2]))\n"
        "save_file({'logits': model(tokens).logits.detach()}, sys.argv[1] + '/logits.safetensors')\n",
        tmp_path,
        str(TOKENS.tolist()),
    )
    logits = load_file(tmp_path / "logits.safetensors")["logits"]
    assert torch.equal(logits, model(TOKENS).logits)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        model = trained(structure="hybrid", interpolator="dlerp").train()
        if checkpointed:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model(TOKENS, labels=TOKENS, use_cache=False).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_parameters_at_the_shape_of_llama_3_8b() -> None:
    with torch.device("meta"):
        base = LlamaForCausalLM(LLAMA_3_8B)
        expanded = models.expand(base, ControlLlm(blocks=8), 1)
    added = [name for name, _ in expanded.named_parameters() if ".expanded." in name]
    copies = sum(expanded.get_parameter(name).numel() for name in added)
    assert copies == 8 * 218_112_000 == 1_744_896_000
    assert expanded.num_parameters() == base.num_parameters() + copies + 8
    assert expanded.num_parameters() == pytest.approx(9.78e9, rel=1e-3)
    assert models.count_parameters(expanded.config) == expanded.num_parameters()


def test_dlerp_has_8_x_8193_parameters_at_the_shape_of_llama_3_8b() -> None:
    with torch.device("meta"):
        expanded = models.expand(LlamaForCausalLM(LLAMA_3_8B), ControlLlm(blocks=8, interpolator="dlerp"), 1)
    shares = [p.numel() for name, p in expanded.named_parameters() if ".interpolator." in name]
    assert sum(shares) == 8 * 8193


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blocks": 3}, "blocks: 3 does not divide the 4 blocks"),
        ({"blocks": 1, "structure": "hybrid"}, "blocks: 1 is odd"),
        ({"factor": [0.0]}, "factor: 1 values for 2 blocks"),
        ({"structure": "hybrid", "factor": [0.0, 0.0]}, "factor: 2 values for 1 blocks"),
        ({"interpolator": "dlerp", "factor": None}, "factor: null means the copy alone"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        expand(**settings)


def test_a_checkpoint_without_its_copies_is_refused(tmp_path: Path) -> None:
    expand().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "layers.3.expanded" not in name}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"missing weights .*layers.3.expanded"):
        models.load(tmp_path)


@pytest.mark.parametrize("interpolator", ["lerp", "prog"])
def test_blocks_and_copies_are_quantized_and_interpolators_are_not(interpolator: str, tmp_path: Path) -> None:
    model = trained(structure="hybrid", interpolator=interpolator)
    stage = Quantize(kind="quantize", methods=["rtn"], bits=[4], group_size=16)
    report = quantization.quantize(model, stage, "rtn", 4, None, "test")
    assert len(report.layers) == 7 * (5 + 1)  # five blocks, one of them with a copy beside it
    mixes = [block.interpolator.state_dict() for block in models.parallel_blocks(model)]
    assert all(weight.is_floating_point() for mix in mixes for weight in mix.values())
    model.save_pretrained(tmp_path)
    assert torch.equal(models.load(tmp_path)(TOKENS).logits, model(TOKENS).logits)
    with pytest.raises(ModelError, match="quantized model cannot be merged back"):
        models.merge_back(model, None)
