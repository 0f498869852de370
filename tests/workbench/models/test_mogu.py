"""Constant shares give the variants, k tokens are routed and no more, and the model survives the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from workbench import models, quantization
from workbench.errors import ModelError
from workbench.models.mogu import (
    ARCHITECTURES,
    MoguModel,
    add_responders,
    fold,
    merge_responders,
    projections,
    responding,
)
from workbench.models.routing import Routing
from workbench.recipe.quantize import Quantize

TOKENS = torch.randint(1, 97, (2, 9), generator=torch.Generator().manual_seed(5))
CONFIGS: dict[Any, Any] = {
    LlamaForCausalLM: LlamaConfig,
    MistralForCausalLM: MistralConfig,
    Qwen2ForCausalLM: Qwen2Config,
    Qwen3ForCausalLM: Qwen3Config,
}


def stock(kind: Any = LlamaForCausalLM, **changes: Any) -> PreTrainedModel:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "vocab_size": 97}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    torch.manual_seed(0)
    made = kind(CONFIGS[kind](**{**sizes, **heads, "initializer_range": 0.2, **changes})).eval()
    for name, parameter in made.named_parameters():
        if name.endswith("bias"):  # transformers makes it zero
            torch.nn.init.normal_(parameter)
    return made


def trained(
    kind: Any = LlamaForCausalLM, tokens: int = 5, width: int | None = 6, **changes: Any
) -> MoguModel:
    """A model whose responders and routers have moved far enough to change what is said."""
    model = add_responders(stock(kind, **changes), Routing(router_width=width, router_tokens=tokens), 1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for projection in projections(model):
            for name, parameter in projection.named_parameters():
                if not name.startswith("base."):
                    parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def greedy(model: PreTrainedModel, tokens: Tensor, count: int, **options: Any) -> Tensor:
    return model.generate(tokens, max_new_tokens=count, do_sample=False, pad_token_id=0, **options)


def same_from_disk(model: MoguModel, folder: Path) -> MoguModel:
    """What was saved, with equal weights; logits may round otherwise, since memory is aligned otherwise."""
    model.save_pretrained(folder)
    loaded = models.load(folder)
    assert isinstance(loaded, MoguModel)
    weights = loaded.state_dict()
    assert all(torch.equal(weights.pop(name), weight) for name, weight in model.state_dict().items())
    assert not weights
    torch.testing.assert_close(loaded(TOKENS).logits, model(TOKENS).logits, rtol=0, atol=1e-6)
    return loaded


@pytest.mark.parametrize("kind", list(ARCHITECTURES))
def test_a_zero_update_under_shares_1_0_is_the_stock_model_bit_for_bit(kind: Any) -> None:
    base = stock(kind)
    model = add_responders(base, Routing(router_width=6), 1)
    for responder in ("unwilling", "glad", "base"):
        with responding(model, responder):
            assert torch.equal(model(TOKENS).logits, base(TOKENS).logits)
    assert not torch.equal(model(TOKENS).logits, base(TOKENS).logits)  # a + b is near 1, not 1


@pytest.mark.parametrize("kind", list(ARCHITECTURES))
@pytest.mark.parametrize("bias", [False, True])
def test_constant_shares_are_the_logits_of_each_variant(kind: Any, bias: bool) -> None:
    model = trained(kind, **({"attention_bias": bias} if kind is LlamaForCausalLM else {}))
    for responder, (a, b) in {"unwilling": (1.0, 0.0), "glad": (0.0, 1.0)}.items():
        variant = stock(kind, **({"attention_bias": bias} if kind is LlamaForCausalLM else {}))
        for block, projection in zip(models.blocks(variant), projections(model), strict=True):
            update = getattr(projection, responder)
            with torch.no_grad():  # alpha / r is 2
                block.self_attn.o_proj.weight.add_(2 * update.B @ update.A)
        expected = variant(TOKENS).logits
        with responding(model, responder):  # type: ignore[arg-type]
            torch.testing.assert_close(model(TOKENS).logits, expected, rtol=0, atol=1e-5)
        merged = merge_responders(model, a, b)
        assert type(merged) is kind and not hasattr(merged.config, "mogu")
        torch.testing.assert_close(merged(TOKENS).logits, expected, rtol=0, atol=1e-5)
    assert not torch.allclose(merged(TOKENS).logits, stock(kind)(TOKENS).logits, atol=1e-3)


def test_folding_changes_no_output_and_shrinks_the_model(tmp_path: Path) -> None:
    model = trained()
    before, size = model(TOKENS).logits, model.num_parameters()
    fold(model)
    torch.testing.assert_close(model(TOKENS).logits, before, rtol=0, atol=1e-5)
    assert size - model.num_parameters() == 3 * 2 * (32 * 6 + 6 * 32)
    assert same_from_disk(model, tmp_path).config.mogu["router_width"] is None


@pytest.mark.parametrize("kind", list(ARCHITECTURES))
def test_survives_the_disk(kind: Any, tmp_path: Path) -> None:
    model = trained(kind, tokens=3)
    loaded = same_from_disk(model, tmp_path)
    assert type(loaded) is ARCHITECTURES[kind]
    assert torch.equal(greedy(loaded, TOKENS, 8), greedy(model, TOKENS, 8))


def by_hand(model: MoguModel, row: Tensor, k: int, count: int) -> Tensor:
    """Greedy decoding without a cache: the first k tokens routed, the others by the base."""
    for step in range(count):
        with responding(model, "routed" if k < 0 or step < k else "base"), torch.no_grad():
            row = torch.cat([row, model(row[None], use_cache=False).logits[0, -1:].argmax(-1)])
    return row


@pytest.mark.parametrize("k", [-1, 0, 1, 3, 20])
@pytest.mark.parametrize("cached", [True, False])
def test_the_first_k_tokens_are_routed_and_the_base_goes_on(k: int, cached: bool) -> None:
    model = trained(tokens=k)
    expected = torch.stack([by_hand(model, row, k, 8) for row in TOKENS])
    assert torch.equal(greedy(model, TOKENS, 8, use_cache=cached), expected)
    assert model.steering.responder == "routed"


def test_what_is_routed_matters_here() -> None:
    said = {k: tuple(greedy(trained(tokens=k), TOKENS, 8).flatten().tolist()) for k in (-1, 0, 1, 3)}
    assert len(set(said.values())) == 4


def test_padding_in_front_changes_nothing() -> None:
    model = trained(tokens=3)
    short = TOKENS[1, 4:]
    padded = torch.stack([TOKENS[0], torch.cat([torch.zeros(4, dtype=torch.int64), short])])
    mask = torch.ones_like(padded)
    mask[1, :4] = 0
    made = greedy(model, padded, 8, attention_mask=mask)
    assert torch.equal(made[0], by_hand(model, TOKENS[0], 3, 8))
    assert torch.equal(made[1, 4:], by_hand(model, short, 3, 8))


def test_beams_and_a_static_cache_hand_over_too() -> None:
    model = trained(tokens=2)
    expected = greedy(model, TOKENS, 8)
    assert torch.equal(greedy(model, TOKENS, 8, cache_implementation="static"), expected)
    cached, whole = (greedy(model, TOKENS, 8, num_beams=3, use_cache=cache) for cache in (True, False))
    assert torch.equal(cached, whole)


def test_a_filled_cache_is_refused() -> None:
    model = trained(tokens=2)
    cache = model(TOKENS[:, :-1], use_cache=True).past_key_values
    with pytest.raises(ModelError, match="router_tokens: the base reads the prompt anew"):
        greedy(model, TOKENS, 4, past_key_values=cache)
    assert model.steering.responder == "routed"


def test_gradient_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointed in (False, True):
        model = trained().train()
        if checkpointed:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model(TOKENS, labels=TOKENS, use_cache=False).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_the_seed_draws_routers_and_updates_and_nothing_else() -> None:
    one, same, other = (add_responders(stock(), Routing(), seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    changed = {name for name in one if not torch.equal(one[name], other[name])}
    assert changed == {name for name in one if name.endswith(".A") or ".factors." in name}


def test_parameters_at_the_shape_of_llama_2_7b() -> None:
    """The sheet counts about 269M for the routers of the paper and 4.2M for both updates."""
    with torch.device("meta"):
        config = LlamaConfig(hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, vocab_size=8)
        base = LlamaForCausalLM(config)
        counted = base.num_parameters()
        model = add_responders(base, Routing(), 1)
    routers = sum(p.numel() for name, p in model.named_parameters() if "_router." in name)
    assert routers == 2 * 32 * (2 * 512 * 4096 + 4096 + 1) == pytest.approx(269e6, rel=5e-3)
    assert model.num_parameters() - counted - routers == 2 * 32 * 8 * 8192 == pytest.approx(4.2e6, rel=2e-3)


def test_only_the_stock_linears_are_quantized(tmp_path: Path) -> None:
    model = trained()
    fold(model)
    section = Quantize(kind="quantize", methods=["rtn"], bits=[4], group_size=16)
    report = quantization.quantize(model, section, "rtn", 4, None, "test")
    assert len(report.layers) == 7 * 3
    same_from_disk(model, tmp_path)
    with pytest.raises(ModelError, match="quantized model cannot be merged"):
        merge_responders(model, 1, 0)


def test_what_cannot_be_routed_is_refused() -> None:
    with pytest.raises(ModelError, match="MoguLlamaForCausalLM cannot be routed; MoGU knows Llama"):
        add_responders(trained(), Routing(), 1)
    with pytest.raises(ModelError, match="rank 0"):
        add_responders(stock(), Routing(rank=0), 1)
    with pytest.raises(ModelError, match="router_tokens: -2"):
        add_responders(stock(), Routing(router_tokens=-2), 1)
