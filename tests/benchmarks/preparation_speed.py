"""Speed and memory of a whole preparation on generated text, and of tokenising it.

    python tests/benchmarks/preparation_speed.py [megabytes] [folder]

The text is made on the way: words of a Zipf distribution, half of the documents in each of two tongues,
a tenth exact copies, a tenth near-copies. Everything that a recipe can ask for is asked for.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from workbench.data import labels, ngram, preparation, write_tokens
from workbench.data.decontamination import Questions
from workbench.data.preparation import Judges
from workbench.data.prepared import prepared
from workbench.models import train_tokenizer
from workbench.recipe.preparation import Decontamination, Near, Preparation, Where

WORDS, DOCUMENT_WORDS, REMEMBERED = 50_000, 300, 1000


def documents(megabytes: float, seed: int = 0) -> Iterator[str]:
    """About so many megabytes of text."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    tongues = [
        np.array(["".join(rng.choice(letters[part], rng.integers(2, 11))) for _ in range(WORDS)])
        for part in (slice(0, 18), slice(8, 26))
    ]
    written, kept = 0, list[list[str]]()
    while written < megabytes * 1e6:
        kind = rng.random()
        if kind < 0.2 and kept:
            chosen = list(kept[rng.integers(len(kept))])
            if kind < 0.1:
                chosen[int(rng.integers(len(chosen)))] = "changed"
        else:
            ranks = np.minimum(rng.zipf(1.2, int(rng.integers(50, 2 * DOCUMENT_WORDS))), WORDS) - 1
            chosen = tongues[int(rng.integers(2))][ranks].tolist()
            if len(kept) < REMEMBERED:
                kept.append(chosen)
        text = " ".join(chosen)
        written += len(text) + 1
        yield text


def measure(megabytes: float, out: Path) -> dict[str, float]:
    """Prepare and tokenise; seconds, megabytes a second, and the most memory of the process."""
    settings = Preparation(sources=["generated"], near=Near(), decontaminate=Decontamination())
    lines = list(documents(4, seed=1))
    judges = Judges(
        questions=Questions({"task": lines[:2000]}, Decontamination()),
        language=labels.fit({"low": lines[0::2], "high": lines[1::2]}, 500),
        topic=labels.fit({"one": lines[:500], "other": lines[500:1000]}, 500),
        quality=ngram.fit(lines, 3),
    )
    figures: dict[str, float] = {"megabytes": megabytes}
    for name, work in (
        ("generate", lambda: sum(1 for _ in documents(min(megabytes, 50)))),
        ("read", lambda: preparation.read({"generated": documents(megabytes)}, out, settings, "read")),
        ("choose", lambda: figures.update(chosen=len(preparation.choose(out, settings)))),
        ("tag", lambda: preparation.tag(out, preparation.choose(out, settings), judges, "tag")),
        ("record", lambda: preparation.record(out, judges, "record")),
        ("take", lambda: sum(1 for _ in prepared(out, Where(best=0.2)))),
    ):
        start = time.perf_counter()
        work()
        figures[f"{name}_s"] = time.perf_counter() - start
        figures[f"{name}_peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    figures["generate_s"] *= megabytes / min(megabytes, 50)
    spent = sum(figures[f"{name}_s"] for name in ("read", "tag", "record")) - figures["generate_s"]
    figures["preparation_mb_per_s"] = megabytes / spent
    sample = list(documents(20))
    tokenizer = train_tokenizer(sample[:500], 4000)
    start = time.perf_counter()
    write_tokens(sample, tokenizer, out / "tokens", "tokens")
    figures["tokenising_mb_per_s"] = 20 / (time.perf_counter() - start)
    return figures


if __name__ == "__main__":
    size = float(sys.argv[1]) if len(sys.argv) > 1 else 100
    folder = Path(tempfile.mkdtemp(dir=sys.argv[2] if len(sys.argv) > 2 else None))
    try:
        print(json.dumps(measure(size, folder), indent=2))
    finally:
        shutil.rmtree(folder)
