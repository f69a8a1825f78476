"""Saves the whole state of a phase: now and then, when it ends, and when somebody stops the run."""

import time
from typing import TYPE_CHECKING

import keras

from tfsft.errors import Stopped
from tfsft.training.checkpoints import restore, state_of

if TYPE_CHECKING:
    from tfsft.training.run import Phase


class Checkpointer(keras.callbacks.Callback):
    """Comes last among a phase's callbacks, so that what it saves includes what the others did.

    Args:
        phase: Whose state is saved.
        seconds: Least time between two saves that nobody asked for.
    """

    def __init__(self, phase: "Phase", seconds: float = 60.0):
        super().__init__()
        self.phase = phase
        self.seconds = seconds
        self.first_step = 0
        self.epoch = 0
        self.metrics: dict | None = None  # to be put back once the first epoch has begun
        self._saved_at = time.monotonic()

    def on_train_begin(self, logs: dict | None = None) -> None:
        """From now on a signal waits for the end of a step."""
        self.phase.run.signals.wait_for_step = True

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Puts half an epoch's metrics back when the phase goes on in the middle of one."""
        self.epoch = epoch
        if self.metrics is not None:
            restore("metrics", self.model.metrics_variables, self.metrics)
            self.metrics = None

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Saves between two steps; after the last of an epoch, once it is validated."""
        step = self.first_step + batch + 1
        if step < self.phase.steps and (self.phase.run.signals.received or self._is_time()):
            self.save(self.epoch, step)
            self._stop_if_asked()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Saves between two epochs."""
        self.first_step = 0
        last = epoch + 1 >= self.phase.epochs or self.model.stop_training
        if last or self.phase.run.signals.received or self._is_time():
            self.save(epoch + 1, 0)
            self._stop_if_asked()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Marks the phase as finished."""
        self.phase.finish()
        self.phase.run.signals.wait_for_step = False

    def save(self, epoch: int, step: int) -> None:
        """Writes a checkpoint from which epoch `epoch` goes on with step `step`."""
        phase, tuner = self.phase, self.model
        arrays = (
            phase.run.model_state()
            | state_of("optimizer", tuner.optimizer.variables)
            | state_of("metrics", tuner.metrics_variables)
            | phase.best.weights
        )
        phase.run.save_checkpoint(arrays, phase.facts(epoch, step))
        self._saved_at = time.monotonic()

    def _is_time(self) -> bool:
        return time.monotonic() - self._saved_at >= self.seconds

    def _stop_if_asked(self) -> None:
        number = self.phase.run.signals.received
        if number:
            raise Stopped(number, self.phase.run.resume_command)
