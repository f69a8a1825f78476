"""Keeps the best weights of a phase, and stops a phase that no longer gets better."""

import keras
import numpy as np

from tfsft.evaluation.metrics import falls
from tfsft.training.checkpoints import frozen, restore, state_of


class KeepBest(keras.callbacks.Callback):
    """Puts the weights of the best epoch back at the end of a phase.

    With a moving average of the weights it is the average that is judged and kept. Without
    validation data there
    is nothing to judge by: the last weights stay.

    Args:
        monitor: Name in the logs of an epoch; `evaluation.metrics.falls` says which way is better.
        patience: Epochs without a better value until the phase ends; None trains them all.
    """

    def __init__(self, monitor: str = "val_loss", patience: int | None = None):
        super().__init__()
        self.monitor = monitor
        self.patience = patience
        self.best: float | None = None
        self.best_epoch: int | None = None
        self.waited = 0
        self.stopped = False
        self.weights: dict[str, np.ndarray] = {}

    def state(self) -> dict:
        """What a resumed phase needs besides the weights."""
        names = ("best", "best_epoch", "waited", "stopped")
        return {name: getattr(self, name) for name in names}

    def load_state(self, state: dict) -> None:
        """Takes over what `state` returned."""
        for name, value in state.items():
            setattr(self, name, value)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Judges the epoch."""
        value = (logs or {}).get(self.monitor)
        if value is None:
            return
        value = float(value)
        smaller = falls(self.monitor)
        if np.isfinite(value) and (
            self.best is None or (value < self.best if smaller else value > self.best)
        ):
            self.best, self.best_epoch, self.waited = value, epoch, 0
            self.weights = self._snapshot()
            return
        self.waited += 1
        if self.patience is not None and self.waited >= self.patience:
            self.stopped = True
            self.model.stop_training = True

    def on_train_end(self, logs: dict | None = None) -> None:
        """Puts the best weights back."""
        if self.weights:
            self.put_back(self.model.model)

    def put_back(self, model: keras.Model) -> None:
        """Sets what was trained of a model to its best values."""
        restore("best", model.weights, self.weights, frozen(model))

    def _snapshot(self) -> dict[str, np.ndarray]:
        model = self.model.model
        left_out = frozen(model)
        snapshot = state_of("best", model.weights, left_out)
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        if optimizer.use_ema:
            kept = (weight for weight in model.weights if id(weight) not in left_out)
            keys = dict(zip((v.path for v in kept), snapshot, strict=True))
            averages = optimizer._model_variables_moving_average
            for variable, average in zip(optimizer._trainable_variables, averages, strict=True):
                snapshot[keys[variable.path]] = np.array(average)
        return snapshot
