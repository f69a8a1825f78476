"""Files from elsewhere: what is looked at before a library opens them.

Keras refuses code, files outside an archive, and what unpacks to more than 4 GiB. Here are the
checks that it leaves to others, for its archives and for folders of weights. docs/security.md has
the whole.
"""

import io
import json
import math
import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from tfsft.errors import UserError

# What a file may unpack to: so much, and so many times its own size. Weights are stored as they
# are, or with a half or a quarter of the bytes that they have in memory.
FREE_BYTES = 64 << 20
MOST_TIMES = 10
CONFIG_BYTES = 8 << 20  # of JSON that describes a model; in memory it takes up to 22 times as much
FREE_ROWS, ROWS_PER_BYTE = 1_000_000, 20  # of Parquet
JSON_BYTES = 64 << 20  # of any other JSON: vocabularies have more than 30 MB
_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"}
_WEIGHTS = {".safetensors", ".h5"}
_CONFIGS = ("config.json", "tokenizer_config.json")  # of Hugging Face, which may ask for code


def most_bytes(stored: int) -> int:
    """Returns how many bytes a file of `stored` bytes may unpack to."""
    return FREE_BYTES + MOST_TIMES * stored


def read_json(path: str | Path, most: int = JSON_BYTES) -> Any:
    """Reads a JSON file that is not too large.

    Raises:
        UserError: It is too large, no file, or no JSON.
    """
    try:
        _refuse_special(Path(path))
        with open(path, "rb") as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise _refused(path, f"has more than {most >> 20} MB", f"JSON of at most {most >> 20}")
        return json.loads(data.decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise UserError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or reason}",
            "Expected a JSON file.",
            "Get the file again from where it comes.",
        ) from error


def is_plain_name(name: Any) -> bool:
    """Says whether a name is that of a file or folder right here."""
    return isinstance(name, str) and name == os.path.basename(name) and name not in ("", ".", "..")


def check_archive(path: str | Path) -> int:
    """Looks at a `.keras` archive without unpacking it.

    Returns:
        The size of the file.

    Raises:
        UserError: It is no archive, or holds what Keras never writes: names that lead out of it,
            links, two members of one name, members or weights that unpack to far more than is
            stored.
    """
    path = Path(path)
    try:
        _refuse_special(path)
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            for member in members:
                reason = _wrong_member(member, names)
                if reason:
                    raise _refused(path, f"holds {member.filename!r}, {reason}", _ARCHIVE)
            if sum(member.file_size for member in members) > most_bytes(size):
                raise _refused(path, f"unpacks to far more than its {size} bytes", _ARCHIVE)
            for member in members:
                if member.filename.endswith(".h5"):
                    _check_h5(io.BytesIO(archive.read(member)), path / member.filename, size)
        return size
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise _unreadable(path, error, _ARCHIVE) from error


def check_folder(folder: str | Path) -> int:
    """Looks at a folder of weights, a configuration and a vocabulary.

    Returns:
        How many bytes of weights it has.

    Raises:
        UserError: It holds links out of it or weights elsewhere, asks for code of its own, or has
            nothing but pickled weights.
    """
    folder = Path(folder)
    stored, pickles = 0, []
    for path in _files(folder):
        if path.suffix == ".json":
            _check_json(folder, path)
        if path.suffix == ".h5":
            with open(path, "rb") as file:
                _check_h5(file, path, path.stat().st_size)
        if path.suffix in _WEIGHTS:
            stored += path.stat().st_size
        elif path.suffix in _PICKLES:
            pickles.append(path.name)
    if pickles and not stored:
        raise UserError(
            f"The weights in {folder} are pickled: {', '.join(sorted(pickles)[:3])}.",
            "Opening a pickle runs what is written in it, so tfsft opens none. Expected "
            "*.safetensors or *.weights.h5.",
            "Get the model in the format safetensors; whoever trusts the file can convert it with "
            "transformers: save_pretrained(folder, safe_serialization=True).",
        )
    return stored


def check_parquet(path: str | Path) -> None:
    """Looks at the footer of a Parquet file: a few bytes can stand for any number of equal rows.

    Raises:
        UserError: It declares far more rows or bytes than it stores.
        Exception: Of pyarrow, if it is no Parquet file.
    """
    import pyarrow.parquet

    size = os.path.getsize(path)
    with pyarrow.parquet.ParquetFile(path) as file:
        about = file.metadata
    unpacked = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))
    if about.num_rows > FREE_ROWS + ROWS_PER_BYTE * size or unpacked > MOST_TIMES * most_bytes(
        size
    ):
        raise _refused(
            path, f"declares {about.num_rows} rows in {size} bytes", "A table as large as its data"
        )


def inside(folder: str | Path) -> Callable[[str], tuple[str, str] | None]:
    """Returns a function that finds files by names that must stay inside a folder, links included.

    It takes a name, relative to the folder or absolute, and returns the name relative to the folder
    and the real path; None if that leads out.
    """
    root = os.path.join(os.path.realpath(folder), "")
    known: dict[str, str] = {}

    def find(name: str) -> tuple[str, str] | None:
        name = name.replace("\\", "/")
        given = os.path.normpath(name if os.path.isabs(name) else root + name)
        parent, file = os.path.split(given)
        if parent not in known:
            known[parent] = _real(parent)
        path = os.path.join(known[parent], file)
        path = _real(path) if os.path.islink(path) else path
        if not path.startswith(root):
            return None
        return (given if given.startswith(root) else path)[len(root) :], path

    return find


_ARCHIVE = "A model that Keras saved: config.json and model.weights.h5, as large as they are stored"


def _wrong_member(member: zipfile.ZipInfo, names: list[str]) -> str | None:
    parts = PurePosixPath(member.filename.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in member.filename:
        return "which leads out of the archive"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "which is a link"
    if names.count(member.filename) > 1:
        return "twice"
    if parts.suffix == ".json" and member.file_size > CONFIG_BYTES:
        return f"with more than {CONFIG_BYTES >> 20} MB"
    return None


def _check_h5(file: BinaryIO, path: Path, stored: int) -> None:
    """Refuses an HDF5 file that reads other files, or declares far more than it stores."""
    import h5py

    declared = 0

    def look_at_link(name: str, link: Any) -> str | None:
        return None if isinstance(link, h5py.HardLink) else f"links to elsewhere at {name!r}"

    def look_at(name: str, thing: Any) -> str | None:
        nonlocal declared
        if not isinstance(thing, h5py.Dataset):
            return None
        if thing.external or thing.is_virtual:
            return f"takes {name!r} from other files"
        declared += math.prod(thing.shape or ()) * thing.dtype.itemsize
        return None

    try:
        with h5py.File(file, "r") as opened:
            reason = opened.visititems_links(look_at_link) or opened.visititems(look_at)
    except Exception as error:  # damaged files make the library raise nearly anything
        raise _unreadable(path, error, "Weights that Keras saved") from error
    if not reason and declared > most_bytes(stored):
        reason = f"declares {declared} bytes of weights and stores at most {stored}"
    if reason:
        raise _refused(path, reason, "Weights that Keras saved, all of them in this file")


def _files(folder: Path) -> Iterator[Path]:
    root = folder.resolve()
    # Hugging Face's cache keeps the files of all snapshots in one place and links to them.
    cached = root.parent.name == "snapshots"
    allowed = [root, root.parent.parent / "blobs"] if cached else [root]
    for here, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = Path(here, name)
            real = path.resolve()
            if path.is_symlink() and not any(real.is_relative_to(place) for place in allowed):
                shown = path.relative_to(root)
                raise _refused(folder, f"holds {str(shown)!r}, a link out of it", "Files, no links")
        for name in files:
            _refuse_special(Path(here, name))
            yield Path(here, name)


def _check_json(folder: Path, path: Path) -> None:
    if path.stat().st_size > JSON_BYTES:
        raise _refused(path, f"has more than {JSON_BYTES >> 20} MB", "JSON that fits")
    if path.name in _CONFIGS:
        content = read_json(path, CONFIG_BYTES)
        if isinstance(content, dict) and content.get("auto_map"):
            raise _refused(
                path, "asks for Python code of its own (auto_map)", "A model of a known family"
            )
    elif path.name.endswith((".index.json", ".weights.json")):
        content = read_json(path)
        found = content.get("weight_map") if isinstance(content, dict) else None
        for names in found.values() if isinstance(found, dict) else []:
            for name in names if isinstance(names, list) else [names]:
                if not is_plain_name(name):
                    raise _refused(path, f"takes weights from {name!r}", f"Files in {folder}")


def _refuse_special(path: Path) -> None:
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would never end
        raise _refused(path, "is not a file", "A file")


def _refused(path: str | Path, reason: str, expected: str) -> UserError:
    return UserError(
        f"{path} is not opened, because it {reason}.",
        f"Expected: {expected}.",
        "If it is from somebody else, do not trust it; else save it again.",
    )


def _unreadable(path: Path, error: Exception, expected: str) -> UserError:
    reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return UserError(
        f"{path} cannot be read: {reason.splitlines()[0]}",
        f"Expected: {expected}.",
        "Get the file again from where it comes: it may have been cut off.",
    )


def _real(path: str) -> str:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):  # no such path can exist; reading it will say so
        return path
