"""How fast a phase learns."""

import time
from collections.abc import Callable

import keras


class Speed(keras.callbacks.Callback):
    """Counts what is learned in training steps, and the seconds these take.

    Of `seconds` and `learned` the first step, in which the graph is traced, is no part, nor is
    validation. Weights are counted, so it is tokens where tokens are learned, and filler never
    counts. `first_seconds` are those of the first step.

    Args:
        first_step: Called at the end of the first step.
    """

    def __init__(self, first_step: Callable[[], None]):
        super().__init__()
        self.learned = 0.0
        self.seconds = self.first_seconds = 0.0
        self._first_step = first_step
        self._seen: float | None = None  # of this epoch, which may have begun before a resume

    @property
    def per_second(self) -> float | None:
        """What was learned in a second; None after a single step."""
        return self.learned / self.seconds if self.seconds else None

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Counts from zero, as the metrics do."""
        if self._seen is not None:
            self._seen = 0.0

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Starts the clock."""
        self._start = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Reads the clock, and the sum of weights that the mean loss is over."""
        seconds = time.monotonic() - self._start
        seen = float(self.model.read([self.model._loss_tracker.count])[0])
        if self._seen is None:
            self.first_seconds = seconds
            self._first_step()
        else:
            self.learned += seen - self._seen
            self.seconds += seconds
        self._seen = seen
