"""The folder of what is kept between runs: downloads, and copies of data in a faster form."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_folder() -> Path:
    """Returns `$TFSFT_CACHE`, or the folder `tfsft` in the user's cache."""
    if chosen := os.environ.get("TFSFT_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tfsft"


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Returns `folder`, which `make` fills if it is not there yet.

    It is filled beside its place and renamed, so that it is whole or not there at all, whatever
    happens on the way; of two processes that do so at once, one wins.

    Args:
        folder: A name that stands for the content, such as a hash.
        make: Called with an empty folder to write into.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
    try:
        make(beside)
        beside.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder
