"""An exchange becomes the text of the chat template, and its tokens those of the template, marks and all."""

from __future__ import annotations

import copy
import json
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet
from pydantic import ValidationError
from transformers import PreTrainedTokenizerFast

from workbench import models
from workbench.data import documents, exchanges, identity, parted, render, write_tokens
from workbench.errors import DataError
from workbench.recipe.inputs import Source

EXCHANGES = [("2 + 2?", "Four."), ("¿Y 3 por 3?", "  Nueve: $\\boxed{9}$ 🎉\n"), (" ", "")]
CHAT = {"prompt": "problem", "response": "solution"}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return models.train_tokenizer(["How much is 2 + 2? Four.", "Nueve"], 300)


def _rows() -> list[dict[str, str]]:
    return [{"problem": prompt, "solution": response, "id": "x"} for prompt, response in EXCHANGES]


def _source(path: Path, **settings: Any) -> Source:
    return Source.model_validate({"path": str(path), "chat": CHAT, **settings})


def test_the_tokens_of_an_exchange_are_those_of_the_chat_template(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    told = [render(tokenizer, *exchange) for exchange in EXCHANGES[:2]]
    file = write_tokens(told, tokenizer, tmp_path, "exchanges", marked=True)
    for index, (prompt, response) in enumerate(EXCHANGES[:2]):
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        text = tokenizer.apply_chat_template(turns, tokenize=False)
        expected = tokenizer(text, add_special_tokens=False)["input_ids"]
        found = file.tokens[file.starts[index] : file.starts[index + 1]].tolist()
        assert found == expected
        assert [found[0], found.count(found[0])] == [tokenizer.bos_token_id, 1]


def test_marks_stand_for_no_bytes_and_the_rest_for_all(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    told = render(tokenizer, *EXCHANGES[1])
    file = write_tokens([told], tokenizer, tmp_path, "exchange", marked=True)
    special = {i: token.content for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    bare = told
    for mark in special.values():
        bare = bare.replace(mark, "")
    assert file.num_bytes == int(file.bytes.sum()) == len(bare.encode())
    assert {int(size) for token, size in zip(file.tokens, file.bytes, strict=True) if token in special} == {0}


def test_rows_of_every_format_give_the_same_exchanges(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _rows()))
    parquet.write_table(pyarrow.Table.from_pylist(_rows()), tmp_path / "b.parquet")
    expected = [render(tokenizer, *exchange) for exchange in EXCHANGES[:2]]
    for name in ("a.jsonl", "b.parquet"):
        read = documents(_source(tmp_path / name), partial(render, tokenizer))
        assert list(read) == expected  # the blank one is left out
        assert next(documents(_source(tmp_path / name))) == "2 + 2?\n\nFour."


def test_a_turn_that_spells_a_special_token_is_refused_with_its_place(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"problem": "say <|eot_id|>", "solution": "no"}))
    with pytest.raises(DataError, match=r"a\.jsonl:1: the user's turn spells the special token <\|eot_id\|>"):
        list(documents(_source(tmp_path / "a.jsonl"), partial(render, tokenizer)))


def test_a_tokenizer_without_a_template_is_refused(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(DataError, match="no chat template"):
        render(byte_tokenizer, "a", "b")


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"problem": "x"}))
    with pytest.raises(DataError, match="no solution, only problem"):
        list(documents(_source(tmp_path / "a.jsonl")))


def test_plain_text_in_a_folder_of_exchanges_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(DataError, match="no rows for chat"):
        list(documents(_source(tmp_path)))


@pytest.mark.parametrize(
    "settings",
    [{"field": "text"}, {"document": "file"}, {"path": "a.txt"}, {"path": None, "miniworld": "new"}],
)
def test_chat_goes_with_rows_and_without_settings_of_plain_text(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="chat"):
        Source.model_validate({"path": "a.jsonl", "chat": CHAT, **settings})


def test_the_keys_belong_to_the_identity_of_a_source(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(_rows()[0]))
    swapped = Source.model_validate(
        {"path": str(tmp_path / "a.jsonl"), "chat": {"prompt": "solution", "response": "problem"}}
    )
    assert identity(_source(tmp_path / "a.jsonl")) != identity(swapped)
    assert "chat" not in identity(Source(path=str(tmp_path / "a.jsonl")))


def test_an_exchange_is_parted_where_the_assistant_begins_and_ends_with_its_mark(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    for prompt, response in EXCHANGES[:2]:
        asked, answer = parted(tokenizer, prompt, response)
        assert asked + answer == render(tokenizer, prompt, response)
        assert asked.endswith("assistant<|end_header_id|>\n\n")
        assert answer == response.strip() + "<|eot_id|>"
    assert parted(tokenizer, *EXCHANGES[2]) == ("", "")


CHATML = (
    "{% for m in messages %}{{ '<|start_header_id|>' + m.role + '\n' + m.content + '<|eot_id|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant\n' }}{% endif %}"
)


def test_what_follows_the_mark_is_no_part_of_an_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    other = copy.deepcopy(tokenizer)
    other.chat_template = CHATML
    assert parted(other, "a", "b")[1] == "b<|eot_id|>"


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        (
            CHATML.replace("{{ '<|start_header_id|>assistant\n' }}", "{{ 'bot: ' }}"),
            "tells an exchange otherwise",
        ),
        (CHATML.replace("<|eot_id|>", " STOP"), "ends an answer with 'b STOP'"),
    ],
)
def test_a_template_that_does_not_part_is_refused(
    tokenizer: PreTrainedTokenizerFast, template: str, fault: str
) -> None:
    other = copy.deepcopy(tokenizer)
    other.chat_template = template
    with pytest.raises(DataError, match=fault):
        parted(other, "a", "b")


def test_a_blank_turn_has_no_answer_to_learn_and_is_named(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = [{"problem": "x", "solution": "y"}, {"problem": "x", "solution": " "}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"a\.jsonl:2: the assistant's turn is blank"):
        list(exchanges(_source(tmp_path / "a.jsonl"), partial(parted, tokenizer)))
    with pytest.raises(DataError, match="the user's turn is blank"):
        parted(tokenizer, "", "y")


def test_exchanges_are_those_of_the_documents(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _rows()))
    source = _source(tmp_path / "a.jsonl", documents=(1, 5))
    [parts] = exchanges(source, partial(parted, tokenizer))
    assert ["".join(parts)] == list(documents(source, partial(render, tokenizer)))
