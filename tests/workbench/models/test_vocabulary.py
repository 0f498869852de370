"""An extension only joins what the old tokenizer gave; a replacement knows what its tokens were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, normalizers
from tokenizers import models as backends
from transformers import PreTrainedTokenizerFast

from workbench import models
from workbench.errors import ModelError
from workbench.models.vocabulary import Renewal, extend, replace, surfaces, words

OLD_TEXT = ["The river runs past the old mill, and under 12 bridges.", "It's the mill's river."] * 10
NEW_TEXT = ["De rivier stroomt langs de oude molen.", "Onder de bruggen stroomt de rivier.", "河流河流"] * 10
TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(OLD_TEXT + NEW_TEXT)


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """As that of LLaMA-2: bytes to fall back to, ▁ for a space, nothing that parts text before encoding."""
    vocabulary = {name: i for i, name in enumerate(["<unk>", "<s>", "</s>"])}
    vocabulary |= {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    for name in [*"▁.,'TIabcdefghilmnoprstuvDO", "th", "▁th", "▁the", "iv"]:
        vocabulary[name] = len(vocabulary)
    merges = [("t", "h"), ("▁", "th"), ("▁th", "e"), ("i", "v")]
    tokenizer = Tokenizer(backends.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


OLD = {"byte-level": models.train_tokenizer(OLD_TEXT, 290), "byte-fallback": sentencepiece_like()}
EXTENDED = {name: extend(tokenizer, NEW_TEXT, 40) for name, tokenizer in OLD.items()}


def ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def spelled(renewal: Renewal, text: str) -> list[int]:
    return [old for token in ids(renewal.tokenizer, text) for old in renewal.spelling[token]]


@pytest.mark.parametrize("kind", list(OLD))
@settings(max_examples=150, deadline=None)
@given(text=TEXT)
def test_new_tokens_only_join_old_ones(kind: str, text: str) -> None:
    assert spelled(EXTENDED[kind], text) == ids(OLD[kind], text)


@pytest.mark.parametrize("kind", list(OLD))
@settings(max_examples=150, deadline=None)
@given(text=TEXT)
def test_extension_decodes_as_before(kind: str, text: str) -> None:
    new = EXTENDED[kind].tokenizer
    assert new.decode(ids(new, text)) == OLD[kind].decode(ids(OLD[kind], text))


@pytest.mark.parametrize("kind", list(OLD))
def test_extension_keeps_ids_and_marks_and_shortens_the_new_language(kind: str, tmp_path: Path) -> None:
    old, renewal = OLD[kind], EXTENDED[kind]
    before, after = old.get_vocab(), renewal.tokenizer.get_vocab()
    assert after.items() >= before.items() and len(before) < len(after) <= len(before) + 40
    assert sorted(after.values()) == list(range(len(after))) and len(renewal.spelling) == len(after)
    assert renewal.anchored == {number: number for number in before.values()}
    assert renewal.tokenizer.special_tokens_map == old.special_tokens_map
    assert renewal.tokenizer.chat_template == old.chat_template
    assert sum(len(ids(renewal.tokenizer, text)) for text in NEW_TEXT) < 0.6 * sum(
        len(ids(old, text)) for text in NEW_TEXT
    )
    renewal.tokenizer.save_pretrained(tmp_path)
    assert ids(models.load_tokenizer(tmp_path), NEW_TEXT[0]) == ids(renewal.tokenizer, NEW_TEXT[0])


def test_marks_outside_the_model_keep_their_ids() -> None:
    """LLaMA-3 has its marks behind the vocabulary, where new tokens would push them away."""
    state = json.loads(OLD["byte-level"].backend_tokenizer.to_str())
    backend = Tokenizer.from_str(json.dumps(state))
    backend.add_special_tokens(["<|late|>"])
    late = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|begin_of_text|>")
    extended = extend(late, NEW_TEXT, 20).tokenizer
    assert extended.convert_tokens_to_ids("<|late|>") == late.convert_tokens_to_ids("<|late|>")
    assert ids(extended, "<|late|>") == [late.convert_tokens_to_ids("<|late|>")]


def test_unknown_characters_come_before_merges_and_are_spelled_by_their_bytes() -> None:
    renewal = EXTENDED["byte-fallback"]
    number = renewal.tokenizer.get_vocab()["河"]
    assert bytes(token - 3 for token in renewal.spelling[number]).decode() == "河"
    assert "河流" in renewal.tokenizer.get_vocab()


def test_words_of_a_tokenizer_that_parts_nothing() -> None:
    tokenizer = OLD["byte-fallback"]
    [found] = words(tokenizer, ["the river, it's"])
    assert ["".join(tokenizer.convert_ids_to_tokens(list(word))) for word in found] == [
        "▁the", "▁river", ",", "▁it", "'", "s",
    ]  # fmt: skip


def test_only_byte_pair_encoding_is_extended() -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(backends.WordLevel({"a": 0}, "a")))
    with pytest.raises(ModelError, match=r"is WordLevel.*write replace: true"):
        extend(tokenizer, NEW_TEXT, 10)


@pytest.mark.parametrize("kind", list(OLD))
def test_replacement_finds_marks_spelling_and_same_text(kind: str) -> None:
    old = OLD[kind]
    renewal = replace(old, NEW_TEXT, 300)
    assert renewal.anchored[renewal.tokenizer.bos_token_id] == old.bos_token_id
    assert renewal.anchored[renewal.tokenizer.eos_token_id] == old.eos_token_id
    before, after = surfaces(old), surfaces(renewal.tokenizer)
    for number, text in after.items():
        assert b"".join(before[token] for token in renewal.spelling[number]) == text
        same = renewal.same[number]
        assert same is None or before[same].strip() == text.strip()
    assert any(len(spelling) > 1 for spelling in renewal.spelling)


def test_surfaces_are_the_bytes_of_the_text() -> None:
    for tokenizer in OLD.values():
        text = "The river runs."
        known = surfaces(tokenizer)
        assert b"".join(known[token] for token in ids(tokenizer, text)).strip() == text.encode()
