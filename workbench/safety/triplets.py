"""On-policy preference triplets (Egida, arXiv 2502.13603, section 3 and its data card).

The target model answers every attacked prompt. Where a judge calls its answer unsafe, that answer is rejected
and a safe answer of another model to the same request is chosen; where the target is safe already there is no
triplet. What a judge did not score is neither safe nor unsafe: it is counted, and used for nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from workbench import storage
from workbench.errors import DataError
from workbench.recipe.section import Section


def _spoken(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    return text


Text = Annotated[str, AfterValidator(_spoken)]


class Prompt(Section):
    """A request in an attack style.

    Attributes:
        id: of this prompt; no other has it.
        base_id: of the request; shared by all styles that it is dressed in.
        topics: what it is about; at least one.
        style: the attack.
        split: what the prompt may be used for; one for all prompts of a base_id.
        prompt: the user's turn.
    """

    id: Text
    base_id: Text
    topics: list[Text] = Field(min_length=1)
    style: Text
    split: Text
    prompt: Text


class Triplet(Prompt):
    """A prompt and two answers.

    Attributes:
        chosen: the safe answer.
        rejected: the unsafe one, the target's own.
        chosen_source: who wrote the safe answer.
        rejected_judge: who called the other unsafe.
        rejected_score: how sure of it, 0..1.
    """

    chosen: Text
    rejected: Text
    chosen_source: Text
    rejected_judge: Text
    rejected_score: float = Field(ge=0, le=1)


@dataclass(frozen=True)
class Candidate:
    """An answer that may be chosen.

    Attributes:
        source: who wrote it.
        text: the assistant's turn.
        unsafe: the judge's probability, 0..1; None where it gave none, and the answer is then not chosen.
    """

    source: str
    text: str
    unsafe: float | None


@dataclass(frozen=True)
class Built:
    """Triplets, and how many prompts gave none, by reason.

    Attributes:
        triplets: in the order of the prompts.
        safe: the target's answer is safe already.
        unjudged: the judge gave no score.
        empty: there is no text to reject.
        unanswered: no candidate is safe.
    """

    triplets: list[Triplet]
    safe: int
    unjudged: int
    empty: int
    unanswered: int


def build(
    prompts: Sequence[Prompt],
    answers: Sequence[str],
    unsafe: Sequence[float | None],
    candidates: Sequence[Sequence[Candidate]],
    *,
    judge: str,
    threshold: float = 0.5,
) -> Built:
    """Make the triplets of one target model.

    Args:
        prompts: N.
        answers: N, the target's own.
        unsafe: N, the judge's probability that the answer is unsafe; None where it gave none.
        candidates: N times the answers that may be chosen, the preferred one first.
        judge: name of the judge.
        threshold: an answer is unsafe above this probability, else safe.

    Raises:
        DataError: lists of different length, an id twice, a request in two splits, a score that is no
            probability; names the row.
    """
    sizes = [len(each) for each in (prompts, answers, unsafe, candidates)]
    if len(set(sizes)) > 1:
        raise DataError(
            "prompts, answers, scores and candidates are {}, {}, {} and {} rows; give one of each for every "
            "prompt".format(*sizes)
        )
    check(prompts)
    made: list[Triplet] = []
    none = {"safe": 0, "unjudged": 0, "empty": 0, "unanswered": 0}
    for row, (prompt, answer, score, offered) in enumerate(
        zip(prompts, answers, unsafe, candidates, strict=True)
    ):
        where = f"row {row} ({prompt.id})"
        chosen = _first_safe(offered, threshold, where)
        judged = _probability(score, where)
        if not answer.strip():
            none["empty"] += 1
        elif judged is None:
            none["unjudged"] += 1
        elif judged <= threshold:
            none["safe"] += 1
        elif chosen is None:
            none["unanswered"] += 1
        else:
            both = {"chosen": chosen.text, "chosen_source": chosen.source, "rejected": answer}
            scored = {"rejected_judge": judge, "rejected_score": judged}
            made.append(_triplet({**prompt.model_dump(), **both, **scored}, where))
    return Built(made, **none)


def check(prompts: Iterable[Prompt], places: Iterable[str] | None = None) -> None:
    """Refuse prompts that would let training see what is measured.

    Args:
        prompts: all of them, whatever their split.
        places: where each stands, for the message; None for rows counted from 0.

    Raises:
        DataError: an id twice, or a base_id in two splits; names the row.
    """
    ids: dict[str, str] = {}
    splits: dict[str, tuple[str, str]] = {}
    places = (f"row {number}" for number in count()) if places is None else places
    for prompt, place in zip(prompts, places, strict=False):
        if (before := ids.setdefault(prompt.id, place)) != place:
            raise DataError(f"{place}: id {prompt.id} is that of {before} too; give every row its own")
        split, first = splits.setdefault(prompt.base_id, (prompt.split, place))
        if split != prompt.split:
            raise DataError(
                f"{place} ({prompt.id}): base_id {prompt.base_id} is in split {prompt.split}, but {first} "
                f"has it in {split}; keep all styles of a request in one split"
            )


def write(path: Path, triplets: Iterable[Triplet]) -> None:
    """Write triplets as .jsonl, whole or not at all."""
    storage.write_text(path, "".join(storage.json_line(triplet.model_dump()) for triplet in triplets))


def read(path: Path) -> list[Triplet]:
    """Read triplets from .jsonl.

    Raises:
        DataError: no such file, not UTF-8 or JSON, a key that is missing, unknown or empty, the same answer
            twice in a row, or rows that `check` refuses; names file and line.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; name a .jsonl of triplets")
    triplets = {where: _triplet(row, where) for where, row in _rows(path)}
    if not triplets:
        raise DataError(f"{path}: has no triplets; the target may be safe on all prompts, or none was judged")
    check(triplets.values(), triplets)
    return list(triplets.values())


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """The objects of a file, each with where it stands."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; convert it") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield f"{path}:{number}", json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}:{number}: not JSON ({error.msg}); one object a line") from error


def _triplet(row: Any, where: str) -> Triplet:
    """A row as a triplet."""
    try:
        made = Triplet.model_validate(row)
    except ValidationError as error:
        problems = "; ".join(_problem(found) for found in error.errors())
        raise DataError(f"{where}: {problems}; the keys are {', '.join(Triplet.model_fields)}") from error
    if made.chosen.strip() == made.rejected.strip():
        raise DataError(f"{where}: chosen and rejected are the same answer; leave the row out")
    return made


def _problem(found: Any) -> str:
    place = ".".join(str(part) for part in found["loc"])
    said = found["msg"].removeprefix("Value error, ")
    return f"{place} {said}" if place else f"not a row ({said})"


def _first_safe(offered: Sequence[Candidate], threshold: float, where: str) -> Candidate | None:
    """The preferred candidate among those that the judge calls safe."""
    for candidate in offered:
        if not candidate.text.strip():
            raise DataError(f"{where}: the answer of {candidate.source} is empty; leave the candidate out")
        score = _probability(candidate.unsafe, f"{where}, candidate of {candidate.source}")
        if score is not None and score <= threshold:
            return candidate
    return None


def _probability(score: float | None, where: str) -> float | None:
    if score is not None and not (math.isfinite(score) and 0 <= score <= 1):
        raise DataError(f"{where}: {score} is not a probability; a judge gives 0..1, or None")
    return score
