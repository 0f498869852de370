"""A document in a packed row is treated as if it stood alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from workbench.data import Batch, Window, attention_mask, pack
from workbench.data.packing import NO_TARGET

VOCABULARY = 50
LENGTHS = [[5, 9, 1, 12], [20, 7]]  # of the documents of each row; 27 tokens, the last is only a label


@pytest.fixture
def windows() -> list[Window]:
    """Two rows of several documents each."""
    draw = np.random.default_rng(0)
    return [
        Window(
            draw.integers(0, VOCABULARY, sum(lengths)),
            np.arange(len(lengths), dtype=np.int32).repeat(lengths),
        )
        for lengths in LENGTHS
    ]


def _model(attention: str) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        attn_implementation=attention,
        initializer_range=0.3,  # large, so that attention matters
    )
    return LlamaForCausalLM(config).eval()


@torch.no_grad()
def _logits(model: LlamaForCausalLM, batch: Batch) -> Tensor:
    mask = attention_mask(batch.documents)
    if model.config._attn_implementation == "eager":  # adds its mask to the scores
        mask = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    return model(input_ids=batch.tokens, position_ids=batch.positions, attention_mask=mask).logits


def test_fields_of_a_packed_row() -> None:
    window = Window(np.array([7, 8, 9, 1, 2, 3]), np.array([0, 0, 0, 1, 1, 2], dtype=np.int32))
    batch = pack([window], ["a"], 5)
    assert batch.tokens.tolist() == [[7, 8, 9, 1, 2]]
    assert batch.labels.tolist() == [[8, 9, NO_TARGET, 2, NO_TARGET]]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1]]
    assert batch.documents.tolist() == [[0, 0, 0, 1, 1]]
    dtypes = [batch.tokens.dtype, batch.labels.dtype, batch.positions.dtype, batch.documents.dtype]
    assert dtypes == [torch.int64, torch.int64, torch.int64, torch.int32]


def test_mask_is_causal_and_block_diagonal() -> None:
    mask = attention_mask(torch.tensor([[0, 0, 1, 1, 1, 2]]))
    assert mask.dtype == torch.bool and mask.shape == (1, 1, 6, 6)
    for i in range(6):
        for j in range(6):
            assert mask[0, 0, i, j] == (j <= i and [0, 0, 1, 1, 1, 2][i] == [0, 0, 1, 1, 1, 2][j])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_changing_a_document_leaves_its_neighbours_logits_alone(
    windows: list[Window], attention: str
) -> None:
    model = _model(attention)
    batch = pack(windows, ["a", "b"], 26)
    logits = _logits(model, batch)
    for changed in range(len(LENGTHS[0])):
        here = batch.documents[0] == changed
        tokens = batch.tokens.clone()
        tokens[0, here] = (tokens[0, here] + 1) % VOCABULARY
        other = _logits(model, Batch(tokens, batch.labels, batch.positions, batch.documents, batch.sources))
        assert torch.equal(other[0, ~here], logits[0, ~here])
        assert torch.equal(other[1], logits[1])
        assert (other[0, here] - logits[0, here]).abs().max() > 0.1


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_loss_of_every_token_is_the_loss_of_the_document_alone(
    windows: list[Window], attention: str
) -> None:
    model = _model(attention)
    batch = pack(windows, ["a", "b"], 26)
    packed = functional.cross_entropy(_logits(model, batch).transpose(1, 2), batch.labels, reduction="none")
    for row, lengths in enumerate(LENGTHS):
        assert (batch.labels[row] != NO_TARGET).sum() == sum(lengths) - len(lengths)
        for document in range(len(lengths)):
            alone = torch.from_numpy(windows[row].tokens[windows[row].documents == document])[None]
            with torch.no_grad():
                logits = model(input_ids=alone).logits[0, :-1]
            here = (batch.documents[row] == document) & (batch.labels[row] != NO_TARGET)
            expected = functional.cross_entropy(logits, alone[0, 1:], reduction="none")
            torch.testing.assert_close(packed[row, here], expected, atol=2e-5, rtol=0)


def test_without_the_mask_documents_do_leak(windows: list[Window]) -> None:
    """What the two tests above guard against: restarting the positions is not enough."""
    model = _model("sdpa")
    batch = pack(windows, ["a", "b"], 26)
    causal = torch.ones(26, 26, dtype=torch.bool).tril()[None, None].expand(2, 1, -1, -1)
    with torch.no_grad():
        leaky = model(input_ids=batch.tokens, position_ids=batch.positions, attention_mask=causal).logits
    second = batch.documents[0] == 1
    assert (leaky[0, second] - _logits(model, batch)[0, second]).abs().max() > 0.1


def test_no_rows_make_an_empty_batch() -> None:
    assert pack([], [], 8).labels.shape == (0, 8)
