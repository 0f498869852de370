"""Seen and unseen: which topics, styles and base questions may train, and which are kept to measure.

A base question in all its styles is one question. So a share of the base questions of seen topics is held
out as a whole; a dressed question then plays one of three parts:

    train       all its topics seen, its style seen, its base question not held out
    evaluation  its base question is never trained on: held out, or all its topics unseen
    unused      anything else: an unseen style of a trained question, or topics of both sides

The draw is stratified: the base questions of the same topics that are asked in the same ways (harmful,
harmless, or both) make a stratum. A hash of seed and name puts a stratum in an order that knows nothing of
other questions, and its first ones are held out: share times their number, exactly where that is whole, else
rounded up or down by a hash of the stratum, so that many small strata keep the share too. Whatever is added
to one stratum, another keeps its draw; within it, the questions that were there keep their order, so that
only those at the border change parts.

Source: Egida, arXiv 2502.13603, whose test rows have topics and styles that training never saw.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import floor
from typing import Literal, Protocol, Self, TypeVar

from pydantic import Field, model_validator

from workbench.errors import DataError
from workbench.recipe.section import Section, Share
from workbench.safety.attacks import PLAIN, Split

Part = Literal["train", "evaluation", "unused"]


class Row(Protocol):
    """What a dressed question has to say of itself, whatever else it carries."""

    @property
    def id(self) -> str:
        """Its name in errors."""

    @property
    def base_id(self) -> str:
        """Name of the request before it was dressed."""

    @property
    def topics(self) -> Sequence[str]:
        """One or more."""

    @property
    def style(self) -> str:
        """A style's name, or "plain"."""

    @property
    def harmful(self) -> bool:
        """Whether it should be refused."""


R = TypeVar("R", bound=Row)


@dataclass(frozen=True)
class Place:
    """On which side a row stands.

    Attributes:
        topics: seen or unseen; None where it has topics of both.
        style: seen or unseen.
    """

    topics: Split | None
    style: Split


class Sides(Section):
    """Names on both sides; none may stand on both, or twice on one."""

    seen: tuple[str, ...] = Field(default=(), description="may train")
    unseen: tuple[str, ...] = Field(default=(), description="only measured")

    @model_validator(mode="after")
    def _apart(self) -> Self:
        rows: dict[str, str] = {}
        for side in ("seen", "unseen"):
            for number, name in enumerate(getattr(self, side)):
                row = f"{side}[{number}]"
                if name in rows:
                    raise ValueError(f"{row}: {name!r} already stands at {rows[name]}; keep one of the two")
                rows[name] = row
        return self

    def side(self, name: str) -> Split | None:
        """Where a name stands; None where it does not."""
        return "seen" if name in self.seen else "unseen" if name in self.unseen else None


class Manifest(Section):
    """The split that every later step keeps to."""

    topics: Sides
    styles: Sides
    held_out: Share = Field(default=0.2, description="base questions of seen topics kept to measure")
    seed: int = Field(default=0, description="draws which base questions are held out")

    @model_validator(mode="after")
    def _plain_is_seen(self) -> Self:
        if PLAIN in self.styles.unseen:
            raise ValueError(
                f"styles.unseen[{self.styles.unseen.index(PLAIN)}]: a plain request has no style that could "
                "be unseen; it counts as seen and need not be listed"
            )
        return self

    def place(self, row: Row) -> Place:
        """On which side a row stands, whatever other rows there are.

        Raises:
            DataError: the row has no topic, or a topic or style that the manifest does not know.
        """
        if not row.topics:
            raise DataError(f"row {row.id!r}: it has no topic; give each row one or more")
        sides = {_known(self.topics, topic, row, "topic") for topic in row.topics}
        topics = sides.pop() if len(sides) == 1 else None
        style = "seen" if row.style == PLAIN else _known(self.styles, row.style, row, "style")
        return Place(topics, style)

    def held(self, rows: Iterable[Row]) -> frozenset[str]:
        """The base questions that are kept to measure, among those of these rows; in any order the same.

        Args:
            rows: of seen topics; those of one base question have the same topics.
        """
        topics: dict[str, frozenset[str]] = {}
        asked: dict[str, set[bool]] = {}
        for row in rows:
            topics[row.base_id] = frozenset(row.topics)
            asked.setdefault(row.base_id, set()).add(row.harmful)
        strata: dict[str, list[str]] = {}
        for base, found in topics.items():
            strata.setdefault(repr((sorted(found), sorted(asked[base]))), []).append(base)
        kept: set[str] = set()
        for stratum, bases in strata.items():
            number = floor(round(self.held_out * len(bases), 9) + self._drawn(f"stratum {stratum}"))
            kept.update(sorted(bases, key=self._drawn)[:number])
        return frozenset(kept)

    def _drawn(self, name: str) -> float:
        """A number in [0, 1) that the seed draws for a name."""
        drawn = hashlib.blake2b(f"{self.seed}/{name}".encode(), digest_size=6).digest()
        return int.from_bytes(drawn, "big") / 2**48

    def divide(self, rows: Iterable[R]) -> dict[Part, list[R]]:
        """Rows by the part they play, each in its order.

        Raises:
            DataError: a row that `place` refuses, an id that stands twice, or rows of one base question
                with different topics.
        """
        placed: list[tuple[R, Place]] = []
        topics: dict[str, tuple[str, frozenset[str]]] = {}
        ids: set[str] = set()
        for row in rows:
            if row.id in ids:
                raise DataError(f"row {row.id!r}: another row has the same id; ids must be unique")
            ids.add(row.id)
            first, known = topics.setdefault(row.base_id, (row.id, frozenset(row.topics)))
            if known != frozenset(row.topics):
                raise DataError(
                    f"row {row.id!r}: topics {sorted(set(row.topics))}, but row {first!r} of the same base "
                    f"question {row.base_id!r} has {sorted(known)}; a base question has one set of topics"
                )
            placed.append((row, self.place(row)))
        held = self.held(row for row, place in placed if place.topics == "seen")
        divided: dict[Part, list[R]] = {"train": [], "evaluation": [], "unused": []}
        for row, place in placed:
            divided[_part(row, place, held)].append(row)
        return divided


def _part(row: Row, place: Place, held: frozenset[str]) -> Part:
    if place.topics == "unseen" or row.base_id in held:
        return "evaluation"
    return "train" if place.topics == place.style == "seen" else "unused"


def _known(sides: Sides, name: str, row: Row, kind: str) -> Split:
    if (side := sides.side(name)) is None:
        names = ", ".join(sorted((*sides.seen, *sides.unseen)))
        raise DataError(f"row {row.id!r}: the manifest has no {kind} {name!r}; it knows {names}")
    return side
