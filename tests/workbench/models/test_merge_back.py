"""Merge-back gives a stock LLaMA between block and copy, which plain transformers loads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from workbench import models
from workbench.errors import ModelError
from workbench.models.interpolators import INTERPOLATORS
from workbench.recipe.methods import ControlLlm

TOKENS = torch.arange(20).reshape(2, 10)
MERGEABLE = sorted(set(INTERPOLATORS) - {"prog"})


def make() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def trained(**settings: Any) -> LlamaForCausalLM:
    """An expanded model whose copies have moved, those behind their blocks too."""
    expanded = models.expand(make(), ControlLlm.model_validate({"blocks": 2, **settings}), 1)
    with torch.no_grad():
        copies = [block.expanded for block in models.parallel_blocks(expanded)]
        copies += [models.blocks(expanded)[index] for index in expanded.config.expansion["added"]]
        for copy in copies:
            for parameter in copy.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return expanded


@pytest.mark.parametrize("structure", ["concat", "hybrid"])
@pytest.mark.parametrize("interpolator", MERGEABLE)
def test_untrained_copies_merge_to_the_base(structure: str, interpolator: str) -> None:
    base = make()
    section = ControlLlm(blocks=2, structure=structure, interpolator=interpolator, factor=0.3)
    merged = models.merge_back(models.expand(base, section, 1), None)
    assert type(merged) is LlamaForCausalLM and type(merged.config) is LlamaConfig
    assert not hasattr(merged.config, "expansion")
    assert torch.equal(merged(TOKENS).logits, base(TOKENS).logits)


@pytest.mark.parametrize("interpolator", MERGEABLE)
def test_shares_of_0_and_1_give_the_block_and_the_copy(interpolator: str) -> None:
    expanded = trained(interpolator=interpolator)
    merged = models.blocks(models.merge_back(expanded, [0.0, 1.0]))
    first, second = models.parallel_blocks(expanded)
    for index, whole in ((1, first.pretrained), (3, second.expanded)):
        for name, weight in whole.state_dict().items():
            torch.testing.assert_close(merged[index].state_dict()[name], weight, rtol=0, atol=1e-6)


def test_lerp_lies_where_the_factor_says() -> None:
    expanded = trained(factor=[0.0, 1.0])
    merged = models.blocks(models.merge_back(expanded, None))
    for index, block, w in zip((1, 3), models.parallel_blocks(expanded), (0.5, 0.7310586), strict=True):
        for name, p in block.pretrained.state_dict().items():
            expected = (1 - w) * p + w * block.expanded.state_dict()[name]
            torch.testing.assert_close(merged[index].state_dict()[name], expected)


def test_a_null_factor_gives_the_copies_and_keeps_the_function() -> None:
    expanded = trained(factor=None, structure="hybrid")
    merged = models.merge_back(expanded, [0.5])  # w is 1 whatever is measured
    torch.testing.assert_close(merged(TOKENS).logits, expanded(TOKENS).logits)
    assert merged.config.num_hidden_layers == 5


def test_loads_where_workbench_is_never_imported(tmp_path: Path, stranger: Callable[..., None]) -> None:
    base_parameters = make().num_parameters()
    merged = models.merge_back(trained(interpolator="slerp"), [0.3, 0.6])
    assert merged.num_parameters() == base_parameters
    merged.save_pretrained(tmp_path)
    program = (
        "import sys, torch\n"
        "from safetensors.torch import save_file\n"
        "from transformers import AutoModelForCausalLM\n"
        "model, report = AutoModelForCausalLM.from_pretrained(sys.argv[1], output_loading_info=True)\n"
        "assert not any(report[key] for key in ('missing_keys', 'unexpected_keys', 'mismatched_keys'))\n"
        "assert type(model).__name__ == 'LlamaForCausalLM'\n"
        "assert not any(name.startswith('workbench') for name in sys.modules)\n"
        "logits = model.eval()(torch.arange(20).reshape(2, 10)).logits.detach()\n"
        "save_file({'logits': logits}, sys.argv[1] + '/logits.safetensors')\n"
    )
    stranger(program, tmp_path)
    assert torch.equal(load_file(tmp_path / "logits.safetensors")["logits"], merged(TOKENS).logits)


def test_works_without_weights_for_a_forecast() -> None:
    for interpolator in MERGEABLE:
        with torch.device("meta"):
            base = make()
            expanded = models.expand(base, ControlLlm(blocks=2, interpolator=interpolator), 1)
            assert models.merge_back(expanded, None).num_parameters() == base.num_parameters()


def test_what_cannot_be_merged_is_refused() -> None:
    with pytest.raises(ModelError, match="prog cannot be merged back"):
        models.merge_back(trained(interpolator="prog"), None)
    with pytest.raises(ModelError, match="no copies beside its blocks"):
        models.merge_back(models.stack(make(), 2), None)
    with pytest.raises(ModelError, match="3 shares for 2 blocks"):
        models.merge_back(trained(), [0.1, 0.2, 0.3])
