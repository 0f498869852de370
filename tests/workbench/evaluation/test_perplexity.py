from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from workbench import data, models
from workbench.data import TokenFile
from workbench.errors import DataError, NumericsError
from workbench.evaluation.battery import TextEntry
from workbench.evaluation.perplexity import perplexity
from workbench.recipe.inputs import Source


def entry(length: int, windows: int | None = None) -> TextEntry:
    return TextEntry(name="sentences", text=Source(path="unused"), sequence_length=length, windows=windows)


def transformers_perplexity(model: LlamaForCausalLM, tokens: np.ndarray, length: int) -> float:
    """The same protocol by transformers' own loss, one window at a time."""
    losses = []
    for start in range(0, len(tokens) // length * length, length):
        window = torch.from_numpy(tokens[start : start + length].astype(np.int64))[None]
        with torch.no_grad():
            losses.append(float(model(input_ids=window, labels=window).loss))
    return math.exp(sum(losses) / len(losses))


@pytest.mark.parametrize(("length", "batch"), [(7, 1), (16, 4), (33, 64)])
def test_agrees_with_plain_transformers(
    model: LlamaForCausalLM, text: TokenFile, length: int, batch: int
) -> None:
    measured = perplexity(model, text, entry(length), batch, "t", quiet=True)[0]
    assert measured.value == pytest.approx(transformers_perplexity(model, text.tokens, length), rel=1e-5)


def test_a_uniform_model_has_the_vocabulary_as_perplexity(model: LlamaForCausalLM, text: TokenFile) -> None:
    uniform = copy.deepcopy(model)
    torch.nn.init.zeros_(uniform.lm_head.weight)
    measured = perplexity(uniform, text, entry(16), 8, "t", quiet=True)[0]
    assert measured.value == pytest.approx(model.config.vocab_size, rel=1e-6)


def test_bits_per_byte_and_perplexity_tell_the_same_nats(model: LlamaForCausalLM, text: TokenFile) -> None:
    length = 16
    by_token, by_byte = perplexity(model, text, entry(length), 8, "t", quiet=True)
    assert [nats for nats, _ in by_token.items.values()] == [nats for nats, _ in by_byte.items.values()]
    predicted = sum(tokens for _, tokens in by_token.items.values())
    assert predicted == (length - 1) * (text.num_tokens // length)
    read = sum(count for _, count in by_byte.items.values())
    assert read < text.num_bytes
    nats = predicted * math.log(by_token.value)
    assert by_byte.value == pytest.approx(nats / read / math.log(2), rel=1e-9)


def test_a_window_knows_nothing_of_the_others(model: LlamaForCausalLM, text: TokenFile) -> None:
    all_windows = perplexity(model, text, entry(16), 8, "t", quiet=True)[0]
    first = perplexity(model, text, entry(16, windows=2), 8, "t", quiet=True)[0]
    assert list(first.items) == ["0", "1"]
    for window, (nats, tokens) in first.items.items():
        assert all_windows.items[window] == (pytest.approx(nats, rel=1e-5), tokens)


def test_a_text_shorter_than_a_window_is_refused(model: LlamaForCausalLM, text: TokenFile) -> None:
    with pytest.raises(DataError, match=f"{text.num_tokens} tokens do not fill one window"):
        perplexity(model, text, entry(text.num_tokens + 1), 8, "t", quiet=True)


def test_a_loss_that_is_not_a_number_is_refused(model: LlamaForCausalLM, text: TokenFile) -> None:
    broken = copy.deepcopy(model)
    broken.lm_head.weight.data[3] = math.nan
    with pytest.raises(NumericsError, match="window 0"):
        perplexity(broken, text, entry(16), 8, "t", quiet=True)


def test_a_real_model_on_real_text_agrees_with_plain_transformers(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "models" / "stories260K"
    real, tokenizer = models.load(folder), models.load_tokenizer(folder)
    source = Source(path=str(shared_data / "text" / "tinystories_train_head.txt"), documents=(0, 40))
    text = data.write_tokens(data.documents(source), tokenizer, tmp_path, "stories")
    measured = perplexity(real, text, entry(256), 8, "t", quiet=True)[0]
    assert measured.value == pytest.approx(transformers_perplexity(real, text.tokens, 256), rel=1e-4)
    assert 2 < measured.value < 30


def test_whole_texts_apart_are_told_by_document(
    model: LlamaForCausalLM, text: TokenFile, tmp_path: Path
) -> None:
    """All bytes are told, whatever the windows and the rest that fills none of them."""
    apart = entry(48).model_copy(update={"documents": "apart"})
    by_window, by_document = perplexity(model, text, apart, 3, "t", quiet=True)
    assert len(by_document.items) == text.num_documents
    assert len(by_window.items) == -(-(text.num_tokens - 1) // 48)
    assert sum(size for _, size in by_document.items.values()) == text.num_bytes
    nats = [sum(nats for nats, _ in found.items.values()) for found in (by_window, by_document)]
    assert nats[0] == pytest.approx(nats[1], rel=1e-12)
    start, stop = text.starts[1], text.starts[2]
    assert (stop - 1) // 48 == start // 48, "a document in one window sees the same as alone"
    alone = torch.from_numpy(text.tokens[start:stop].astype(np.int64))[None]
    with torch.no_grad():
        loss = float(model(input_ids=alone, labels=alone).loss) * (stop - start - 1)
    # EOS is a target too, of no bytes.
    assert by_document.items["1"][0] == pytest.approx(loss, rel=1e-4)
