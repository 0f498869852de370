"""The learning rate as a pure function of the step.

Cosine decay follows Loshchilov & Hutter (arXiv 1608.03983, equation 5, without restarts);
warmup-stable-decay is that of MiniCPM (arXiv 2404.06395, section 4) with a linear fall.
"""

from __future__ import annotations

import math

from workbench.recipe.schema import Schedule


def learning_rate(step: int, steps: int, peak: float, schedule: Schedule) -> float:
    """Rate of the update that turns step `step` into `step + 1`.

    The last warm-up step and all steps of the plateau have the peak; the last step of a decay has
    `schedule.final` of it.

    Args:
        step: updates done so far, 0 .. steps - 1.
        steps: updates of the whole stage.
        peak: highest rate.
        schedule: kind and shares of warm-up and decay.

    Raises:
        ValueError: `step` lies outside of the stage.
    """
    if not 0 <= step < steps:
        raise ValueError(f"step {step} is outside of 0 .. {steps - 1}")
    warmup = round(schedule.warmup * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule.kind == "constant":
        return peak
    decay = (
        steps - warmup if schedule.kind == "cosine" else min(round(schedule.decay * steps), steps - warmup)
    )
    fallen = step + 1 - (steps - decay)  # steps of the decay that are done with this one, 0 .. decay
    if fallen <= 0:
        return peak
    share = fallen / decay
    if schedule.kind == "cosine":
        return peak * (schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * share)) / 2)
    return peak * (1 - (1 - schedule.final) * share)
