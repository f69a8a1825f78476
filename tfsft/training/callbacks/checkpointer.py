"""Saves the whole state of a phase: now and then, when it ends, and when somebody stops the run."""

import time
from typing import TYPE_CHECKING

import keras

from tfsft.training.checkpoints import restore, state_of

if TYPE_CHECKING:
    from tfsft.training.run import Phase

SAVE, STOP = 1, 2  # asks for a checkpoint, and to stop after it; above that, by which signal


class Checkpointer(keras.callbacks.Callback):
    """Comes last among a phase's callbacks, so that what it saves includes what the others did.

    Args:
        phase: Whose state is saved.
    """

    def __init__(self, phase: "Phase"):
        super().__init__()
        self.phase = phase
        self.run = phase.run
        self.first_step = 0
        self.epoch = 0
        self.metrics: dict | None = None  # to be put back once the first epoch has begun
        self._steps = 0  # since the last save
        self._saved_at = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Puts half an epoch's metrics back when the phase goes on in the middle of one."""
        self.run.signals.wait_for_step = True
        self.epoch = epoch
        if self.metrics is not None:
            restore("metrics", self.model.metrics_variables, self.metrics)
            self.metrics = None

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Saves between two steps; after the last of an epoch, once it is validated."""
        self._steps += 1
        step = self.first_step + batch + 1
        if step < self.phase.steps and not self.model.stop_training:
            self._save_if_due(self.epoch, step)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Saves between two epochs."""
        self.first_step = 0
        last = epoch + 1 >= self.phase.epochs or self.model.stop_training
        self._save_if_due(epoch + 1, 0, is_due=last)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Marks the phase as finished."""
        self.phase.finish()
        self.run.signals.wait_for_step = False
        self._stop_if(self.run.workers.agree(self._asked()))

    def save(self, epoch: int, step: int) -> None:
        """Copies the state, and begins to write a checkpoint from which epoch `epoch` goes on with
        step `step`.
        """
        self.run.saver.wait()  # before copying, so that there is one copy at a time
        phase, tuner = self.phase, self.model
        arrays = (
            self.run.model_state()
            | state_of("optimizer", tuner.optimizer.variables)
            | state_of("metrics", tuner.metrics_variables)
        )
        self.run.save_checkpoint(arrays, phase.facts(epoch, step), phase.best.weights)
        self._steps, self._saved_at = 0, time.monotonic()

    def _save_if_due(self, epoch: int, step: int, is_due: bool = False) -> None:
        asked = self.run.workers.agree(self._asked())  # what one is asked for, all do
        if asked or is_due:
            self.save(epoch, step)
        self._stop_if(asked)

    def _asked(self) -> int:
        signals = self.run.signals
        if signals.asked:
            return STOP + (signals.received or 0)
        return SAVE if self.run.workers.is_chief and self._is_time() else 0

    def _stop_if(self, asked: int) -> None:
        if asked >= STOP:
            self.run.saver.wait()
            self.run.signals.stop(asked - STOP or None)

    def _is_time(self) -> bool:
        if not self.run.saver.ready:
            return False
        self.run.saver.wait()  # for what went wrong
        seconds = time.monotonic() - self._saved_at
        steps = self.run.checkpoint_steps
        return seconds >= self.run.checkpoint_seconds or (
            steps is not None and self._steps >= steps
        )
