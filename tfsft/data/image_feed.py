"""The batches of a picture source: decoded once if that fits in memory, on the way if not."""

import re
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfsft.data.augment import Augmenter
from tfsft.data.images import resize
from tfsft.data.pipeline import Pipeline, as_planned
from tfsft.data.plan import BatchPlan
from tfsft.data.sources import ImageSource
from tfsft.errors import UserError

MAX_BAD_SHARE = 0.1
UNREADABLE = "unreadable picture: "


class ImageFeed:
    """Makes the pipelines of one picture source; decodes it once if it fits in memory, on the way
    if not.

    Args:
        source: Labelled pictures.
        image_size: Height and width of the network's input, in pixels.
        memory: Bytes that decoded pictures may take.
        on_bad: "stop" raises at the first pictures that cannot be decoded; "skip" gives them weight
            zero.
        progress: Called with (done, total) while pictures are decoded.
    """

    def __init__(
        self,
        source: ImageSource,
        image_size: int,
        *,
        memory: int = 2 << 30,
        on_bad: str = "stop",
        progress: Callable[[int, int], None] | None = None,
    ):
        self.source = source
        self.image_size = image_size
        self.on_bad = on_bad
        self.progress = progress
        self.fits = len(source) * image_size * image_size * 3 <= memory
        self.bad_rows = np.array([], np.int64)  # known once decoded
        self._decoded = None

    def pipeline(
        self,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = False,
        augmenter: Augmenter | None = None,
        weights: np.ndarray | None = None,
        balance: np.ndarray | None = None,
    ) -> Pipeline:
        """Returns the batches of this source: uint8 `[batch, image_size, image_size, 3]`, targets,
        weights.
        """

        @tf.autograph.experimental.do_not_convert
        def load(row, seed):  # noqa: ANN001
            image, ok = self._picture(row)
            return (image if augmenter is None else augmenter.image(image, seed)), ok

        def fetch(rows: np.ndarray, seeds: np.ndarray) -> tf.data.Dataset:
            if self.fits and self._decoded is None:
                self._decode()
            if augmenter is None and self._decoded is not None:
                return tf.data.Dataset.from_tensor_slices(rows).map(self._picture)
            examples = tf.data.Dataset.from_tensor_slices((rows.reshape(-1), seeds.reshape(-1, 2)))
            examples = examples.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
            return examples.batch(rows.shape[1], drop_remainder=True)

        labels = self.source.labels
        return Pipeline(
            BatchPlan(len(self.source), batch_size, seed=seed, shuffle=shuffle, balance=balance),
            labels
            if self.source.class_names
            else labels[:, None],  # a number is an output of width one
            fetch,
            num_classes=len(self.source.class_names),
            weights=weights,
            finish=augmenter.batch if augmenter is not None and augmenter.mixes else None,
            examples=self if augmenter is None else None,
        )

    @tf.autograph.experimental.do_not_convert
    def _picture(self, row):  # noqa: ANN001
        if self._decoded is not None:
            images, ok = self._decoded
            return tf.gather(images, row), tf.gather(ok, row)
        image, ok = self._read(row)
        if self.on_bad == "stop":
            ok = tf.cond(
                ok,
                lambda: True,
                lambda: tf.numpy_function(self._refuse, [row], tf.bool, stateful=False),
            )
            ok = tf.ensure_shape(ok, [])
        return image, ok

    def _refuse(self, row: np.ndarray) -> bool:
        raise ValueError(f"{UNREADABLE}{self.source.ids[row]}")

    def _read(self, row):  # noqa: ANN001
        image, ok = self.source.image(row)
        return resize(image, self.image_size), ok

    def _decode(self) -> None:
        size, total = self.image_size, len(self.source)
        parts, readable = [np.empty((0, size, size, 3), np.uint8)], [np.empty(0, bool)]
        rows = tf.data.Dataset.range(total)
        rows = rows.map(self._read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        done = 0
        if self.progress is not None:
            self.progress(0, total)
        for batch, ok in as_planned(rows.batch(64)):
            parts.append(batch)
            readable.append(ok)
            done += len(batch)
            if self.progress is not None:
                self.progress(done, total)
        self.bad_rows = np.flatnonzero(~np.concatenate(readable))
        if len(self.bad_rows) > (MAX_BAD_SHARE * total if self.on_bad == "skip" else 0):
            raise unreadable([self.source.ids[row] for row in self.bad_rows], total)
        with tf.device("CPU"):
            self._decoded = tf.concat(parts, 0), tf.concat(readable, 0)


def unreadable(names: list[str], total: int | None = None) -> UserError:
    """Returns the error for pictures whose content cannot be decoded."""
    count = f"{len(names)} of {total} pictures" if total else "A picture"
    return UserError(
        f"{count} cannot be decoded: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}",
        "Every picture must be readable; with --on-bad skip, up to one in ten may be bad.",
        "Repair or remove these files (`tfsft check` lists all of them), or add --on-bad skip.",
    )


def explain_unreadable(error: BaseException) -> UserError | None:
    """Returns what a person should read when a pipeline met a picture it could not decode, else
    None.
    """
    found = re.search(rf"{UNREADABLE}(.*)", str(error))
    if not isinstance(error, tf.errors.InvalidArgumentError) or found is None:
        return None
    return unreadable([found[1]])
