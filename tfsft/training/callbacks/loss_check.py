"""Stops a training whose loss is no longer a number."""

import math
from typing import TYPE_CHECKING

import keras

from tfsft.errors import LOSS_BROKE, UserError

if TYPE_CHECKING:
    from tfsft.training.run import Phase


class LossCheck(keras.callbacks.Callback):
    """Raises at the first step whose loss is not finite; must come before anything that saves.

    Args:
        phase: For its name, and to keep the last good weights.
    """

    def __init__(self, phase: "Phase"):
        super().__init__()
        self.phase = phase
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Remembers where training is."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Looks at the loss."""
        loss = (logs or {}).get("loss")
        if loss is None or math.isfinite(loss):
            return
        kept = self.phase.keep_best_model()
        raise UserError(
            f"{LOSS_BROKE} {float(loss)} in phase '{self.phase.name}', epoch {self._epoch + 1}, "
            f"step {self.phase.checkpointer.first_step + batch + 1}.",
            "A loss must stay a number: the learning rate is probably too high, or a label or "
            "picture is broken.",
            "Start again with a smaller --learning-rate or with --clip-norm 1; "
            + (
                f"the last good weights are in {kept}." if kept else "no epoch was finished before."
            ),
        )
