"""Rows lie whole in bins, ask for what they say and nothing else, and are drawn as any text is."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from workbench.data import (
    NO_TARGET,
    Mixture,
    Row,
    TokenFile,
    answered,
    attention_mask,
    pack,
    parted,
    reorder,
    tokenized,
    write_rows,
    write_tokens,
)
from workbench.data.rows import bins
from workbench.errors import DataError
from workbench.models.tokenizer import train_tokenizer
from workbench.training.objective import Objective, summed_cross_entropy

L = 24


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(["How much is 2 + 2? It is four. Sorry, I cannot help with that."] * 9, 320)


def made_up(count: int, seed: int = 0) -> list[Row]:
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        prompt = [draw.randrange(1, 320) for _ in range(draw.randint(1, 12))]
        rows.append(answered(prompt, [draw.randrange(1, 320) for _ in range(draw.randint(1, 12))]))
    return rows


@pytest.fixture
def file(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> TokenFile:
    return write_rows(made_up(60), L, tokenizer, tmp_path / "rows", "rows")


def test_an_answered_row_scores_the_answer_only() -> None:
    assert answered((1, 2), (3, 4)) == Row((1, 2, 3, 4), (NO_TARGET, NO_TARGET, 3, 4))
    with pytest.raises(DataError, match="prompt is empty"):
        answered((), (1,))
    with pytest.raises(DataError, match="answer is empty"):
        answered((1,), ())


@given(st.lists(st.integers(1, 50), max_size=60))
@settings(deadline=None)
def test_bins_hold_every_row_once_and_no_two_of_them_could_be_one(sizes: list[int]) -> None:
    packed = bins(sizes, 50)
    assert sorted(row for inside in packed for row in inside) == list(range(len(sizes)))
    held = sorted(sum(sizes[row] for row in inside) for inside in packed)
    assert all(size <= 50 for size in held)
    assert len(held) < 2 or held[0] + held[1] > 50
    assert packed == bins(sizes, 50)


def test_every_window_is_a_bin_of_whole_rows(file: TokenFile) -> None:
    found = []
    assert file.windows(L) * L + 1 == file.num_tokens
    for i in range(file.windows(L)):
        window = file.window(i, L)
        assert window.labels is not None and window.documents[L] != window.documents[L - 1]
        for document in range(int(window.documents[L - 1]) + 1):
            here = window.documents == document
            if (window.labels[here] != NO_TARGET).any():
                found.append(Row(tuple(window.tokens[here].tolist()), tuple(window.labels[here].tolist())))
            else:
                assert not window.tokens[here].any()  # padding
    expected = made_up(60)
    assert sorted(found, key=str) == sorted(expected, key=str)


def test_a_batch_asks_for_what_its_rows_ask_for(
    file: TokenFile, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    text = write_tokens(["It is four. " * 20] * 3, tokenizer, tmp_path / "text", "text")
    windows = [file.window(0, L), text.window(1, L), file.window(1, L)]
    batch = pack(windows, ["rows", "text", "rows"], L)
    for row, i in ((0, 0), (2, 1)):
        asked = torch.from_numpy(file.labels[i * L + 1 : (i + 1) * L].astype(np.int64))
        assert torch.equal(batch.labels[row, :-1], asked)
        assert batch.labels[row, -1] == NO_TARGET
    alone = pack(windows[1:2], ["text"], L)
    assert torch.equal(batch.labels[1], alone.labels[0])
    seen = attention_mask(batch.documents)[:, 0]
    assert bool(seen.any(-1).all())  # so that no softmax is over nothing


def test_a_batch_of_rows_has_the_loss_of_each_row_alone(file: TokenFile) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=320, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
    )
    model = LlamaForCausalLM(config).eval()
    alone = 0.0
    for row in made_up(60):
        logits = model(torch.tensor([row.tokens])).logits[0, :-1]
        alone += summed_cross_entropy(logits, torch.tensor(row.labels[1:])).item()
    windows = [file.window(i, L) for i in range(file.windows(L))]
    nats = Objective(model, None, autocast=False)(pack(windows, ["rows"] * len(windows), L))[0]
    assert nats.sum().item() == pytest.approx(alone, rel=1e-5)


def test_a_mixture_reads_every_bin_once_a_pass(
    file: TokenFile, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    text = write_tokens(["It is four. " * 200], tokenizer, tmp_path / "text", "text")
    mixture = Mixture({"rows": file, "text": text}, {"rows": 0.5, "text": 0.5}, 3, 8, L)
    steps = file.windows(L) // 4
    read = [row.window for step in range(steps) for row in mixture.rows(step) if row.source == "rows"]
    assert len(set(read)) == len(read) == 4 * steps
    whole, halves = mixture.batch(2), [mixture.batch(2, rank, 2) for rank in (0, 1)]
    assert torch.equal(whole.labels, torch.cat([half.labels for half in halves]))


def test_the_same_rows_make_the_same_files(
    file: TokenFile, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    again = write_rows(iter(made_up(60)), L, tokenizer, tmp_path / "again", "rows")
    for name in ("tokens.bin", "labels.bin", "documents.bin", "tokens.json"):
        assert (file.folder / name).read_bytes() == (again.folder / name).read_bytes()


def test_what_rows_do_not_have_is_refused(file: TokenFile, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="packed for sequences of 24 tokens, not 16; pack them anew"):
        file.window(0, 16)
    with pytest.raises(DataError, match="whose bytes are not counted"):
        file.window_bytes(0, L)
    with pytest.raises(DataError, match="whose bytes are not counted"):
        reorder(file, np.arange(file.num_documents), tmp_path / "other", "other")


def test_bad_rows_are_named(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    good = answered((1,), (2,))
    long = answered(tokenizer.encode("How much is 2 + 2?", add_special_tokens=False), [9] * L)
    with pytest.raises(
        DataError, match=r"some: row 1, which begins 'How much is 2 \+ 2.* but a sequence has 24"
    ):
        write_rows([good, long], L, tokenizer, tmp_path, "some")
    for labels in [(NO_TARGET, NO_TARGET), (1, 2)]:
        with pytest.raises(DataError, match=r"row 0, .*asks for its first token, or for nothing"):
            write_rows([Row((1, 2), labels)], L, tokenizer, tmp_path, "some")
    with pytest.raises(DataError, match="some: there are no rows"):
        write_rows([], L, tokenizer, tmp_path, "some")
    with pytest.raises(DataError, match="not a token file"):
        TokenFile(tmp_path)


def test_the_tokens_of_an_exchange_part_where_the_answer_begins(tokenizer: PreTrainedTokenizerFast) -> None:
    exchanges = [("How much is 2 + 2?", "It is four."), ("Help\n", '"Sorry", I\ncannot.'), ("?", "!" * 40)]
    parts = [parted(tokenizer, *exchange) for exchange in exchanges]
    for (prompt, answer), (asked, told) in zip(parts, tokenized(parts, tokenizer), strict=True):
        assert list(asked + told) == tokenizer.encode(prompt + answer, add_special_tokens=False)
        assert list(asked) == tokenizer.encode(prompt, add_special_tokens=False)
        assert tokenizer.decode(told) == answer
        assert tokenizer.decode(told[-1:]) == "<|eot_id|>"


def test_a_token_over_the_border_belongs_to_the_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer.encode("It is four", add_special_tokens=False)
    [(asked, told)] = tokenized([("It is fo", "ur")], tokenizer)
    assert list(asked + told) == ids and asked == tuple(ids[: len(asked)])
    assert tokenizer.decode(told).strip() == "four"
