"""The whole state of a training in one folder: written beside, hashed, renamed; read back or
refused.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tfsft.errors import UserError

FORMAT = 2


@dataclass(frozen=True)
class Checkpoint:
    """What was saved at one point of a training.

    Args:
        arrays: Every variable by its key; see `state_of`.
        facts: Plain data: phase, epoch, step, states of callbacks.
    """

    arrays: dict[str, np.ndarray]
    facts: dict


class Checkpoints:
    """The checkpoints of a run, newest last; damaged ones are passed over and named.

    Args:
        folder: Where they lie, a folder each.
        keep: How many of the newest stay.
    """

    def __init__(self, folder: Path, keep: int = 2):
        self.folder = Path(folder)
        self.keep = keep
        self.damaged: list[str] = []

    def save(self, arrays: Mapping[str, np.ndarray], facts: dict) -> Path:
        """Writes a checkpoint that is whole or not there at all, and removes the oldest beyond
        `keep`.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for left_over in self.folder.glob(".writing-*"):
            shutil.rmtree(left_over, ignore_errors=True)
        numbers = [number for number, _ in self._saved()]
        target = self.folder / f"{max(numbers, default=0) + 1:06d}"
        beside = Path(tempfile.mkdtemp(prefix=".writing-", dir=self.folder))
        try:
            _write(beside / "state.safetensors", arrays)
            manifest = {
                "format": FORMAT,
                "sha256": _sha256(beside / "state.safetensors"),
                "variables": len(arrays),
                "facts": facts,
            }
            (beside / "manifest.json").write_text(json.dumps(manifest, indent=1))
            for path in (beside / "state.safetensors", beside / "manifest.json", beside):
                _sync(path)
            os.replace(beside, target)
            _sync(self.folder)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        for _, old in self._saved()[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)
        return target

    def newest(self) -> Checkpoint | None:
        """Returns the newest whole checkpoint, or None; damaged ones are listed in `damaged`."""
        return next(self.newest_first(), None)

    def newest_first(self) -> Iterable[Checkpoint]:
        """Yields the whole checkpoints from the newest to the oldest."""
        for _, path in reversed(self._saved()):
            try:
                manifest = json.loads((path / "manifest.json").read_text())
                if manifest["sha256"] != _sha256(path / "state.safetensors"):
                    raise ValueError("its hash differs")
                if manifest["format"] != FORMAT:
                    raise ValueError(
                        f"its format is {manifest['format']}, this tfsft reads {FORMAT}"
                    )
                yield Checkpoint(load_file(path / "state.safetensors"), manifest["facts"])
            except (OSError, ValueError, KeyError) as error:
                self.damaged.append(f"{path.name}: {error}")

    def _saved(self) -> list[tuple[int, Path]]:
        if not self.folder.is_dir():
            return []
        return sorted((int(p.name), p) for p in self.folder.iterdir() if p.name.isdigit())


def state_of(
    group: str, variables: Iterable[keras.Variable], leave_out: Collection[int] = ()
) -> dict[str, np.ndarray]:
    """Returns the values of variables under keys that are the same in another process.

    Args:
        group: What the keys begin with.
        variables: In the same order in every process.
        leave_out: `id` of those that are not wanted.
    """
    return {key: np.asarray(v) for key, v in _keyed(group, variables, leave_out)}


def restore(
    group: str,
    variables: Iterable[keras.Variable],
    arrays: Mapping[str, np.ndarray],
    leave_out: Collection[int] = (),
) -> None:
    """Sets variables to saved values.

    Args:
        group, variables, leave_out: As for `state_of`.
        arrays: What it returned.

    Raises:
        UserError: When saved and live variables are not the same ones: nothing is set then.
    """
    live = _keyed(group, variables, leave_out)
    keys = [key for key, _ in live]
    saved = {key for key in arrays if key.startswith(f"{group}/")}
    if saved != set(keys):
        raise UserError(
            f"The checkpoint does not fit: {len(saved)} saved variables in '{group}', {len(keys)} "
            f"live ones; "
            f"first difference: {sorted(saved ^ set(keys))[0]}",
            "A run goes on with the model and optimizer it began with.",
            "Use the options and the recipe of the first run, or start a new run.",
        )
    for key, variable in live:
        if tuple(arrays[key].shape) != tuple(variable.shape):
            raise UserError(
                f"The checkpoint does not fit: {key} has the shape {arrays[key].shape}, "
                f"the model's {tuple(variable.shape)}.",
                "A run goes on with the model it began with.",
                "Use the options and the recipe of the first run, or start a new run.",
            )
    for key, variable in live:
        variable.assign(arrays[key])


def weights_of(model: keras.Model) -> dict[int, keras.Variable]:
    """Returns what training can change of a model, by `id`, frozen or not.

    What is no weight by nature (statistics of batch norm, seeds) is not among them.
    """
    layers = model._flatten_layers()
    return {id(weight): weight for layer in layers for weight in layer._trainable_variables}


def frozen(model: keras.Model) -> set[int]:
    """Returns the `id` of each weight of a model that does not train now."""
    return {key for key, weight in weights_of(model).items() if not weight.trainable}


def digest(variables: Iterable[keras.Variable]) -> str:
    """Returns a hash of the values of variables."""
    found = hashlib.sha256()
    for variable in variables:
        found.update(np.ascontiguousarray(variable).view(np.uint8).data)
    return found.hexdigest()


def _keyed(
    group: str, variables: Iterable[keras.Variable], leave_out: Collection[int]
) -> list[tuple[str, keras.Variable]]:
    # Keras numbers automatic names by process ("dense_3"): the place says which one it is.
    return [
        (f"{group}/{place:05d}/" + re.sub(r"_\d+(?=/|$)", "", variable.path), variable)
        for place, variable in enumerate(variables)
        if id(variable) not in leave_out
    ]


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    try:
        save_file({key: np.asarray(value, order="C") for key, value in arrays.items()}, path)
    except SafetensorError as error:  # keeps the system's words, not its number
        if "No space left" not in str(error):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
