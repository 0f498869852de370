"""Small runs in place of a large one: a recipe's first cpt stage on a hundredth of its tokens.

The small runs share everything with the stage but their length, the share of old text, and the text:
they see only the beginning of each source, behind a part that is held out from them. They lie in the
store as any other work, so a probe that was stopped goes on, and `workbench clean` removes them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray

from workbench import models
from workbench.data import TokenFile
from workbench.errors import DataError, RecipeError, RunError
from workbench.evaluation.battery import TextEntry
from workbench.evaluation.perplexity import perplexity
from workbench.recipe.inputs import Source
from workbench.recipe.methods import Replay
from workbench.recipe.schema import Recipe
from workbench.recipe.training import Cpt, Pretrain
from workbench.run import walk
from workbench.stages import prepare
from workbench.stages.job import Job
from workbench.storage import Store

SHARE = 0.01  # of the stage's steps
LEAST_STEPS = 64  # below which the quarter of a small run would be warm-up alone
WINDOWS = 64  # held out of each source
BYTES_PER_TOKEN = 6  # more than any text has, so that enough is read
BATCH = 8


@dataclass(frozen=True)
class Part:
    """A source of the stage as the small runs see it.

    Attributes:
        name: of the source.
        old: whether it is text that the model knows already.
        weight: its share of the new text, or of the old.
        held: the part that is measured on.
        trained: the part that is trained on.
        words: of the held part, parted by white space.
    """

    name: str
    old: bool
    weight: float
    held: TokenFile
    trained: Source
    words: int

    @property
    def key(self) -> str:
        """Name of the trained part among the recipe's sources."""
        return f"{self.name}.probe"


@dataclass(frozen=True)
class Losses:
    """What one model makes of one held-out part, [W] each: nats, the tokens predicted, and their bytes."""

    nats: NDArray[np.float64]
    tokens: NDArray[np.float64]
    sizes: NDArray[np.float64]


class Surrogates:
    """Small runs of the first cpt stage of a recipe.

    Attributes:
        stage: the stage as the recipe has it.
        steps: of a small run at full length.
        parts: sources of new text, then of old.

    Raises:
        RecipeError: no cpt stage, or no old text to replay.
        RunError: the model that the stage goes on from has not been made.
        DataError: a source of which nothing can be held out.
    """

    def __init__(self, recipe: Recipe, store: Store) -> None:
        self.recipe, self.store = recipe, store
        jobs = walk.make_jobs(recipe, store)
        first = next((job for job in jobs if isinstance(job.variant.stage, Cpt)), None)
        if first is None or first.parent is None or not isinstance(first.variant.stage, Cpt):
            raise RecipeError(
                f"{recipe.name}: stages: no cpt stage, so there is nothing to probe; leave --probe out"
            )
        self.stage = first.variant.stage
        self.index = first.variant.stage_index
        self.parent = first.parent
        old = _old_text(recipe, self.stage, self.index)
        _ready(self.parent)
        self.steps = min(self.stage.steps, max(math.ceil(SHARE * self.stage.steps), LEAST_STEPS))
        self.parts = [self._part(name, share, old=False) for name, share in self.stage.mixture.items()]
        self.parts += [self._part(name, share, old=True) for name, share in old.items()]

    def tokens(self, steps: int) -> int:
        """Tokens of a small run of so many steps."""
        return steps * self.stage.batch_size * self.stage.sequence_length

    def base(self) -> list[Losses]:
        """What the model that the stage goes on from makes of each part."""
        return self._measured(self.parent, "before")

    def trained(self, ratio: float, steps: int) -> list[Losses]:
        """What it makes of each part after so many steps with a share of old text."""
        job = self._job(ratio, steps)
        build = walk.BUILDERS[job.variant.kind]
        self.store.make(job.fingerprint, lambda out: build(job, out), resumable=True)
        return self._measured(job, f"{ratio:.0%} old text, {steps} steps")

    def _job(self, ratio: float, steps: int) -> Job:
        """A small run as a recipe of its own, which goes on from the same model."""
        new = {part.key: part.weight for part in self.parts if not part.old}
        old = {part.key: part.weight for part in self.parts if part.old}
        stage = self.stage.model_copy(
            update={
                "name": f"probe-{ratio:g}-{steps}",
                "start": self.parent.variant.name,
                "methods": ["replay" if ratio else "full"],
                "mixture": new,
                "replay": Replay(ratio=ratio, mixture=old) if ratio else None,
                "curriculum": None,
                "reading": {},
                "when_dry": "repeat",
                "tokens": self.tokens(steps),
                "probe_every": None,
                "floor": None,
            }
        )
        small = self.recipe.model_copy(
            update={
                "data": self.recipe.data | {part.key: part.trained for part in self.parts},
                "stages": [*self.recipe.stages[: self.index], stage],
            }
        )
        return walk.make_jobs(small, self.store)[-1]

    def _part(self, name: str, weight: float, *, old: bool) -> Part:
        """Hold out the beginning of a source, at most a tenth of what is read of it."""
        source = self.recipe.data[name]
        held_bytes = WINDOWS * self.stage.sequence_length * BYTES_PER_TOKEN
        texts = prepare.documents(self.store, source, self.recipe)
        trained_bytes = weight * self.tokens(self.steps) * BYTES_PER_TOKEN
        sizes, words = _sizes(texts, held_bytes + trained_bytes)
        if len(sizes) < 2:
            raise DataError(
                f"data.{name}: one document, but the probe holds some out; read it in smaller documents "
                "(document: paragraph), or leave --probe out"
            )
        enough = sum(total < held_bytes for total in accumulate(sizes)) + 1
        count = max(1, min(enough, len(sizes) // 10))
        start = source.documents[0] if source.documents else 0
        held, trained = (
            source.model_copy(update={"documents": span})
            for span in ((start, start + count), (start + count, start + len(sizes)))
        )
        folder = self.parent.model_folder
        file = prepare.token_file(self.store, f"{name}, held out", held, self.recipe, folder)
        return Part(name, old, weight, file, trained, sum(words[:count]))

    def _measured(self, job: Job, title: str) -> list[Losses]:
        model = models.load(job.model_folder, getattr(torch, job.origin.dtype))
        torch.nn.Module.to(model, torch.accelerator.current_accelerator() or torch.device("cpu"))
        found = []
        for part in self.parts:
            length = min(self.stage.sequence_length, part.held.num_tokens - 1)
            entry = TextEntry(
                name=part.name.replace(".", "-"),
                text=part.trained,
                sequence_length=length,
                windows=WINDOWS,
                documents="apart",
            )
            per_token, per_byte = perplexity(model, part.held, entry, BATCH, title)
            nats, tokens = np.array(list(per_token.items.values())).T
            found.append(Losses(nats, tokens, np.array([size for _, size in per_byte.items.values()])))
        return found


def _old_text(recipe: Recipe, stage: Cpt, index: int) -> Mapping[str, float]:
    """The old text that the stage would replay, or else that the new model was trained on."""
    if stage.replay is not None:
        return stage.replay.mixture
    pretrain = next((earlier for earlier in recipe.stages if isinstance(earlier, Pretrain)), None)
    if pretrain is None:
        raise RecipeError(
            f"{recipe.name}: stages[{index}].replay: missing, but the probe compares shares of old text; "
            "name some, as `replay: {ratio: 0.1, mixture: {english: 1.0}}`, or leave --probe out"
        )
    return pretrain.mixture


def _ready(job: Job) -> None:
    """A model that only has to be brought in is; one that has to be trained must have been."""
    if job.store.has(job.fingerprint):
        return
    if job.variant.kind != "load":
        raise RunError(
            f"the probe goes on from {job.variant.name}, which has not been made yet; run the recipe as far "
            "as that (it keeps what is finished), then ask again"
        )
    job.store.make(job.fingerprint, lambda out: walk.BUILDERS["load"](job, out))


def _sizes(texts: Iterator[str], enough: float) -> tuple[list[int], list[int]]:
    """Bytes and words of each document, until there are bytes enough."""
    sizes: list[int] = []
    words: list[int] = []
    total = 0
    for text in texts:
        sizes.append(len(text.encode()))
        words.append(len(text.split()))
        total += sizes[-1]
        if total >= enough:
            break
    return sizes, words
