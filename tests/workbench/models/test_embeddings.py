"""New embeddings are what the paper says of the old ones, and old tokens lose nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from workbench.errors import ModelError
from workbench.models import embeddings

OLD = torch.arange(12, dtype=torch.float32).reshape(4, 3).square()
TOKENS = torch.arange(3, 23).reshape(2, 10)


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def model(request: pytest.FixtureRequest, tiny_model_folder: Path) -> LlamaForCausalLM:
    untied = LlamaForCausalLM.from_pretrained(tiny_model_folder).eval()
    if not request.param:
        return untied
    untied.config.tie_word_embeddings = True
    return LlamaForCausalLM(untied.config).eval()


def test_translation_is_the_weighted_sum_and_falls_back_to_the_spelling() -> None:
    made = embeddings.translation(OLD, [{1: 0.25, 3: 0.75}, {}, {}], [[0], [0, 2], []])
    torch.testing.assert_close(made[0], 0.25 * OLD[1] + 0.75 * OLD[3])
    torch.testing.assert_close(made[1], (OLD[0] + OLD[2]) / 2)
    torch.testing.assert_close(made[2], OLD.mean(0))


def test_mean_counts_a_token_as_often_as_it_stands() -> None:
    torch.testing.assert_close(embeddings.mean(OLD, [[1, 1, 2]])[0], (2 * OLD[1] + OLD[2]) / 3)


def test_copy_takes_the_same_text_else_the_mean_of_all() -> None:
    made = embeddings.copy(OLD, [2, None])
    assert torch.equal(made[0], OLD[2])
    torch.testing.assert_close(made[1], OLD.mean(0))


def test_random_is_drawn_like_the_old_and_from_the_seed() -> None:
    made = embeddings.random(OLD, 20_000, 1)
    torch.testing.assert_close(made.mean(0), OLD.mean(0), rtol=0.05, atol=0.5)
    torch.testing.assert_close(made.std(0), OLD.std(0), rtol=0.05, atol=0)
    assert torch.equal(made, embeddings.random(OLD, 20_000, 1))
    assert not torch.equal(made, embeddings.random(OLD, 20_000, 2))


def test_old_tokens_keep_embeddings_and_logits(model: LlamaForCausalLM, tmp_path: Path) -> None:
    before, old = model(TOKENS).logits, len(model.get_input_embeddings().weight)
    rows = [m.weight.clone() for m in (model.get_input_embeddings(), model.get_output_embeddings())]
    matrices = [embeddings.random(model.get_input_embeddings().weight, old + 7, seed) for seed in (1, 2)]
    outputs = None if embeddings.tied(model) else matrices[1]
    made = embeddings.fit(model, matrices[0], outputs, {i: i for i in range(old)})
    after = made(TOKENS).logits
    assert after.shape[-1] == old + 7 == made.config.vocab_size
    assert torch.equal(made.get_input_embeddings().weight[:old], rows[0])
    assert torch.equal(made.get_output_embeddings().weight[:old], rows[1])
    # The same numbers; a wider matrix product may add them in another order.
    torch.testing.assert_close(after[..., :old], before, rtol=0, atol=1e-6)
    made.save_pretrained(tmp_path)
    assert torch.equal(LlamaForCausalLM.from_pretrained(tmp_path).eval()(TOKENS).logits, after)


def test_both_matrices_are_made_apart_and_anchors_move(tiny_model_folder: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(tiny_model_folder)
    inputs, head = model.get_input_embeddings().weight.clone(), model.lm_head.weight.clone()
    made = embeddings.fit(model, torch.ones(5, 64), torch.zeros(5, 64), {3: 10})
    assert torch.equal(made.get_input_embeddings().weight[3], inputs[10])
    assert torch.equal(made.lm_head.weight[3], head[10])
    assert bool((made.get_input_embeddings().weight[[0, 1, 2, 4]] == 1).all())
    assert bool((made.lm_head.weight[[0, 1, 2, 4]] == 0).all())


def test_output_must_be_given_as_the_model_has_it(model: LlamaForCausalLM) -> None:
    outputs = torch.zeros(5, 64) if embeddings.tied(model) else None
    with pytest.raises(ModelError, match="tied to the input embeddings"):
        embeddings.fit(model, torch.zeros(5, 64), outputs, {})
