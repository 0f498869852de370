"""Training: one loop on DeepSpeed for every stage that changes weights by gradients.

A method is a penalty, a mixture or a set of trainable parameters handed to `train`, never a copy of
it. The loop is in `loop.py`; the other files hold what it names.
"""

from workbench.training.anchor import Anchor
from workbench.training.launch import command, launch
from workbench.training.loop import TrainingResult, train
from workbench.training.objective import Penalty, in_pieces, summed_cross_entropy
from workbench.training.probes import Probe, probe_steps
from workbench.training.processes import is_first_process
from workbench.training.schedule import learning_rate
from workbench.training.steering import Steering

__all__ = [
    "Anchor",
    "Penalty",
    "Probe",
    "Steering",
    "TrainingResult",
    "command",
    "in_pieces",
    "is_first_process",
    "launch",
    "learning_rate",
    "probe_steps",
    "summed_cross_entropy",
    "train",
]
