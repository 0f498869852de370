"""The requests of a set, put to a model, and its answers on disk: asked once, judged as often as wanted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from workbench import safety, storage
from workbench.errors import DataError
from workbench.evaluation import answers
from workbench.evaluation.answers import Asked
from workbench.evaluation.battery import SafetyEntry
from workbench.safety.attacks import PLAIN, Split
from workbench.safety.guards.filtering import Filter
from workbench.safety.requests import Request

AT_ONCE = 1024  # requests between two writings of what was answered


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A request with its answer; see `Request` and `Answer`."""

    id: str
    base_id: str
    topics: tuple[str, ...]
    style: str
    topics_side: Split | None
    style_side: Split
    harmful: bool
    put: int = 0
    bare: str
    prompt: str
    prefix: str = ""
    text: str = ""
    finished: bool = False


def read(path: Path) -> list[Stored]:
    """The answers of a row."""
    return [Stored(**{**each, "topics": tuple(each["topics"])}) for each in storage.read_json(path)]


def write(path: Path, stored: Iterable[Stored]) -> None:
    """Write the answers of a row."""
    storage.write_json(path, [asdict(each) for each in stored])


def requests(
    entry: SafetyEntry, rows: Sequence[Request], tokenizer: PreTrainedTokenizerFast
) -> Iterator[Stored]:
    """What a model of this tokenizer is asked: the rows, then the attacks that begin a harmful answer.

    Raises:
        DataError: a style that no request has.
    """
    manifest = safety.load_requests(entry.requests).manifest
    plain: list[tuple[Stored, str]] = []
    there = {row.style for row in rows}
    if missing := sorted(set(entry.styles or ()) - there):
        raise DataError(
            f"request set {entry.requests} has no style {', '.join(missing)}; "
            f"it has {', '.join(sorted(there))}"
        )
    for row in rows if entry.styles is None else [r for r in rows if r.style in (PLAIN, *entry.styles)]:
        place = manifest.place(row)
        found = Stored(
            id=row.id,
            base_id=row.base_id,
            topics=tuple(row.topics),
            style=row.style,
            topics_side=place.topics,
            style_side=place.style,
            harmful=row.harmful,
            bare=row.bare,
            prompt=row.prompt,
        )
        if row.harmful and row.style == PLAIN and row.answer:
            plain.append((found, row.answer))
        yield found
    for length in entry.late:
        for found, answer in plain:
            if begun := beginning(tokenizer, answer, length):
                style = f"prefilled-{length}"
                yield replace(found, id=f"{found.id}/{style}", style=style, put=length, prefix=begun)


def beginning(tokenizer: PreTrainedTokenizerFast, answer: str, length: int) -> str:
    """The text of an answer's first tokens; empty where it has no more than so many."""
    ends = tokenizer(answer, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return answer[: ends[length - 1][1]] if len(ends) > length else ""


def answer(
    asked: Sequence[Stored],
    entry: SafetyEntry,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    batch_size: int,
    path: Path,
    title: str,
) -> None:
    """Complete the file of answers, in the order of the requests; what it holds is not asked again.

    Raises:
        DataError, ModelError: as in `answers.generate`.
    """
    known = {each.id: each for each in read(path)} if path.is_file() else {}
    missing = [each for each in asked if each.id not in known]
    for start in range(0, len(missing), AT_ONCE):
        rows = missing[start : start + AT_ONCE]
        said = answers.generate(
            model,
            tokenizer,
            [Asked(row.prompt, row.prefix) for row in rows],
            max_new_tokens=entry.max_new_tokens,
            batch_size=batch_size,
            title=title,
        )
        for row, each in zip(rows, said, strict=True):
            known[row.id] = replace(row, text=each.text, finished=each.finished)
        write(path, [known[each.id] for each in asked if each.id in known])


def filtered(gate: Filter, stored: Sequence[Stored]) -> list[Stored]:
    """Answers as a user behind a guard gets them; the guard sees what was put in the model's mouth too.

    Raises:
        DataError, ModelError: as in `Filter.answer`.
    """
    made: dict[str, Stored] = {}
    for style in dict.fromkeys(row.style for row in stored):
        rows = [row for row in stored if row.style == style]
        said = {row.prompt: row.prefix + row.text for row in rows}  # greedy: one answer to one prompt
        passed = gate.answer(partial(_looked_up, said), [row.prompt for row in rows])
        for row, each in zip(rows, passed, strict=True):
            made[row.id] = replace(row, text=each.answer, finished=True) if each.stopped else row
    return [made[row.id] for row in stored]


def _looked_up(said: Mapping[str, str], prompts: Sequence[str]) -> list[str]:
    return [said[prompt] for prompt in prompts]
