"""Random access to labelled pictures, wherever their bytes lie."""

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import tensorflow as tf

from tfsft.data.images import decode_image, inspect_image

MAX_FILE_BYTES = 1 << 30  # larger than any photograph; reading more could exhaust the memory
ROWS_PER_JOB = 32


class Storage(Protocol):
    """Where pictures lie; rows are numbered from 0."""

    def __len__(self) -> int: ...

    def check(self, row: int) -> tuple[str, str | None]:
        """Reads one picture; returns its content hash and what is wrong with it, or None."""

    def image(self, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Decodes one picture in graph: (uint8 `[height, width, 3]`, bool)."""


class FileStorage:
    """Pictures in files.

    Args:
        paths: Where each picture lies.
    """

    def __init__(self, paths: Sequence[str]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def check(self, row: int) -> tuple[str, str | None]:
        """Reads one file; returns its content hash and what is wrong with it, or None."""
        try:
            if not stat.S_ISREG(os.stat(self.paths[row]).st_mode):  # a pipe would never end
                return "", "is not a file"
            with open(self.paths[row], "rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return "", "does not exist"
        except (OSError, ValueError) as error:  # ValueError: a path with a null character
            return "", f"cannot be read: {getattr(error, 'strerror', None) or error}"
        if len(data) > MAX_FILE_BYTES:
            return "", f"is larger than {MAX_FILE_BYTES >> 20} MB"
        return content_hash(data), inspect_image(data)

    def image(self, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Reads and decodes one file in graph: (uint8 `[height, width, 3]`, bool)."""
        return decode_image(tf.io.read_file(tf.gather(self._path_tensor, row)))

    @cached_property
    def _path_tensor(self) -> tf.Tensor:
        # Bytes, because file names need not be valid text.
        return _constant([os.fsencode(path) for path in self.paths])


class ArrayStorage:
    """Pictures in memory.

    Args:
        images: uint8 `[n, height, width, 3]`.
    """

    def __init__(self, images: np.ndarray):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def check(self, row: int) -> tuple[str, str | None]:
        """Returns the content hash of one picture, and None: an array is always readable."""
        return content_hash(self.images[row].tobytes()), None

    def image(self, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Fetches one picture in graph: (uint8 `[height, width, 3]`, True)."""
        return tf.gather(self._image_tensor, row), tf.constant(True)

    @cached_property
    def _image_tensor(self) -> tf.Tensor:
        return _constant(self.images)


class BlobStorage:
    """Encoded pictures one after another in a file, which is mapped and not read into memory.

    Args:
        path: The file.
        starts, ends: int64 `[n]`; picture i is the bytes from `starts[i]` to `ends[i]`.
    """

    def __init__(self, path: str | os.PathLike, starts: np.ndarray, ends: np.ndarray):
        self.path = path
        self.starts = starts
        self.ends = ends

    def __len__(self) -> int:
        return len(self.starts)

    def check(self, row: int) -> tuple[str, str | None]:
        """Reads one picture; returns its content hash and what is wrong with it, or None."""
        data = self.read(row)
        return content_hash(data), inspect_image(data)

    def image(self, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Reads and decodes one picture in graph: (uint8 `[height, width, 3]`, bool)."""
        encoded = tf.numpy_function(self.read, [row], tf.string, stateful=False)
        return decode_image(tf.ensure_shape(encoded, []))

    def read(self, row: int) -> bytes:
        """Returns one encoded picture."""
        return self._bytes[self.starts[row] : self.ends[row]].tobytes()

    @cached_property
    def _bytes(self) -> np.ndarray:
        if os.path.getsize(self.path) == 0:
            return np.empty(0, np.uint8)  # an empty file cannot be mapped
        return np.memmap(self.path, np.uint8, "r")


class JoinedStorage:
    """Pictures that lie in several places, numbered one place after another.

    Args:
        parts: The places.
    """

    def __init__(self, parts: Sequence[Storage]):
        self.parts = parts
        self._starts = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def check(self, row: int) -> tuple[str, str | None]:
        """Reads one picture where it lies."""
        place = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self.parts[place].check(row - int(self._starts[place]))

    def image(self, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Decodes one picture in graph, where it lies."""
        starts = tf.constant(self._starts[1:], tf.int64)
        place = tf.searchsorted(starts, [tf.cast(row, tf.int64)], side="right")[0]
        image, good = tf.switch_case(
            place,
            [
                lambda part=part, start=start: part.image(tf.cast(row, tf.int64) - start)
                for part, start in zip(self.parts, self._starts, strict=False)
            ],
        )
        return tf.ensure_shape(image, [None, None, 3]), good


class ImageSource:
    """Labelled pictures, any of which can be fetched by its index.

    Args:
        storage: Where the pictures lie.
        rows: int64 `[n]`; which of the storage's pictures belong to this source.
        ids: How a person finds each picture: its path in the data folder, or `digits/17`.
        labels: int64 `[n]` class indices, float32 `[n, classes]` of 0 and 1 when a picture has
            several labels, or float32 `[n]` numbers.
        class_names: Names of the classes; empty when labels are numbers.
        keys: str `[n]`, content hash of each picture.
        groups: str `[n]`, what must stay on one side of a split (a patient, a user); an empty
            string is no group.
    """

    def __init__(
        self,
        storage: Storage,
        rows: np.ndarray,
        ids: list[str],
        labels: np.ndarray,
        class_names: tuple[str, ...],
        keys: np.ndarray,
        groups: np.ndarray | None = None,
    ):
        self.storage = storage
        self.rows = np.asarray(rows, np.int64)
        self.ids = ids
        self.labels = labels
        self.class_names = class_names
        self.keys = keys
        self.groups = groups

    def __len__(self) -> int:
        return len(self.rows)

    def subset(self, rows: np.ndarray) -> "ImageSource":
        """Returns the source of the pictures `rows` `[m]` of this one, in that order."""
        return ImageSource(
            self.storage,
            self.rows[rows],
            [self.ids[row] for row in rows],
            self.labels[rows],
            self.class_names,
            self.keys[rows],
            None if self.groups is None else self.groups[rows],
        )

    @classmethod
    def joined(cls, parts: Sequence["ImageSource"]) -> "ImageSource":
        """Returns one source of the pictures of several with the same classes, in their order."""
        first = parts[0]
        storages = list({id(part.storage): part.storage for part in parts}.values())
        storage = first.storage if len(storages) == 1 else JoinedStorage(storages)
        starts = dict(zip(map(id, storages), np.cumsum([0, *map(len, storages)]), strict=False))
        grouped = all(part.groups is not None for part in parts)
        return cls(
            storage,
            np.concatenate([part.rows + starts[id(part.storage)] for part in parts]),
            [name for part in parts for name in part.ids],
            np.concatenate([part.labels for part in parts]),
            first.class_names,
            np.concatenate([part.keys for part in parts]),
            np.concatenate([part.groups for part in parts]) if grouped else None,
        )

    def image(self, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Fetches and decodes one picture, in graph or eagerly.

        Args:
            index: Scalar int64 from 0 to `len(self) - 1`.

        Returns:
            The picture, uint8 `[height, width, 3]`, and a bool that is False where it could not be
            decoded.
        """
        return self.storage.image(tf.gather(self._row_tensor, index))

    def decoded_bytes(self, image_size: int) -> int:
        """Returns the memory that all pictures take as uint8 `[image_size, image_size, 3]`."""
        return len(self) * image_size * image_size * 3

    @cached_property
    def _row_tensor(self) -> tf.Tensor:
        return _constant(self.rows)


@dataclass
class Listing:
    """What a data set says about itself before a picture is opened.

    Args:
        storage: Where the pictures lie.
        ids, labels, class_names, groups: As in `ImageSource`.
        sides: int8 `[n]`, the data set's own splits: 0 train, 1 validation, 2 test. None when it
            has none.
        warnings: What a person should know.
    """

    storage: Storage
    ids: list[str]
    labels: np.ndarray
    class_names: tuple[str, ...]
    groups: np.ndarray | None = None
    sides: np.ndarray | None = None
    warnings: list[str] = field(default_factory=list)


def content_hash(data: bytes) -> str:
    """Returns 32 hexadecimal digits that stand for `data`."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def check_pictures(
    storage: Storage, rows: np.ndarray, progress: Callable[[int, int], None] | None = None
) -> tuple[np.ndarray, dict[int, str]]:
    """Reads every picture once, in parallel.

    Args:
        storage: Where the pictures lie.
        rows: int64 `[n]`; which to read.
        progress: Called with (done, total) from the calling thread.

    Returns:
        The content hashes, str `[n]`, and what is wrong with each bad picture, by position in
        `rows`.
    """

    def check(start: int) -> list[tuple[str, str | None]]:
        return [storage.check(int(row)) for row in rows[start : start + ROWS_PER_JOB]]

    keys, reasons = [], {}
    pool = ThreadPoolExecutor(2 * (os.cpu_count() or 1))
    try:
        for results in pool.map(check, range(0, len(rows), ROWS_PER_JOB)):
            for key, reason in results:
                if reason:
                    reasons[len(keys)] = reason
                keys.append(key)
            if progress:
                progress(len(keys), len(rows))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the rest
    return np.array(keys, dtype="U32"), reasons


def _constant(values: np.ndarray | list[bytes]) -> tf.Tensor:
    # Made on first use, which may be inside a graph that must not own it, and kept off the
    # accelerators, because tf.data runs on the CPU.
    with tf.init_scope(), tf.device("/CPU:0"):
        return tf.constant(values)
