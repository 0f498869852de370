"""Which windows of which sources make up step t: a pure function of (seed, step, weights so far).

The count of samples per source comes from `quota`, the order within a source from a keyed permutation
per source and epoch, the order of rows within a batch from one per step. Nothing is drawn from a
generator with a state, so a run can begin at any step, and processes share the work by taking rows of
the same batch: what is trained on does not depend on how many they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from workbench.data.packing import Batch, pack
from workbench.data.permutation import key, permute
from workbench.data.quota import Quota
from workbench.data.tokens import TokenFile
from workbench.errors import DataError

# One key per source and epoch; a batch touches one or two epochs of a source.
_key = lru_cache(maxsize=256)(key)


class Mixture:
    """Batches drawn from several token files in proportion to their weights.

    A source that runs dry starts over in another order. Rows hold windows of `sequence_length` + 1
    tokens, of which the last is only predicted; the tokens at a source's end that fill no window are
    not used.
    """

    def __init__(
        self,
        sources: Mapping[str, TokenFile],
        weights: Mapping[str, float],
        seed: int,
        batch_size: int,
        sequence_length: int,
    ) -> None:
        """Prepare a mixture.

        Args:
            sources: token files by name; those that `weights` does not name are left out.
            weights: at least 0, relative to each other.
            seed: of all orders.
            batch_size: rows of a global batch, over all processes and accumulation steps.
            sequence_length: tokens of a row.

        Raises:
            DataError: a weight without a source, weights that cannot be shares, or a source too short.
        """
        self._check(sources, weights)
        self.seed = seed
        self.batch_size = batch_size
        self.sequence_length = sequence_length
        self.schedule: list[tuple[int, dict[str, float]]] = [(0, dict(weights))]
        self._files = {name: sources[name] for name in weights}
        self._windows = {name: file.windows(sequence_length) for name, file in self._files.items()}
        for name, windows in self._windows.items():
            if windows == 0:
                raise DataError(
                    f"source {name}: {self._files[name].num_tokens} tokens, but a window of sequence_length "
                    f"{sequence_length} takes {sequence_length + 1}; add text or shorten the sequences"
                )
        self._quota = Quota(list(weights.values()))

    def reweigh(self, step: int, weights: Mapping[str, float]) -> None:
        """Use other weights from `step` on; with the seed, the history in `schedule` is the whole state.

        Args:
            step: not before the last change.
            weights: for the sources that the mixture started with.

        Raises:
            DataError: as for a new mixture, or `step` would rewrite what has been drawn.
        """
        self._check(self._files, weights)
        last = self.schedule[-1][0]
        if step < last:
            raise DataError(
                f"new weights from step {step}: they changed at step {last} already; go forward only"
            )
        changed = {name: float(weights.get(name, 0.0)) for name in self._files}
        self._quota.reweigh(step * self.batch_size, list(changed.values()))
        self.schedule.append((step, changed))

    def counts(self, step: int) -> dict[str, int]:
        """Samples drawn from each source before `step`."""
        return dict(zip(self._files, self._quota.counts(step * self.batch_size), strict=True))

    def epochs(self, step: int) -> dict[str, float]:
        """How often each source has been read before `step`."""
        return {name: count / self._windows[name] for name, count in self.counts(step).items()}

    def batch(self, step: int, rank: int = 0, processes: int = 1) -> Batch:
        """The rows of one process at one step: a contiguous block of the global batch.

        The blocks of all ranks, one after the other, are the global batch in its order, whatever the
        number of processes; sizes differ by at most one row.
        """
        first, last = (self.batch_size * r // processes for r in (rank, rank + 1))
        drawn = self._rows(step)[first:last]
        return pack(
            [self._files[name].window(index, self.sequence_length) for name, index in drawn],
            [name for name, _ in drawn],
            self.sequence_length,
        )

    def _rows(self, step: int) -> list[tuple[str, int]]:
        """Source and window of every row of the global batch."""
        before, after = self.counts(step), self.counts(step + 1)
        samples = [(name, sample) for name in self._files for sample in range(before[name], after[name])]
        epochs = [divmod(sample, self._windows[name]) for name, sample in samples]
        # One call for all: the last batch_size elements permute the rows themselves.
        rows = len(samples)
        index = [place for _, place in epochs] + list(range(rows))
        size = [self._windows[name] for name, _ in samples] + [rows] * rows
        keys = [
            _key(self.seed, "source", name, epoch)
            for (name, _), (epoch, _) in zip(samples, epochs, strict=True)
        ]
        keys += [key(self.seed, "rows", step)] * rows
        places = permute(*(np.array(values, dtype=np.uint64) for values in (index, size, keys))).tolist()
        return [(samples[row][0], places[row]) for row in places[rows:]]

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
