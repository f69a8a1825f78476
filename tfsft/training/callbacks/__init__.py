"""What happens beside the steps of a phase, one concern a file."""

from tfsft.training.callbacks.best import KeepBest
from tfsft.training.callbacks.checkpointer import Checkpointer
from tfsft.training.callbacks.history import History
from tfsft.training.callbacks.loss_check import LossCheck
from tfsft.training.callbacks.progress import ProgressDisplay
from tfsft.training.callbacks.speed import Speed
from tfsft.training.callbacks.step_limit import StepLimit
from tfsft.training.callbacks.tensorboard import TensorBoard

__all__ = [
    "Checkpointer",
    "History",
    "KeepBest",
    "LossCheck",
    "ProgressDisplay",
    "Speed",
    "StepLimit",
    "TensorBoard",
]
