"""Synthetic text: a writer asks and answers questions about snippets, and filters keep what is good.

Every batch of raw writing is a file of its own, so a writing that was stopped goes on at its batch, and
stays beside the kept pairs, so that the filters can be judged.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from workbench import storage
from workbench.data import synthetic
from workbench.data.synthetic import Written
from workbench.errors import DataError
from workbench.progress import console, progress
from workbench.recipe.preparation import Synthetic
from workbench.recipe.schema import Recipe
from workbench.stages import writers
from workbench.stages.identity import synthetic_identity
from workbench.stages.writers import Write
from workbench.storage import Store

PAIRS, COUNTS, RAW = "pairs.jsonl", "counts.json", "written"
BATCH = 64  # snippets


@dataclass(frozen=True)
class Counts:
    """How many pairs were written and kept, and how many dropped for each fault."""

    written: int
    kept: int
    dropped: dict[str, int]


def documents(store: Store, settings: Synthetic, recipe: Recipe, snippets: Iterator[str]) -> Iterator[str]:
    """The documents that a writer made of snippets: snippet, question and answer as one text each.

    Raises:
        RecipeError: the snippets or the writer are not in the recipe.
        DataError: the snippets are used up before there are enough pairs, or a server does not answer.
    """

    def build(out: Path) -> None:
        write = writers.of(store, settings, recipe)
        counts = compose(write, settings, snippets, recipe.seed, out)
        dropped = ", ".join(f"{count} {fault}" for fault, count in counts.dropped.items())
        console.print(
            f"synthetic: {counts.kept} of {counts.written} pairs kept; dropped: {dropped or 'none'}",
            highlight=False,
        )

    fingerprint = storage.digest(synthetic_identity(settings, recipe))
    folder = store.make(fingerprint, build, resumable=True)
    with (folder / PAIRS).open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]


def compose(write: Write, settings: Synthetic, snippets: Iterator[str], seed: int, out: Path) -> Counts:
    """Write until enough pairs are kept, one for each snippet at most.

    Args:
        write: gives what follows each of some prompts.
        settings: prompt, filters and how many pairs.
        snippets: read once, in order; a snippet that comes again is asked about again.
        seed: of the writing; every batch has its own.
        out: gets `pairs.jsonl`, `counts.json` and, batch by batch, `written/`.

    Raises:
        DataError: the snippets are used up before there are enough pairs.
    """
    (out / RAW).mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    dropped: Counter[str] = Counter()
    written = 0
    with (
        (out / PAIRS).open("w", encoding="utf-8") as pairs,
        progress("synthetic pairs", settings.documents, "pairs") as advance,
    ):
        for number, some in enumerate(iter(lambda: list(islice(snippets, BATCH)), [])):
            before = len(seen)
            prompts = [synthetic.prompt(settings, snippet) for snippet in some]
            path = out / RAW / f"{number:08d}.json"
            answers = writers.kept(write, prompts, seed * 1_000_003 + number * BATCH, path)
            for snippet, made in zip(some, answers, strict=True):
                if len(seen) == settings.documents:
                    break
                written += 1
                if fault := _kept(settings, snippet, made, seen):
                    dropped[fault] += 1
                    continue
                pair = synthetic.parse(settings, made.text or "")
                assert pair
                text = synthetic.document(settings, snippet, pair)
                pairs.write(storage.json_line({"text": text, **asdict(pair)}))
            advance(len(seen) - before, written=str(written))
            if len(seen) == settings.documents:
                break
    counts = Counts(written, len(seen), dict(dropped.most_common()))
    if len(seen) < settings.documents:
        raise DataError(
            f"synthetic: the {written} snippets gave {len(seen)} of {settings.documents} pairs; dropped: "
            f"{counts.dropped}. Give more snippets, ask for fewer documents, or change prompt, answer, "
            f"stop, max_new_tokens or the filters; the raw writing is in {out / RAW}"
        )
    storage.write_json(out / COUNTS, asdict(counts))
    return counts


def _kept(settings: Synthetic, snippet: str, made: Written, seen: set[str]) -> str | None:
    """Why a pair is dropped; one that is kept counts as seen from now on."""
    if fault := synthetic.fault(settings, snippet, made):
        return fault
    key = storage.digest([snippet, made.text])[:16]
    if key in seen:
        return "seen before"
    seen.add(key)
    return None
