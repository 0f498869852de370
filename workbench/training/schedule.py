"""The learning rate as a pure function of the step.

Cosine decay follows Loshchilov & Hutter (arXiv 1608.03983, equation 5, without restarts), re-warmed from
the rate that a training before it ended with (Ibrahim et al., arXiv 2403.08763). Warmup-stable-decay is
that of MiniCPM (arXiv 2404.06395, section 4), with the shapes of the fall of Haegele et al. (arXiv
2405.18392). The infinite schedule is that of Ibrahim et al.: a cosine cool-down to a plateau that can go on
for ever, and an exponential fall at the end.
"""

from __future__ import annotations

import math
from typing import Literal

from workbench.recipe.training import Schedule


def learning_rate(step: int, steps: int, peak: float, schedule: Schedule) -> float:
    """Rate of the update that turns step `step` into `step + 1`.

    The last warm-up step and all steps of a wsd plateau have the peak; the last step of a fall has
    `schedule.final` of it.

    Args:
        step: updates done so far, 0 .. steps - 1.
        steps: updates of the whole stage.
        peak: highest rate, unless the warm-up starts above it.
        schedule: kind and shares of its parts; `start` is a number by now.

    Raises:
        ValueError: `step` lies outside of the stage.
    """
    if not 0 <= step < steps:
        raise ValueError(f"step {step} is outside of 0 .. {steps - 1}")
    assert schedule.start != "last"
    warmup = round(schedule.warmup * steps)
    if step < warmup:
        return peak * (schedule.start + (1 - schedule.start) * (step + 1) / warmup)
    if schedule.kind == "constant":
        return peak
    rest = steps - warmup
    decay = rest if schedule.kind == "cosine" else min(round(schedule.decay * steps), rest)
    fallen = step + 1 - (steps - decay)  # steps of the fall that are done with this one; above 0 in it
    if schedule.kind == "cosine":
        return peak * _fall(fallen / decay, 1.0, schedule.final, "cosine")
    if schedule.kind == "wsd":
        return peak * (_fall(fallen / decay, 1.0, schedule.final, schedule.shape) if fallen > 0 else 1.0)
    if fallen > 0:
        return peak * _fall(fallen / decay, schedule.plateau, schedule.final, "exponential")
    cooldown = min(round(schedule.cooldown * steps), rest - decay)
    cooled = min((step + 1 - warmup) / cooldown, 1.0) if cooldown else 1.0
    return peak * _fall(cooled, 1.0, schedule.plateau, "cosine")


def _fall(
    share: float, high: float, low: float, shape: Literal["linear", "cosine", "sqrt", "exponential"]
) -> float:
    """From `high`, where 0 of the way is done, to `low` at 1."""
    if shape == "exponential":
        return high * math.pow(low / high, share)
    left = {
        "linear": 1 - share,
        "cosine": (1 + math.cos(math.pi * share)) / 2,
        "sqrt": 1 - math.sqrt(share),
    }[shape]
    return low + (high - low) * left
