"""A live display of a phase: epoch, step, loss, accuracy, examples a second, time left."""

import time

import keras

from tfsft.evaluation.wording import duration
from tfsft.training.console import Console


class ProgressDisplay(keras.callbacks.Callback):
    """Draws a bar for the running epoch and leaves one line for each that is done.

    Args:
        console: Where to draw; a line each minute when nobody watches.
        phase: Name of the phase.
        batch_size: Examples in a global batch.
        train_size: Examples in an epoch.
    """

    def __init__(self, console: Console, phase: str, batch_size: int, train_size: int):
        super().__init__()
        self.console = console
        self.phase = phase
        self.batch_size = batch_size
        self.train_size = train_size
        self.first_step = 0
        self._bar = None

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Opens the epoch's bar."""
        epochs = self.params["epochs"]
        self._bar = self.console.bar(f"{self.phase} {epoch + 1}/{epochs}", "steps")
        self._update = self._bar.__enter__()
        self._start = time.monotonic()
        self._examples = 0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Moves the bar."""
        self._examples += self.batch_size

        def text() -> str:
            rate = self._examples / (time.monotonic() - self._start)
            return f"· {_figures(logs)} · {rate:,.0f} examples/s ·"

        self._update(self.first_step + batch + 1, self.params["steps"], text)

    def on_test_begin(self, logs: dict | None = None) -> None:
        """The rate of examples is that of training alone."""
        self._trained = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Leaves a line."""
        self._close()
        now = time.monotonic()
        epochs = self.params["epochs"]
        rate = self._examples / max(getattr(self, "_trained", now) - self._start, 1e-9)
        left = (epochs - epoch - 1) * (now - self._start)
        line = f"{self.phase} {epoch + 1}/{epochs} · {_figures(logs)} · {rate:,.0f} examples/s"
        if left and not self.model.stop_training:
            line += f" · {duration(left)} left"
        self.first_step = 0
        self.console.say(line)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Closes what is open."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None

    def close(self) -> None:
        """Takes the bar off the screen when training ends in the middle of an epoch."""
        self._close()


def _figures(logs: dict | None) -> str:
    """The loss and the first metric, in training and validation; history.csv has all of them."""
    names = list(logs or {})
    metric = next((n for n in names if n != "loss" and not n.startswith("val_")), "")
    shown = [n for n in ("loss", metric, "val_loss", f"val_{metric}") if n in names]
    return " · ".join(f"{name} {float(logs[name]):.4g}" for name in shown)
