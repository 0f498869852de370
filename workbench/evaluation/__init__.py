"""Evaluation: batteries of lm-eval tasks and held-out texts, measured item by item on any loaded model.

`load_battery` and `check_battery` need neither torch nor lm-eval; what does is imported when it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from workbench.evaluation.battery import Battery, battery_identity, check_battery, load_battery
from workbench.evaluation.measurement import Measurement, pool, read, value

if TYPE_CHECKING:
    from workbench.evaluation.harness import Harness, evaluate
    from workbench.evaluation.probe import Probe

__all__ = [
    "Battery",
    "Harness",
    "Measurement",
    "Probe",
    "battery_identity",
    "check_battery",
    "evaluate",
    "load_battery",
    "pool",
    "read",
    "value",
]

_HEAVY = {"Harness": "harness", "evaluate": "harness", "Probe": "probe"}


def __getattr__(name: str) -> Any:
    if name in _HEAVY:
        return getattr(import_module(f"{__name__}.{_HEAVY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
