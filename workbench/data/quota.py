"""How many samples of each batch a source gives: weights rounded to whole samples, batch by batch.

Of a batch of B samples a source of weight w earns B w. It is given the floor of that at once. What the
floors leave over goes, one sample each, to those sources with a fractional part that are owed most: what
they have earned so far less what they were given, ties to the first. So in every batch |c_i - B w_i| < 1,
counts sum to B, and a source of weight 0 gives nothing. With two sources of constant weights the first has
floor(n B w + 1/2) samples after n batches.

Drift. What a source is owed is carried over every change of weights. Where all sources have a fractional
part, this is the greedy strategy of the multi-processor cup game, which leaves O(log sources) samples
unsettled (Kuszmaul, SODA 2020). Where the weights also choose which sources have one, it is the carpool
problem of Ajtai et al. ("Fairness in scheduling", J. Algorithms 29, 1998): weights made against it can
bring greedy to about half a sample for each source, however long the run; weights that know nothing of it
leave about one.

A source may be limited. When fewer samples are left than a batch could ask of it, it is dry: the batches
end there, or it takes no part any more and the others share its weight.

All counting is in whole numbers, in units of 2^-40 samples, so it is exact and the same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

ONE = 1 << 40  # the whole of all weights
STRIDE = 512  # batches between two states that are kept; a jump back costs so many at most

Weights = tuple[float, ...]


@dataclass(frozen=True)
class State:
    """What there is to know before a batch; one entry per source.

    Attributes:
        given: samples of all batches so far.
        owed: earned less given, in samples / ONE.
        dry: since which batch a source gives nothing more, None for those that still do.
        ended: whether no further batch can be filled.
    """

    given: tuple[int, ...]
    owed: tuple[int, ...]
    dry: tuple[int | None, ...]
    ended: bool = False


@lru_cache(maxsize=256)
def earned(weights: Weights, batch_size: int) -> tuple[int, ...]:
    """What each source earns of a batch, in samples / ONE; 0 stays 0.

    What rounding leaves over of the batch goes to the largest of those that earn no whole number, so that
    whole numbers stay whole.
    """
    total = math.fsum(weights)
    parts = [round(batch_size * (weight / total) * ONE) for weight in weights]
    if over := batch_size * ONE - sum(parts):
        broken = [i for i, part in enumerate(parts) if part % ONE] or range(len(parts))
        parts[max(broken, key=lambda i: parts[i])] += over
    return tuple(parts)


class Quota:
    """Samples by source, as a function of the weights of all batches so far.

    Args:
        batch_size: B.
        weights: of the batch of a step, one per source, relative to each other.
        limits: most samples of each source; None for those that never run dry.
        redistribute: a dry source leaves its weight to the others; otherwise the batches end with it.
    """

    def __init__(
        self,
        batch_size: int,
        weights: Callable[[int], Weights],
        limits: Sequence[int | None],
        *,
        redistribute: bool = False,
    ) -> None:
        self.batch_size = batch_size
        self.limits = tuple(limits)
        self._weights = weights
        self._redistribute = redistribute
        nothing = (0,) * len(self.limits)
        self._anchors = [State(nothing, nothing, (None,) * len(self.limits))]
        self._first, self._states = 0, self._anchors[:]  # consecutive states from batch `_first` on

    def state(self, step: int) -> State:
        """The state before the batch of a step; batches after the end change nothing."""
        anchor = min(step // STRIDE, len(self._anchors) - 1)
        if step < self._first or self._first + len(self._states) <= anchor * STRIDE:
            self._first, self._states = anchor * STRIDE, [self._anchors[anchor]]
        while (done := self._first + len(self._states)) <= step:
            state = self._after(done - 1, self._states[-1])
            self._states.append(state)
            if done % STRIDE == 0:
                self._first, self._states = done, [state]
                if done == len(self._anchors) * STRIDE:
                    self._anchors.append(state)
        return self._states[step - self._first]

    def earned(self, step: int) -> tuple[int, ...]:
        """What each source earns of the batch of a step, in samples / ONE; all 0 after the end."""
        return self._open(step, self.state(step))[1]

    def forget(self, step: int) -> None:
        """The weights from `step` on are others than they were."""
        del self._anchors[step // STRIDE + 1 :]
        self._first, self._states = (len(self._anchors) - 1) * STRIDE, self._anchors[-1:]

    def _after(self, step: int, before: State) -> State:
        dry, parts = self._open(step, before)
        if not any(parts):
            return State(before.given, before.owed, dry, ended=True)
        counts = [part // ONE for part in parts]
        owed = [old + part - count * ONE for old, part, count in zip(before.owed, parts, counts, strict=True)]
        asking = sorted((i for i, part in enumerate(parts) if part % ONE), key=lambda i: -owed[i])
        for i in asking[: self.batch_size - sum(counts)]:
            counts[i] += 1
            owed[i] -= ONE
        given = tuple(old + count for old, count in zip(before.given, counts, strict=True))
        return State(given, tuple(owed), dry)

    def _open(self, step: int, before: State) -> tuple[tuple[int | None, ...], tuple[int, ...]]:
        """Which sources are dry at a step, and what the others earn."""
        nothing = (0,) * len(self.limits)
        if before.ended:
            return before.dry, nothing
        weights, dry = self._weights(step), before.dry
        while True:
            taking = tuple(0.0 if since is not None else w for w, since in zip(weights, dry, strict=True))
            if not any(taking):
                return dry, nothing
            parts = earned(taking, self.batch_size)
            short = {
                i
                for i, limit in enumerate(self.limits)
                if limit is not None and -(-parts[i] // ONE) > limit - before.given[i]
            }
            if not short:
                return dry, parts
            dry = tuple(step if i in short else since for i, since in enumerate(dry))
            if not self._redistribute:
                return dry, nothing
