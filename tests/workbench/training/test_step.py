"""The parts of an update that need no engine."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from workbench.training import processes, step


def test_counts_the_sequences_of_each_source(toy: SimpleNamespace, tokens: Path) -> None:
    mixture = toy.make_mixture(tokens)
    for index in range(3):
        sources = mixture.batch(index).sources
        assert mixture.drawn(index) == {name: sources.count(name) for name in toy.SOURCES}


def test_a_digest_tells_batches_apart_and_not_their_order(toy: SimpleNamespace, tokens: Path) -> None:
    processes.start()
    mixture = toy.make_mixture(tokens)
    batch = mixture.batch(0)
    order = list(range(toy.BATCH))[::-1]
    turned = type(batch)(
        *(getattr(batch, name)[order] for name in ("tokens", "labels", "positions", "documents")),
        [batch.sources[row] for row in order],
    )
    agreed = step._agree(batch, mixture.names)
    assert step._agree(turned, mixture.names) == agreed
    assert step._agree(mixture.batch(1), mixture.names)[1] != agreed[1] == step.digest(batch)
