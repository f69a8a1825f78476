"""The whole state of a training in one folder: written beside, hashed, renamed; read back or
refused.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from tfsft.errors import UserError
from tfsft.training.tensor_files import sha256, sync, write_synced, write_tensors

FORMAT = 3
STATE = "state.safetensors"
MANIFEST = "manifest.json"
BEST = "best"


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

    Each is a folder with the state and a manifest. The best weights lie beside them, in a file that
    is named by its content and written when they change.

    Args:
        folder: Where they lie.
        keep: How many of the newest stay.
    """

    def __init__(self, folder: Path, keep: int = 2):
        self.folder = Path(folder)
        self.keep = keep
        self.damaged: dict[Path, str] = {}
        self._best: tuple[Mapping, dict] | None = None  # as they were written last

    def save(
        self,
        arrays: Mapping[str, np.ndarray],
        facts: dict,
        best: Mapping[str, np.ndarray] | None = None,
    ) -> Path:
        """Writes a checkpoint that is whole or not there at all, and removes the oldest beyond
        `keep`.

        Args:
            arrays: Every variable by its key.
            facts: Plain data.
            best: The best weights; not written again while they are the same object.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for left_over in self.folder.glob(".writing-*"):
            shutil.rmtree(left_over, ignore_errors=True)
        target = self.folder / f"{max(self._saved(), default=0) + 1:06d}"
        beside = Path(tempfile.mkdtemp(prefix=".writing-", dir=self.folder))
        try:
            files = {STATE: write_tensors(beside / STATE, arrays)}
            if best:
                files |= self._save_best(beside, best)
            manifest = {
                "format": FORMAT,
                "files": files,
                "contains": _contents({**arrays, **(best or {})}),
                "facts": facts,
            }
            text = json.dumps({**manifest, "sha256": _hash(manifest)}, indent=1)
            write_synced(beside / MANIFEST, [text.encode()])
            sync(beside)
            os.replace(beside, target)
            sync(self.folder)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            self._best = None
            self._remove_best()
            raise
        self._remove_old()
        return target

    def newest(self) -> Checkpoint | None:
        """Returns the newest whole checkpoint, or None; damaged ones are listed in `damaged`."""
        return next(self.newest_first(), None)

    def newest_first(self) -> Iterator[Checkpoint]:
        """Yields the whole checkpoints from the newest to the oldest."""
        for _, path in sorted(self._saved().items(), reverse=True):
            try:
                yield self._read(path)
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                self.damaged[path] = str(error) or type(error).__name__

    def _read(self, path: Path) -> Checkpoint:
        manifest = _read_manifest(path)
        arrays = {}
        for name, file in manifest["files"].items():
            place = path / name if name == STATE else self.folder / name
            if sha256(place) != file["sha256"]:
                raise ValueError(f"the hash of {name} differs")
            arrays |= load_file(place)
        return Checkpoint(arrays, manifest["facts"])

    def _save_best(self, beside: Path, best: Mapping[str, np.ndarray]) -> dict[str, dict]:
        if self._best is None or self._best[0] is not best:
            file = write_tensors(beside / BEST, best)
            name = f"{BEST}-{file['sha256'][:16]}.safetensors"
            os.replace(beside / BEST, self.folder / name)
            self._best = best, {name: file}
        return self._best[1]

    def _remove_old(self) -> None:
        """Removes what is too old, and damaged ones: they would take the place of whole ones."""
        whole = [path for path in sorted(self._saved().values()) if path not in self.damaged]
        for path in (*self.damaged, *whole[: -self.keep]):
            shutil.rmtree(path, ignore_errors=True)
        self.damaged = {}
        self._remove_best()

    def _remove_best(self) -> None:
        """Removes the best weights that no checkpoint refers to."""
        needed = set()
        for path in self._saved().values():
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                needed |= _read_manifest(path)["files"].keys()
        for path in self.folder.glob(f"{BEST}-*"):
            if path.name not in needed:
                path.unlink(missing_ok=True)

    def _saved(self) -> dict[int, Path]:
        if not self.folder.is_dir():
            return {}
        return {int(path.name): path for path in self.folder.iterdir() if path.name.isdigit()}


def _read_manifest(path: Path) -> dict:
    manifest = json.loads((path / MANIFEST).read_text())
    if manifest["format"] != FORMAT:
        raise ValueError(f"its format is {manifest['format']}, this tfsft reads {FORMAT}")
    if manifest.pop("sha256") != _hash(manifest):
        raise ValueError("the hash of its manifest differs")
    return manifest


def _hash(manifest: dict) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _contents(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, int]]:
    """Returns how many variables there are of each group, and how many bytes."""
    found: dict[str, dict[str, int]] = {}
    for key, value in arrays.items():
        group = found.setdefault(key.partition("/")[0], {"variables": 0, "bytes": 0})
        group["variables"] += 1
        group["bytes"] += value.nbytes
    return found


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
