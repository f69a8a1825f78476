"""Files of arrays in the safetensors format, written and hashed in one go.

The writing is Python's own: safetensors holds up all other threads while it writes, and training
must go on meanwhile. Reading is left to safetensors.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "bool": "BOOL",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8",
}  # fmt: skip


def write_tensors(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Writes arrays to a file that is on the disk when this returns.

    Returns:
        What `write_synced` returns.
    """
    return write_synced(path, _pieces(arrays))


def write_synced(path: Path, pieces: Iterable[Any]) -> dict[str, Any]:
    """Writes bytes to a file that is on the disk when this returns.

    Returns:
        The `sha256` of the content and its `bytes`.
    """
    digest, size = hashlib.sha256(), 0
    with open(path, "wb") as file:
        for piece in pieces:
            file.write(piece)
            digest.update(piece)
            size += len(piece)
        file.flush()
        os.fsync(file.fileno())
    return {"sha256": digest.hexdigest(), "bytes": size}


def sync(path: Path) -> None:
    """Brings a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Returns the hash of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _pieces(arrays: Mapping[str, np.ndarray]) -> Iterator[Any]:
    """Yields the parts of a safetensors file: the header's length, the header, the arrays."""
    arrays = {key: np.asarray(value, order="C") for key, value in arrays.items()}
    header, end = {}, 0
    for key, value in arrays.items():
        start, end = end, end + value.nbytes
        header[key] = {
            "dtype": NAMES[value.dtype.name],
            "shape": list(value.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the arrays are aligned
    yield len(text).to_bytes(8, "little")
    yield text
    for value in arrays.values():
        yield value.reshape(-1).view(np.uint8).data
