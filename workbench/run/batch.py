"""One batch of a training, rebuilt from its run folder: which documents it held, and where they stand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table
from rich.text import Text

from workbench import models, storage
from workbench.data import Mixture, TokenFile
from workbench.errors import RunError
from workbench.recipe.schema import Recipe
from workbench.stages import curriculum, train
from workbench.training import log
from workbench.training.step import digest

TEXT_SHOWN = 200  # characters of a row
BORDER = " \N{PILCROW SIGN} "  # between two documents


@dataclass(frozen=True)
class Line:
    """One row of a batch.

    Attributes:
        source: its name.
        epoch: pass over the source, from 1.
        window: place in the source's token file, in rows.
        documents: first and last document of that file which it holds a part of, from 0.
        text: what the row says, with a mark between documents.
    """

    source: str
    epoch: int
    window: int
    documents: tuple[int, int]
    text: str


@dataclass(frozen=True)
class Rebuilt:
    """A batch as it was trained on.

    Attributes:
        variant: whose training it belongs to.
        lines: its rows.
        digest: of their tokens.
        logged: the digest that the training wrote down; None where it logged no row for this step.
    """

    variant: str
    lines: list[Line]
    digest: str
    logged: str | None

    @property
    def verdict(self) -> str:
        """Whether this is the batch that was trained on."""
        if self.logged is None:
            return f"digest {self.digest}; the training logged none for this step"
        if self.logged == self.digest:
            return f"digest {self.digest}, the one that the training logged"
        changed = "text or settings have changed since"
        return f"digest {self.digest}, but the training logged {self.logged}: {changed}"


def table(rebuilt: Rebuilt) -> Table:
    """A line for each row, as it begins."""
    shown = Table("source", "pass", "row", "documents", f"text ({rebuilt.variant})")
    for line in rebuilt.lines:
        first, last = line.documents
        documents = f"{first}" if first == last else f"{first}-{last}"
        text = Text(" ".join(line.text.split())[:TEXT_SHOWN])
        shown.add_row(line.source, str(line.epoch), str(line.window), documents, text)
    return shown


def rebuild(run: Path, step: int, variant: str | None = None) -> Rebuilt:
    """Rebuild the batch of one step, as `metrics.jsonl` counts them: the first one is 1.

    Args:
        run: the folder of a finished or stopped run, or of one of its seeds.
        step: of the training.
        variant: which training, where the run has several.

    Raises:
        RunError: there is no such training or step.
        DataError: its token files are gone.
    """
    name, folder = _training(run, variant)
    request = storage.read_json(folder / train.REQUEST)
    recipe = Recipe.model_validate(request["recipe"])
    stage = train.stage_of(recipe, request)
    if not 1 <= step <= stage.steps:
        raise RunError(f"step {step}: the training {name} has steps 1 to {stage.steps}")
    points = log.read(folder / "metrics.jsonl")
    mixture = curriculum.mixture(recipe, stage, request)
    if curriculum.steered(stage):
        known = max((point["step"] for point in points), default=0)
        if step - 1 > known:
            raise RunError(f"step {step}: its weights depend on measurements, and {name} stopped at {known}")
        curriculum.replay_history(mixture, points)
    batch = mixture.batch(step - 1)
    logged = next((point["batch"] for point in points if point["step"] == step and "batch" in point), None)
    return Rebuilt(name, _lines(mixture, step - 1, request), digest(batch), logged)


def _lines(mixture: Mixture, step: int, request: dict[str, dict[str, str]]) -> list[Line]:
    tokenizer = models.load_tokenizer(Path(str(request["tokenizer"])))
    files = {name: TokenFile(Path(folder)) for name, folder in request["tokens"].items()}
    length, lines = mixture.sequence_length, []
    for row in mixture.rows(step):
        file, start = files[row.source], row.window * mixture.sequence_length
        first, last = file.starts.searchsorted((start, start + length - 1), side="right") - 1
        inner = file.starts[first + 1 : last + 1] - start
        parts = [part.tolist() for part in np.split(file.tokens[start : start + length], inner)]
        text = BORDER.join(tokenizer.batch_decode(parts, skip_special_tokens=True))
        lines.append(Line(row.source, row.epoch + 1, row.window, (int(first), int(last)), text))
    return lines


def _training(run: Path, variant: str | None) -> tuple[str, Path]:
    """Name and folder of a training in a run folder."""
    found = {}
    for folder in sorted((run / "stages").glob("*")):
        if (folder / train.REQUEST).is_file():
            found[str(storage.read_json(folder / train.REQUEST)["title"])] = folder
    if not found:
        raise RunError(f"{run}: no training of this version has begun here; name a folder below runs/")
    name = variant or (next(iter(found)) if len(found) == 1 else None)
    if name not in found:
        what = f'no training "{variant}"' if variant else f"{len(found)} trainings; name one with --variant"
        raise RunError(f"{run}: {what}; there are: {', '.join(found)}")
    return name, found[name]
