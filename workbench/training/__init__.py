"""Training: one loop on DeepSpeed for every stage that changes weights by gradients.

A method is a penalty, a mixture or a set of trainable parameters handed to `train`, never a copy of
it. The loop is in `loop.py`; the other files hold what it names.
"""

from workbench.training.launch import launch
from workbench.training.loop import TrainingResult, train
from workbench.training.processes import is_first_process
from workbench.training.schedule import learning_rate

__all__ = ["TrainingResult", "is_first_process", "launch", "learning_rate", "train"]
