"""How fast the products are, beside bf16 and other packages, on the device at hand.

Correctness comes first: what does not agree with the reference gets no time. `run` measures, `report`
draws.
"""

from lowbit.bench.protocol import Plan, plan_for, run
from lowbit.bench.report import write

__all__ = ["Plan", "plan_for", "run", "write"]
