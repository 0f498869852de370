"""Token files give the text back, and account for every byte of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from workbench.data import TokenFile, write_tokens
from workbench.errors import DataError

TEXTS = [
    "De kat zat op 't dak; één vogel, geïnteresseerd, keek toe.",
    "  spaces before, \t tabs\n\nand lines after \n",
    "红楼梦第一回 甄士隐梦幻识通灵",
    "emoji 🎉👩‍👩‍👧 and accents e\u0301 and a byte order mark \ufeff",
    "it spells <|begin|> and <|end|>, <s> and </s>",
    "x",
]
DATA = Path(os.environ.get("WORKBENCH_DATA", "../shared/data"))


def _sentencepiece_like() -> PreTrainedTokenizerFast:
    """Characters with byte fallback, and a space put before every text, as in LLaMA-2."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefghij"]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


@pytest.fixture(params=["bytes", "byte fallback", "babyllama-0.9M", "minimind"])
def tokenizer(
    request: pytest.FixtureRequest, byte_tokenizer: PreTrainedTokenizerFast
) -> PreTrainedTokenizerFast:
    """Made-up tokenizers, and real ones where the shared data lies."""
    if request.param == "bytes":
        return byte_tokenizer
    if request.param == "byte fallback":
        return _sentencepiece_like()
    folder = DATA / ("models" if request.param == "babyllama-0.9M" else "tokenizers") / request.param
    if not folder.is_dir():
        pytest.skip(f"no {folder}; set WORKBENCH_DATA")
    if request.param == "minimind":
        return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|im_end|>")
    return AutoTokenizer.from_pretrained(folder)


def test_bytes_of_the_tokens_add_up_to_each_document(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    file = write_tokens(TEXTS, tokenizer, tmp_path, "texts")
    assert file.num_documents == len(TEXTS)
    assert file.num_bytes == sum(len(text.encode()) for text in TEXTS) == file.bytes.sum(dtype=int)
    for i, text in enumerate(TEXTS):
        document = slice(file.starts[i], file.starts[i + 1])
        assert file.bytes[document].sum(dtype=int) == len(text.encode())
        marks = np.isin(file.tokens[document], [tokenizer.bos_token_id or -1, tokenizer.eos_token_id])
        assert not file.bytes[document][marks].any()


def test_text_comes_back(byte_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    file = write_tokens(TEXTS, byte_tokenizer, tmp_path, "texts")
    for i, text in enumerate(TEXTS):
        ids = file.tokens[file.starts[i] : file.starts[i + 1]]
        assert ids[0] == byte_tokenizer.bos_token_id and ids[-1] == byte_tokenizer.eos_token_id
        assert byte_tokenizer.decode(ids[1:-1].astype(int).tolist()) == text


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), min_size=1, max_size=8))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_accounted_for(
    byte_tokenizer: PreTrainedTokenizerFast, tmp_path: Path, texts: list[str]
) -> None:
    for tokenizer in (byte_tokenizer, _sentencepiece_like()):
        file = write_tokens(texts, tokenizer, tmp_path, "texts")
        lengths = [file.bytes[a:b].sum(dtype=int) for a, b in zip(file.starts, file.starts[1:], strict=False)]
        assert lengths == [len(text.encode()) for text in texts]


def test_text_is_cut_into_batches_without_a_trace(
    byte_tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write_tokens(TEXTS, byte_tokenizer, tmp_path / "whole", "texts")
    monkeypatch.setattr("workbench.data.tokens.BATCH_CHARACTERS", 1)
    monkeypatch.setattr("workbench.progress.LINE_EVERY_S", 0.0)  # also shows progress of unknown length
    parts = write_tokens(iter(TEXTS), byte_tokenizer, tmp_path / "parts", "texts")
    for name in ("tokens.bin", "bytes.bin", "documents.bin", "tokens.json"):
        assert (whole.folder / name).read_bytes() == (parts.folder / name).read_bytes()


def test_a_tokenizer_that_truncates_is_not_allowed_to(
    byte_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    backend = Tokenizer.from_str(byte_tokenizer.backend_tokenizer.to_str())
    backend.enable_truncation(4)
    backend.enable_padding(length=64, pad_token="<|end|>", pad_id=backend.token_to_id("<|end|>"))
    short = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|begin|>", eos_token="<|end|>")
    a = write_tokens(TEXTS, short, tmp_path / "a", "texts")
    b = write_tokens(TEXTS, byte_tokenizer, tmp_path / "b", "texts")
    assert np.array_equal(a.tokens, b.tokens)
    assert a.tokenizer == b.tokenizer


def test_width_of_the_ids_follows_the_vocabulary(tmp_path: Path) -> None:
    for size, dtype in [(1 << 16, np.uint16), ((1 << 16) + 1, np.uint32)]:
        vocabulary = {"a": size - 1} | {f"token{i}": i for i in range(size - 1)}
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocabulary, [])))
        file = write_tokens(["a"], tokenizer, tmp_path / str(size), "a")
        assert file.tokens.dtype == dtype
        assert file.tokens.tolist() == [size - 1]


def test_windows_cover_the_stream_and_number_their_documents(
    make_tokens: Callable[[str, int], TokenFile],
) -> None:
    file = make_tokens("some", 30)
    owner = np.searchsorted(file.starts, np.arange(file.num_tokens), side="right")
    for length in (1, 7, 16, file.num_tokens - 1):
        windows = [file.window(i, length) for i in range(file.windows(length))]
        predicted = np.concatenate([window.tokens[1:] for window in windows])
        assert np.array_equal(predicted, file.tokens[1 : 1 + len(predicted)])
        assert file.num_tokens - 1 - len(predicted) < length
        for i, window in enumerate(windows):
            here = owner[i * length : (i + 1) * length + 1]
            assert np.array_equal(window.documents, here - here[0])
    with pytest.raises(IndexError):
        file.window(file.windows(7), 7)


def test_bytes_of_a_window_are_those_of_the_tokens_after_its_first(
    byte_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    file = write_tokens(["abcdé", "fgh"], byte_tokenizer, tmp_path, "texts")
    # <bos> a b c d é é <eos> <bos> f g h <eos>: each byte of é is a token of its own
    assert file.bytes.tolist() == [0, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0]
    assert [file.window_bytes(i, 6) for i in range(2)] == [5, 3]


def test_no_documents_is_an_error_and_no_token_file(
    byte_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="tokens of nothing: there are no documents"):
        write_tokens([], byte_tokenizer, tmp_path, "tokens of nothing")
    with pytest.raises(DataError, match="not a token file"):
        TokenFile(tmp_path)


def test_a_document_may_be_one_long_token_but_not_too_long(tmp_path: Path) -> None:
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"<unk>": 0}, "<unk>")))
    assert write_tokens(["é" * 32767, ""], words, tmp_path / "fits", "texts").bytes.tolist() == [65534]
    with pytest.raises(DataError, match=r"the document that begins 'ééé.* more than 65535 bytes"):
        write_tokens(["x", "é" * 32768], words, tmp_path / "large", "texts")


def test_text_that_the_tokenizer_drops_is_an_error(tmp_path: Path) -> None:
    deaf = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0}, [])))
    with pytest.raises(DataError, match="the document that begins 'zzz'"):
        write_tokens(["a", "zzz"], deaf, tmp_path, "texts")


@pytest.mark.parametrize("name", ["tokens.bin", "bytes.bin", "documents.bin"])
def test_truncated_and_missing_files_are_noticed(
    make_tokens: Callable[[str, int], TokenFile], name: str
) -> None:
    path = make_tokens("cut", 5).folder / name
    size = path.stat().st_size
    os.truncate(path, size - 1)
    with pytest.raises(DataError, match=rf"{name}: {size - 1} bytes long, but {size} bytes were written"):
        TokenFile(path.parent)
    path.unlink()
    with pytest.raises(DataError, match=f"{name}: missing"):
        TokenFile(path.parent)


def test_facts_are_plain_json(make_tokens: Callable[[str, int], TokenFile]) -> None:
    file = make_tokens("facts", 5)
    facts = json.loads((file.folder / "tokens.json").read_text())
    assert facts["tokens"] == len(file.tokens) == file.starts[-1]
    assert facts["dtype"] == "uint16"
    assert file.name == "facts"


def test_a_document_longer_than_the_context_goes_on_in_the_next_window(
    byte_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    text = "".join(chr(ord("a") + i % 26) for i in range(1000))
    file = write_tokens(["before", text, "after"], byte_tokenizer, tmp_path / "long", "long")
    windows = [file.window(i, 64) for i in range(file.windows(64))]
    tokens = np.concatenate([window.tokens[:-1] for window in windows])
    assert byte_tokenizer.decode(tokens, skip_special_tokens=True).startswith("before" + text[:900])
    inner = [window for window in windows if not (window.documents > 0).any()]
    assert len(inner) >= 1000 // 64 - 1
