"""Request sets: harmful and harmless requests of a file, dressed in attack styles and divided by a manifest.

A set is a file of evals/requests. Its rows come from the miniature world, whose attacks are dressed and
split already, or from data files, whose harmful rows are dressed here in every style of the manifest;
harmless rows stay as they are. No request stands in the file itself.

Nothing here imports torch before rows are read, so that a wrong file is found early.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from workbench import miniworld, recipe, storage
from workbench.errors import DataError
from workbench.miniworld.instructions import HAZARDS, Hazard
from workbench.recipe.grammar import meant, nearest
from workbench.recipe.section import Section, Share
from workbench.safety.attacks import PLAIN, STYLES, Style, dress
from workbench.safety.request_rows import RequestRows, bare
from workbench.safety.splits import Manifest, Part, Sides

FOLDER = Path(__file__).resolve().parents[2] / "evals" / "requests"
TOPIC = "all"  # of every row of a set without topics
SPLIT = 2  # raise it when the same rows would play other parts
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a user asks of a model.

    Attributes:
        id: its own name.
        base_id: name of the question before it was dressed; all its wordings and styles are one cluster.
        topics: one or more.
        style: how it is dressed, or "plain".
        harmful: whether it should be refused.
        bare: the request before it was dressed.
        prompt: the user's turn.
        answer: one that complies, where the set comes with one.
        refusal: one that refuses, where the set comes with one.
    """

    id: str
    base_id: str
    topics: tuple[str, ...]
    style: str
    harmful: bool
    bare: str
    prompt: str
    answer: str | None = None
    refusal: str | None = None


class RequestSet(Section):
    """Where requests come from, and which of them may train."""

    description: str
    miniworld: Literal[True] | None = Field(
        default=None, description="the attacks and look-alikes of the built-in world, from the recipe's seed"
    )
    harmful: RequestRows | None = Field(default=None, description="requests that should be refused")
    harmless: RequestRows | None = Field(default=None, description="requests that should be answered")
    topics: Sides | None = Field(
        default=None, description='default: the world\'s own; "all", seen, where rows have no topics'
    )
    styles: Sides | None = Field(
        default=None,
        description="styles that harmful requests are dressed in beside their plain form; default: the "
        "world's own, else all, with their own sides",
    )
    held_out: Share = Field(default=0.2, description="base questions of seen topics kept to measure")
    seed: int = Field(default=0, description="draws which are held out, and the wording of styles")

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.miniworld:
            keys = ("harmful", "harmless", "topics", "styles")
            if given := [key for key in keys if getattr(self, key) is not None]:
                raise ValueError(f"the world brings its own; leave out {', '.join(given)}")
        elif self.harmful is None:
            raise ValueError("needs exactly one of miniworld, harmful: where harmful requests come from")
        return self

    @model_validator(mode="after")
    def _known_styles(self) -> Self:
        for side in ("seen", "unseen") if self.styles else ():
            for number, name in enumerate(getattr(self.styles, side)):
                if name not in STYLES:
                    raise ValueError(
                        f"styles.{side}[{number}]: unknown style {name!r};{meant(nearest(name, STYLES))} "
                        f"there are {', '.join(STYLES)}"
                    )
        return self

    @property
    def manifest(self) -> Manifest:
        """The split of its rows."""
        if self.miniworld:
            topics, styles = _sides(HAZARDS), _sides(miniworld.STYLES)
        else:
            topics = self.topics or Sides(seen=(TOPIC,))
            styles = self.styles or _sides(STYLES)
        return Manifest(topics=topics, styles=styles, held_out=self.held_out, seed=self.seed)


def load_requests(name: str) -> RequestSet:
    """Read a request set by its name in evals/requests.

    Raises:
        RecipeError: no such file, or a problem in it; all problems are reported at once.
    """
    return recipe.read(FOLDER / f"{name}.yaml", RequestSet)


def requests_identity(name: str, seed: int) -> dict[str, Any]:
    """What determines the requests of a set and their parts: the rows themselves, or a pinned hub revision.

    Raises:
        RecipeError, DataError: as in `divided`.
    """
    settings = load_requests(name)
    if any(origin and origin.hub for origin in (settings.harmful, settings.harmless)):
        return {**settings.model_dump(mode="json", exclude={"description"}), "split": SPLIT}
    parts = divided(name, seed)
    return {"rows": storage.digest({part: [vars(row) for row in found] for part, found in parts.items()})}


def divided(name: str, seed: int) -> dict[Part, list[Request]]:
    """All requests of a set by the part that they may play; harmless ones too.

    Args:
        name: of a file in evals/requests.
        seed: of the run, which is that of its world; sets from files are the same in every run.

    Raises:
        RecipeError: as in `load_requests`.
        DataError: a row without a request or with an empty answer, an id twice, a topic that the set does
            not know; names file and row.
    """
    settings = load_requests(name)
    try:
        return settings.manifest.divide(_world(seed) if settings.miniworld else _dressed(settings))
    except DataError as error:
        raise DataError(f"request set {name}: {error}") from error


def _sides(rows: Mapping[str, Style | miniworld.Style | Hazard]) -> Sides:
    """Names on the side that each row of a table says; a plain request has no style."""
    named = {name: row.split for name, row in rows.items() if name != PLAIN}
    return Sides(**{side: tuple(n for n, s in named.items() if s == side) for side in ("seen", "unseen")})


@lru_cache(maxsize=4)
def _world(seed: int) -> tuple[Request, ...]:
    """Requests of the miniature world; those about one target are one base question."""
    told = {each.id: each.prompt for each in miniworld.instructions(seed)}
    attacks = (
        Request(
            id=attack.id,
            base_id=_target(attack.request_id),
            topics=(attack.topic,),
            style=attack.style,
            harmful=True,
            bare=told[attack.request_id],
            prompt=attack.prompt,
            answer=attack.answer,
            refusal=attack.refusal,
        )
        for attack in miniworld.attacks(seed)
    )
    look_alikes = (
        Request(
            id=each.id,
            base_id=_target(each.id),
            topics=(each.topic,),
            style=PLAIN,
            harmful=False,
            bare=each.prompt,
            prompt=each.prompt,
            answer=each.answer,
        )
        for each in miniworld.look_alikes(seed)
    )
    return (*attacks, *look_alikes)


def _target(name: str) -> str:
    """Topic and target of an id such as hazard/waking/Mora/0."""
    return "/".join(name.split("/")[1:3])


def _dressed(settings: RequestSet) -> Iterator[Request]:
    """Requests of data files, the harmful ones in every style of the manifest.

    Rows with the same words are one base question, so that a request that stands twice plays one part.
    """
    styles, bases = settings.manifest.styles, dict[str, str]()
    for kind, origin in (("harmful", settings.harmful), ("harmless", settings.harmless)):
        for row in bare(origin) if origin else ():
            base = bases.setdefault(" ".join(_WORD.findall(row.request.casefold())), f"{kind}/{row.id}")
            for style in (PLAIN, *styles.seen, *styles.unseen) if kind == "harmful" else (PLAIN,):
                name = f"{kind}/{row.id}/{style}"
                yield Request(
                    id=name,
                    base_id=base,
                    topics=row.topics or (TOPIC,),
                    style=style,
                    harmful=kind == "harmful",
                    bare=row.request,
                    prompt=dress(row.request, style, settings.seed, name),
                    answer=row.answer,
                    refusal=row.refusal,
                )
