"""Ends a phase after a number of updates."""

import keras


class StepLimit(keras.callbacks.Callback):
    """Stops training once the optimizer has made `updates` updates, in the middle of an epoch if
    need be.
    """

    def __init__(self, updates: int):
        super().__init__()
        self.updates = updates

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Counts by the optimizer, which also counts over a resume."""
        if int(self.model.optimizer.iterations.numpy()) >= self.updates:
            self.model.stop_training = True
