"""Which windows of which sources make up step t: a pure function of (seed, step, weights so far).

The count of samples per source comes from `quota`, the order within a source from `reading`, the order of
rows within a batch from one permutation per step. Nothing is drawn from a generator with a state, so a
run can begin at any step, and processes share the work by taking rows of the same batch: what is trained
on does not depend on how many they are.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from workbench.data.curriculum import Plan
from workbench.data.packing import Batch, pack
from workbench.data.permutation import key, permute
from workbench.data.quota import ONE, Quota, State
from workbench.data.reading import WhenDry, places, reader
from workbench.data.tokens import TokenFile
from workbench.errors import DataError
from workbench.recipe.curricula import Reading


class Row(NamedTuple):
    """What one row of a batch holds: a window of a source, in a pass over it that is counted from 0."""

    source: str
    epoch: int
    window: int


class Mixture:
    """Batches drawn from several token files in proportion to their weights.

    Rows hold windows of `sequence_length` + 1 tokens, of which the last is only predicted; the tokens at a
    source's end that fill no window are not used.

    Attributes:
        seed: of all orders.
        batch_size: rows of a global batch.
        sequence_length: tokens of a row.
        names: the sources, in the order of their weights.
        history: (step, weights) of every change that was made on the way, after the first weights; with
            the arguments, this is the whole state.
    """

    def __init__(
        self,
        sources: Mapping[str, TokenFile],
        weights: Mapping[str, float],
        seed: int,
        batch_size: int,
        sequence_length: int,
        *,
        plan: Plan | None = None,
        reading: Mapping[str, Reading] | None = None,
        when_dry: WhenDry = "repeat",
    ) -> None:
        """Prepare a mixture.

        Args:
            sources: token files by name; those that `weights` does not name are left out.
            weights: at least 0, relative to each other.
            seed: of all orders.
            batch_size: rows of a global batch, over all processes and accumulation steps.
            sequence_length: tokens of a row.
            plan: weights of the same sources at every step, as long as `reweigh` is not called; default:
                constant.
            reading: how sources are read; default: whole and shuffled.
            when_dry: what happens when a source has been read as often as its reading allows.

        Raises:
            DataError: a weight without a source, weights that cannot be shares, or a source too short.
        """
        first = dict(plan(0) if plan else weights)
        self._check(sources, first)
        self.seed = seed
        self.batch_size = batch_size
        self.sequence_length = sequence_length
        self.names = list(weights)
        self.history: list[tuple[int, dict[str, float]]] = [(0, first)]
        self._plan = plan
        self._files = {name: sources[name] for name in weights}
        self._readers = [
            reader(name, file, sequence_length, (reading or {}).get(name, Reading()), when_dry)
            for name, file in self._files.items()
        ]
        limits = [source.limit for source in self._readers]
        self._quota = Quota(batch_size, self._wanted, limits, redistribute=when_dry == "redistribute")

    def reweigh(self, step: int, weights: Mapping[str, float]) -> None:
        """Use other weights from `step` on.

        Args:
            step: not before the last change.
            weights: for the sources that the mixture started with.

        Raises:
            DataError: as for a new mixture, or `step` would rewrite what has been drawn.
        """
        self._check(self._files, weights)
        last = self.history[-1][0]
        if step < last:
            raise DataError(
                f"new weights from step {step}: they changed at step {last} already; go forward only"
            )
        self.history.append((step, {name: float(weights.get(name, 0.0)) for name in self.names}))
        self._quota.forget(step)

    def planned(self, step: int) -> dict[str, float]:
        """Weights at a step by plan and history, as if no source were dry."""
        return dict(zip(self.names, self._wanted(step), strict=True))

    def weights(self, step: int) -> dict[str, float]:
        """Shares that the batch of a step is drawn by; they sum to 1, or are all 0 after the end."""
        shares = (part / (self.batch_size * ONE) for part in self._quota.earned(step))
        return dict(zip(self.names, shares, strict=True))

    def counts(self, step: int) -> dict[str, int]:
        """Samples drawn from each source before `step`."""
        return dict(zip(self.names, self._quota.state(step).given, strict=True))

    def drawn(self, step: int) -> dict[str, int]:
        """Samples of each source in the batch of a step."""
        before = self.counts(step)
        return {name: count - before[name] for name, count in self.counts(step + 1).items()}

    def epochs(self, step: int) -> dict[str, float]:
        """How often each source has been read before `step`."""
        given = self._quota.state(step).given
        return {source.name: count / source.part for source, count in zip(self._readers, given, strict=True)}

    def dry(self, step: int) -> dict[str, int]:
        """Sources that give nothing more to the batch of a step, and since which step."""
        since = self._quota.state(step + 1).dry
        return {name: start for name, start in zip(self.names, since, strict=True) if start is not None}

    def lasts(self, step: int) -> bool:
        """Whether there is a batch at a step; when not, sources are dry and nobody takes their place."""
        return not self._quota.state(step + 1).ended

    def batch(self, step: int, rank: int = 0, processes: int = 1) -> Batch:
        """The rows of one process at one step: a contiguous block of the global batch.

        The blocks of all ranks, one after the other, are the global batch in its order, whatever the
        number of processes; sizes differ by at most one row.

        Raises:
            DataError: the mixture has ended before this step.
        """
        first, last = (self.batch_size * r // processes for r in (rank, rank + 1))
        drawn = self.rows(step)[first:last]
        return pack(
            [self._files[row.source].window(row.window, self.sequence_length) for row in drawn],
            [row.source for row in drawn],
            self.sequence_length,
        )

    def rows(self, step: int) -> list[Row]:
        """Every row of the global batch, in its order.

        Raises:
            DataError: the mixture has ended before this step.
        """
        before, after = self._quota.state(step), self._quota.state(step + 1)
        if after.ended:
            raise DataError(f"step {step}: the mixture ended before, for {self.whats_dry(step)}")
        samples = [
            (source, sample)
            for source, low, high in zip(self._readers, before.given, after.given, strict=True)
            for sample in range(low, high)
        ]
        found = places(self.seed, samples)
        count = len(samples)
        order = permute(
            np.arange(count, dtype=np.uint64),
            np.full(count, count, dtype=np.uint64),
            np.full(count, key(self.seed, "rows", step), dtype=np.uint64),
        )
        return [Row(samples[i][0].name, *found[i]) for i in order.tolist()]

    def whats_dry(self, step: int) -> str:
        """The sources that are dry at a step in words."""
        after: State = self._quota.state(step + 1)
        return " and ".join(
            f"{source.name} has {source.limit - given} of {source.limit} samples left"
            for source, given, since in zip(self._readers, after.given, after.dry, strict=True)
            if since is not None and source.limit is not None
        )

    def _wanted(self, step: int) -> tuple[float, ...]:
        change = bisect_right(self.history, step, key=lambda entry: entry[0]) - 1
        found = self._plan(step) if self._plan and change == 0 else self.history[change][1]
        return tuple(found[name] for name in self.names)

    @staticmethod
    def _check(sources: Mapping[str, TokenFile], weights: Mapping[str, float]) -> None:
        unknown = sorted(set(weights) - set(sources))
        if unknown:
            raise DataError(
                f"mixture: no source is named {', '.join(unknown)}; "
                f"there are {', '.join(sorted(sources)) or 'none'}"
            )
        wrong = {
            name: weight for name, weight in weights.items() if not (weight >= 0 and math.isfinite(weight))
        }
        if wrong or not any(weights.values()):
            raise DataError(
                f"mixture: weights must be finite, at least 0 and not all 0; found {dict(wrong or weights)}"
            )
