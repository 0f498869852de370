"""A tokenizer for a new language: tokens behind the old ones, or a vocabulary of its own.

An extension goes on with the byte-pair encoding (Sennrich et al., arXiv 1508.07909) where the old tokenizer
stopped: its tokens are the letters that are joined. A new merge ranks behind all old ones and makes a
token that none of them knows, so any text is encoded as before and then joined further: it takes no more
tokens than before, and each new token has one spelling in old tokens. Where the old tokenizer falls back
to bytes, frequent characters that it does not know come first, each spelled by its bytes.

Letters: V tokens in the old vocabulary, N in the new one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tokenizers import Encoding, Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from workbench.errors import ModelError
from workbench.models.tokenizer import BEGIN, END, PAD, SPECIAL_TOKENS, train_tokenizer

COVERAGE = 0.9995  # of the text by characters that have a token, as SentencePiece has it
FIRST_LETTER = 0x10000  # beyond all characters that mean something to a splitter
TEXTS_AT_ONCE = 1000


@dataclass(frozen=True)
class Renewal:
    """A new tokenizer, and what the old one has to do with it.

    Attributes:
        tokenizer: N tokens, with ids 0..N-1.
        anchored: for tokens that are old ones under a new id, the old id; their embeddings are not made anew.
        spelling: [N], the old tokens that each token is spelled with; empty where there are none.
        same: [N], the old token of the same text, up to a leading space; None where there is none.
    """

    tokenizer: PreTrainedTokenizerFast
    anchored: dict[int, int]
    spelling: list[list[int]]
    same: list[int | None]


def extend(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], tokens: int) -> Renewal:
    """Put new tokens behind the old ones, whose ids and merges stay as they are.

    Args:
        tokenizer: the old one, of byte-pair encoding.
        texts: what the tokens are trained on; held in memory.
        tokens: most to add; a small corpus may give fewer.

    Raises:
        ModelError: not a plain byte-pair encoding.
    """
    texts = list(texts)
    state = _state(tokenizer)
    names = {number: name for name, number in tokenizer.get_vocab().items()}
    first = max(names) + 1
    spelling = [[number] for number in range(first)]
    state["model"]["vocab"] |= {token["content"]: token["id"] for token in state["added_tokens"]}
    for character, spelled in _characters(tokenizer, state, texts, tokens // 2):
        state["model"]["vocab"][character] = len(spelling)
        spelling.append(spelled)
    lettered = _renewed(tokenizer, state)
    names = {number: name for name, number in lettered.get_vocab().items()}
    taken = set(names.values())
    made: dict[tuple[int, ...], str] = {}
    for left, right in _merges(lettered, texts, tokens + first - len(spelling)):
        joined, parts = left + right, [_text(part, names, made) for part in (left, right)]
        if None in parts:
            continue
        text = "".join(part for part in parts if part)
        if joined not in made:
            if text in taken:  # an old token that its own letters never lead to here
                continue
            made[joined] = text
            taken.add(text)
            state["model"]["vocab"][text] = len(spelling)
            spelling.append([old for letter in joined for old in spelling[letter]])
        state["model"]["merges"].append(parts)
    renewed = _renewed(tokenizer, state)
    same = _same(renewed, tokenizer)
    return Renewal(renewed, {number: number for number in range(first)}, spelling, same)


def replace(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], tokens: int) -> Renewal:
    """Train a byte-level tokenizer with the marks and the chat format of LLaMA-3 in place of the old one.

    Args:
        tokenizer: the old one; tokens are spelled by its longest matches from the left.
        texts: the corpus.
        tokens: N, special tokens included.

    Raises:
        ModelError: N has no room for the bytes and the special tokens.
    """
    renewed = train_tokenizer(texts, tokens)
    known = tokenizer.get_vocab()
    old = {text: number for number, text in surfaces(tokenizer).items()}
    longest = max(map(len, old))
    marks = {BEGIN: tokenizer.bos_token_id, END: tokenizer.eos_token_id, PAD: tokenizer.pad_token_id}
    marks = {mark: known.get(mark, marks.get(mark)) for mark in SPECIAL_TOKENS}
    anchored = {SPECIAL_TOKENS.index(mark): number for mark, number in marks.items() if number is not None}
    texts_of = surfaces(renewed)
    spelling = [_longest_matches(texts_of.get(number, b""), old, longest) for number in range(len(renewed))]
    return Renewal(renewed, anchored, spelling, _same(renewed, tokenizer))


def surfaces(tokenizer: PreTrainedTokenizerBase) -> dict[int, bytes]:
    """The bytes of text that each token stands for, a leading space included; special tokens left out."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    special = {token["id"] for token in state["added_tokens"]}
    vocabulary = {name: i for name, i in tokenizer.get_vocab().items() if i not in special}
    if _byte_level(state):
        value = {character: byte for byte, character in bytes_to_unicode().items()}
        return {i: bytes(value[character] for character in name) for name, i in vocabulary.items()}
    return {
        i: bytes([int(name[3:5], 16)]) if _is_byte(name) else name.replace("▁", " ").encode()
        for name, i in vocabulary.items()
    }


def words(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> Iterator[list[tuple[int, ...]]]:
    """The token ids of each text, parted into words: as the tokenizer parts text before it encodes it.

    One that does not, like that of LLaMA-2, is taken to begin a word at each space and around all that
    is no letter.
    """
    backend = tokenizer.backend_tokenizer
    state = json.loads(backend.to_str())
    inner: dict[int, tuple[bool, bool]] = {}
    if state["pre_tokenizer"] is None:
        inner = {i: _place(text, state) for i, text in surfaces(tokenizer).items()}
    rest = iter(texts)
    while some := list(islice(rest, TEXTS_AT_ONCE)):
        for encoding in backend.encode_batch(some, add_special_tokens=False):
            yield _words(encoding, inner)


def _state(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    model = state["model"]
    marked = [key for key in ("continuing_subword_prefix", "end_of_word_suffix") if model.get(key)]
    if model["type"] != "BPE" or marked:
        found = f"BPE with {marked[0]}" if model["type"] == "BPE" else model["type"]
        raise ModelError(
            f"the tokenizer is {found}; only plain byte-pair encoding can be extended: write replace: true "
            "for a tokenizer of its own"
        )
    return state


def _renewed(tokenizer: PreTrainedTokenizerFast, state: dict[str, Any]) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state, ensure_ascii=False)),
        **tokenizer.special_tokens_map,
        chat_template=tokenizer.chat_template,
        model_max_length=tokenizer.model_max_length,
        clean_up_tokenization_spaces=False,
    )


def _characters(
    tokenizer: PreTrainedTokenizerFast, state: dict[str, Any], texts: Sequence[str], most: int
) -> list[tuple[str, list[int]]]:
    """Characters that the tokenizer knows as bytes only, most frequent first, with those bytes."""
    if not state["model"]["byte_fallback"]:
        return []
    normalizer = tokenizer.backend_tokenizer.normalizer
    counts = Counter[str]()
    for text in texts:
        counts.update(normalizer.normalize_str(text) if normalizer else text)
    vocabulary, total = state["model"]["vocab"], counts.total()
    covered = 0
    found: list[tuple[str, list[int]]] = []
    for character, count in counts.most_common():
        if covered >= COVERAGE * total or len(found) == most:
            break
        covered += count
        spelled = [f"<0x{byte:02X}>" for byte in character.encode()]
        if character not in vocabulary and all(byte in vocabulary for byte in spelled):
            found.append((character, [vocabulary[byte] for byte in spelled]))
    return found


def _merges(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], most: int
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The next merges of words, in order; each side as the tokens of `tokenizer` that spell it."""
    letter: dict[int, str] = {}
    number: dict[str, int] = {}
    sentences = []
    for sentence in words(tokenizer, texts):
        for word in sentence:
            for token in word:
                if token not in letter:
                    letter[token] = chr(FIRST_LETTER + len(letter))
                    number[letter[token]] = token
        sentences.append(" ".join("".join(letter[token] for token in word) for word in sentence))
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    size = len(letter) + most
    learner.train_from_iterator(
        sentences, trainers.BpeTrainer(vocab_size=size, min_frequency=2, show_progress=False)
    )
    learnt = json.loads(learner.to_str())["model"]["merges"]
    return [
        (tuple(number[each] for each in left), tuple(number[each] for each in right))
        for left, right in learnt
    ]


def _text(part: tuple[int, ...], names: dict[int, str], made: dict[tuple[int, ...], str]) -> str | None:
    return names[part[0]] if len(part) == 1 else made.get(part)


def _words(encoding: Encoding, inner: dict[int, tuple[bool, bool]]) -> list[tuple[int, ...]]:
    found: list[list[int]] = []
    before: tuple[int | None, bool] = (None, False)
    for token, word in zip(encoding.ids, encoding.word_ids, strict=True):
        begins, letters = inner.get(token, (False, True))
        if begins or not letters or before != (word, True):
            found.append([])
        found[-1].append(token)
        before = (word, letters)
    return [tuple(each) for each in found]


def _place(text: bytes, state: dict[str, Any]) -> tuple[bool, bool]:
    """Whether a token begins a word, and whether it is part of one at all: of letters, or a space before."""
    try:
        letters = text.decode().strip(" ")
    except UnicodeDecodeError:
        return False, not state["model"]["byte_fallback"]
    return text.startswith(b" "), not letters or letters.isalpha()


def _same(renewed: PreTrainedTokenizerFast, tokenizer: PreTrainedTokenizerFast) -> list[int | None]:
    old = {text: number for number, text in surfaces(tokenizer).items()}
    new = surfaces(renewed)

    def match(text: bytes) -> int | None:
        alike = (text, text.removeprefix(b" "), b" " + text)
        return next((old[form] for form in alike if form in old), None)

    return [match(new[number]) if number in new else None for number in range(len(renewed))]


def _longest_matches(text: bytes, old: dict[bytes, int], longest: int) -> list[int]:
    found = []
    start = 0
    while start < len(text):
        ends = range(min(len(text), start + longest), start, -1)
        stop = next((end for end in ends if text[start:end] in old), None)
        if stop is not None:
            found.append(old[text[start:stop]])
        start = stop or start + 1
    return found


def _byte_level(state: dict[str, Any]) -> bool:
    return '"ByteLevel"' in json.dumps(state["decoder"])


def _is_byte(name: str) -> bool:
    return len(name) == 6 and name.startswith("<0x") and name.endswith(">")
