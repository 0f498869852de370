"""Training requests that evaluation sets ask too.

They are looked for between bare requests, before they are dressed: two requests in one style share the
style's words, and an encoded request shares none with itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workbench.data.decontamination import Questions
from workbench.data.words import Words, words
from workbench.errors import DataError
from workbench.recipe.preparation import Decontamination

_SHOWN = 5  # rows that an error names


@dataclass(frozen=True)
class Leak:
    """A training request that an evaluation set also asks.

    Attributes:
        row: id of the training row.
        suites: the evaluation sets.
        exact: whether all words are the same; else they share an n-gram.
    """

    row: str
    suites: tuple[str, ...]
    exact: bool


def leaks(
    training: Mapping[str, str], suites: Mapping[str, Sequence[str]], settings: Decontamination
) -> list[Leak]:
    """Training requests that evaluation sets ask too, in any case and punctuation, whole or in part.

    Args:
        training: bare requests by the id of their row.
        suites: bare requests of each evaluation set by its name.
        settings: length of shared n-grams, in words; see `Questions`.
    """
    text = words(list(training.values()))
    partly = Questions(suites, settings).found(text)
    wholly: dict[bytes, set[str]] = {}
    for suite, requests in suites.items():
        for request in _whole(words(requests)):
            wholly.setdefault(request, set()).add(suite)
    found = []
    for number, (row, whole) in enumerate(zip(training, _whole(text), strict=True)):
        exact = wholly.get(whole, set()) if whole else set()
        if in_suites := exact | partly.get(number, set()):
            found.append(Leak(row, tuple(sorted(in_suites)), exact=bool(exact)))
    return found


def check_leaks(
    training: Mapping[str, str], suites: Mapping[str, Sequence[str]], settings: Decontamination
) -> None:
    """Make sure that no evaluation set asks what is trained on; see `leaks`.

    Raises:
        DataError: one does; the first rows are named with their sets.
    """
    if found := leaks(training, suites, settings):
        rows = [f"{leak.row!r} ({', '.join(leak.suites)})" for leak in found]
        raise DataError(
            f"{len(rows)} training requests are also asked by evaluation sets: {_listed(rows)}; take them "
            "out of the training set, or do not report those sets"
        )


def _whole(text: Words) -> list[bytes]:
    """All words of each text in one key; empty for a text without words."""
    return [text.hashes[a:b].tobytes() for a, b in zip(text.starts[:-1], text.starts[1:], strict=True)]


def _listed(rows: Sequence[str]) -> str:
    more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    return ", ".join(rows[:_SHOWN]) + more
