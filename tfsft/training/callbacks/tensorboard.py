"""Curves and pictures for TensorBoard, keyed on the optimizer's updates so that they go on over a
resume.
"""

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfsft.evaluation import plots
from tfsft.training.optimizers import current_rate

POINTS_PER_EPOCH = 50


class TensorBoard(keras.callbacks.Callback):
    """Writes loss, metrics, learning rate and examples a second, per step and per epoch.

    Per-step curves show each batch by itself: Keras's own logs are running means of the epoch.

    Args:
        folder: Gets `train/` and `validation/`.
        batch_size: Examples in a global batch.
        steps: Steps in an epoch.
        offset: Updates of the phases before.
        class_names: For the confusion matrix; empty where there is none.
    """

    def __init__(
        self,
        folder: Path,
        batch_size: int,
        steps: int,
        offset: int = 0,
        class_names: tuple[str, ...] = (),
    ):
        super().__init__()
        self.folder = folder
        self.batch_size = batch_size
        self.every = max(1, steps // POINTS_PER_EPOCH)
        self.offset = offset
        self.class_names = class_names
        self._last: dict[str, tuple[float, float]] = {}
        self._resumed: dict | None = None
        self._train = self._validation = None

    @property
    def updates(self) -> int:
        """Updates of the whole run so far."""
        return self.offset + int(self.model.optimizer.iterations.numpy())

    def state(self) -> dict:
        """Where the means of the step curves were written last."""
        return self._last

    def load_state(self, state: dict) -> None:
        """Takes over what `state` returned."""
        self._resumed = {name: tuple(values) for name, values in state.items()}

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Opens the files."""
        self._train, self._validation = self._open("train"), self._open("validation")

    def _open(self, part: str) -> tf.summary.SummaryWriter:
        with _without_failing():
            return tf.summary.create_file_writer(str(self.folder / part))
        return tf.summary.create_noop_writer()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Starts the epoch's means anew, or goes on with those of an interrupted epoch."""
        self._last, self._resumed = self._resumed or {}, None
        self._started = self._step_time = time.monotonic()
        self._steps = 0
        self._trained = None

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Writes the step's own values."""
        self._steps += 1
        updates = self.updates
        if updates % self.every:
            return
        totals = self._totals()
        now = time.monotonic()
        with _without_failing(), self._train.as_default(step=updates):
            for name, (total, count) in totals.items():
                before, count_before = self._last.get(name, (0.0, 0.0))
                if count > count_before:
                    tf.summary.scalar(f"step/{name}", (total - before) / (count - count_before))
            tf.summary.scalar("step/learning_rate", current_rate(self.model.optimizer))
            rate = self.every * self.batch_size / max(now - self._step_time, 1e-9)
            tf.summary.scalar("step/examples_per_second", rate)
        self._last, self._step_time = totals, now

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Training time ends here."""
        self._trained = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Writes the epoch's values and the confusion matrix of its validation."""
        seconds = (self._trained or time.monotonic()) - self._started
        with _without_failing():
            self._write_epoch(logs or {}, seconds)

    def _write_epoch(self, logs: dict, seconds: float) -> None:
        updates = self.updates
        for name, value in logs.items():
            writer = self._validation if name.startswith("val_") else self._train
            with writer.as_default(step=updates):
                tf.summary.scalar(f"epoch/{name.removeprefix('val_')}", value)
        with self._train.as_default(step=updates):
            tf.summary.scalar("epoch/learning_rate", current_rate(self.model.optimizer))
            rate = self._steps * self.batch_size / max(seconds, 1e-9)
            tf.summary.scalar("epoch/examples_per_second", rate)
        matrix = self._confusion_matrix()
        if matrix is not None and any(name.startswith("val_") for name in logs):
            figure = plots.confusion_matrix(matrix, self.class_names)
            with self._validation.as_default(step=updates):
                tf.summary.image("confusion matrix", _pixels(plots.to_png(figure)))

    def on_train_end(self, logs: dict | None = None) -> None:
        """Closes the files."""
        self.close()

    def flush(self) -> None:
        """Hands what is still in memory to the files."""
        with _without_failing():
            for writer in (self._train, self._validation):
                writer.flush()

    def close(self) -> None:
        """Writes what is still in memory."""
        for writer in (self._train, self._validation):
            if writer is not None:
                with _without_failing():
                    writer.close()

    def _totals(self) -> dict[str, tuple[float, float]]:
        """Sum and weight so far in the epoch of every metric that is a mean."""
        metrics = [m for m in _flat(self.model.metrics) if isinstance(m, keras.metrics.Mean)]
        values = iter(self.model.read([part for m in metrics for part in (m.total, m.count)]))
        return {m.name: (float(next(values)), float(next(values))) for m in metrics}

    def _confusion_matrix(self) -> np.ndarray | None:
        for metric in _flat(self.model.metrics):
            if hasattr(metric, "matrix") and self.class_names:
                return metric.matrix.numpy().astype(int)
        return None


def _without_failing() -> AbstractContextManager:
    """Curves that cannot be written, on a full disk say, end no training."""
    return suppress(tf.errors.OpError)


def _flat(metrics: list) -> list:
    """Metrics with those that Keras keeps in containers."""
    return [inner for m in metrics for inner in (m.metrics if hasattr(m, "metrics") else [m])]


def _pixels(png: bytes) -> np.ndarray:
    return tf.io.decode_png(png, channels=3)[None]


def write_images(folder: Path, step: int, images: dict[str, bytes]) -> None:
    """Writes PNG pictures by their tags, each instead of what was there of that tag and step."""
    for tag, png in images.items():
        with _page(folder, step, tag):
            tf.summary.image(tag, _pixels(png))


def write_texts(folder: Path, step: int, texts: dict[str, str]) -> None:
    """Writes Markdown by its tags, each instead of what was there of that tag and step."""
    for tag, text in texts.items():
        with _page(folder, step, tag):
            tf.summary.text(tag, text)


@contextmanager
def _page(folder: Path, step: int, tag: str) -> Iterator[None]:
    """Opens a file for one page alone, as a run that goes on may write it once more."""
    suffix = f".{re.sub('[^a-z0-9]+', '-', tag.lower())}-{step}"
    for old in folder.glob(f"events.*{suffix}"):
        old.unlink()
    writer = tf.summary.create_file_writer(str(folder), filename_suffix=suffix)
    with writer.as_default(step=step):
        yield
    writer.close()


def write_hyperparameters(folder: Path, settings: dict, metrics: dict[str, float]) -> None:
    """Writes a run's settings and final metrics for the HParams page, which compares runs."""
    from tensorboard.plugins.hparams import api

    for old in folder.glob("events.*"):
        old.unlink()
    writer = tf.summary.create_file_writer(str(folder))
    plain = {
        k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in settings.items()
    }
    with writer.as_default(step=0):
        api.hparams_config(
            hparams=[api.HParam(name) for name in plain],
            metrics=[api.Metric(name) for name in metrics],
        )
        api.hparams(plain)
        for name, value in metrics.items():
            tf.summary.scalar(name, value)
    writer.close()


def event_lengths(folder: Path) -> dict[str, int]:
    """Returns how many bytes each event file below a folder has, by its path in there."""
    files = sorted(folder.rglob("events.*"))
    return {str(path.relative_to(folder)): path.stat().st_size for path in files}


def cut_events(folder: Path, lengths: Mapping[str, int]) -> None:
    """Removes what was written after `event_lengths` returned `lengths`."""
    for path in folder.rglob("events.*"):
        length = lengths.get(str(path.relative_to(folder)))
        if length is None:
            path.unlink()
        elif path.stat().st_size > length:
            os.truncate(path, length)
