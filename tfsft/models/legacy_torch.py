"""Reads legacy torch files (before torch 1.6) without torch, and without running their pickle."""

import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tfsft.errors import UserError

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_DTYPES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "LongStorage": "<i8"}


@dataclass
class _Storage:
    """A flat array that comes later in the file; tensors are views of it."""

    dtype: str
    size: int
    values: np.ndarray | None = None


@dataclass(frozen=True)
class _View:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        if self.offset < 0 or min(self.strides, default=0) < 0 or last >= self.storage.size:
            raise ValueError("a tensor reaches outside its storage")
        itemsize = self.storage.values.itemsize
        # Ported weights are often transposed views: without their strides they load silently wrong.
        view = np.lib.stride_tricks.as_strided(
            self.storage.values[self.offset :], self.shape, [s * itemsize for s in self.strides]
        )
        return np.ascontiguousarray(view)


class _Unpickler(pickle.Unpickler):
    """Knows the few names that a file of tensors needs and refuses all others."""

    def __init__(self, file: BinaryIO):
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: _View(
                storage, offset, shape, strides
            )
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not a part of a tensor")

    def persistent_load(self, pid: tuple) -> _Storage:
        kind, dtype, key, _, size, view = pid
        if kind != "storage" or view is not None:
            raise pickle.UnpicklingError(f"unknown reference {kind!r}")
        return self.storages.setdefault(key, _Storage(dtype, size))


def read_legacy_torch(file: BinaryIO, name: str | Path) -> dict[str, np.ndarray]:
    """Reads a legacy torch file of named tensors.

    Args:
        file: The open file, at its start.
        name: What to call the file in an error.

    Returns:
        The tensors by name, each a contiguous array in its logical order.

    Raises:
        UserError: The file is not such a file, or holds anything but tensors.
    """
    try:
        if _Unpickler(file).load() != _MAGIC_NUMBER or _Unpickler(file).load() != _PROTOCOL:
            raise ValueError("no legacy torch header")
        if not _Unpickler(file).load()["little_endian"]:
            raise ValueError("big-endian numbers")
        unpickler = _Unpickler(file)
        views = unpickler.load()
        for key in _Unpickler(file).load():
            storage = unpickler.storages[key]
            if int.from_bytes(file.read(8), "little") != storage.size:
                raise ValueError("a storage of the wrong size")
            length = storage.size * np.dtype(storage.dtype).itemsize
            storage.values = np.frombuffer(file.read(length), storage.dtype)
        return {key: view.array() for key, view in views.items()}
    except (pickle.UnpicklingError, ValueError, KeyError, TypeError, AttributeError, EOFError) as e:
        raise UserError(
            f"{name} cannot be read: {e}.",
            "Expected a legacy torch file that holds named tensors and nothing else.",
        ) from e
