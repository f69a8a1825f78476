"""Text files that are there whole or not at all."""

import os
from pathlib import Path


def atomic_write(path: Path, text: str) -> None:
    """Writes a text file beside its place and renames it, so that a crash never leaves half of it.

    Names of files that are no valid text are written with escapes, so that every reader can read
    the rest.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(beside, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
