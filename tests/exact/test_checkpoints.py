"""A checkpoint is whole or not there, whatever the disk does while it is written."""

import contextlib
import errno
import json
import os
import shutil
import signal
import threading

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tfsft.errors import UserError
from tfsft.training import checkpoints, tensor_files
from tfsft.training.checkpoints import Checkpoints
from tfsft.training.saver import Saver
from tfsft.training.tensor_files import sha256, write_tensors

STEP = 31  # bytes between two places where a write fails


def state(seed):
    random = np.random.default_rng(seed)
    return {
        "model/00000/kernel": random.normal(size=(9, 7)).astype("float32"),
        "model/00001/seed": random.integers(0, 99, 2).astype("uint32"),
        "optimizer/00000/iteration": np.array(seed, "int64"),
        "metrics/00000/none": np.zeros((0, 3), "float32"),
    }


def best(seed):
    return {"best/00000/kernel": np.full((5, 3), seed, "float32")}


def save(folder, seed, **options):
    Checkpoints(folder, **options).save(state(seed), {"step": seed}, best(seed))


def assert_is(found, seed):
    expected = state(seed) | best(seed)
    assert found.facts == {"step": seed}
    assert found.arrays.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found.arrays[key], value)
        assert found.arrays[key].dtype == value.dtype


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_tensor_files_are_those_of_safetensors(tmp_path):
    arrays = {
        f"{dtype}": np.arange(6).reshape(2, 3).astype(dtype)
        for dtype in ("float64", "float32", "float16", "int64", "int32", "uint8", "bool")
    } | {"scalar": np.float32(3), "transposed": np.arange(6.0).reshape(2, 3).T}
    facts = write_tensors(tmp_path / "ours", arrays)
    found = load_file(tmp_path / "ours")
    save_file({key: np.array(v, order="C") for key, v in arrays.items()}, tmp_path / "theirs")
    expected = load_file(tmp_path / "theirs")
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value)
        assert found[key].dtype == value.dtype
    assert facts == {
        "sha256": sha256(tmp_path / "ours"),
        "bytes": (tmp_path / "ours").stat().st_size,
    }


def test_the_manifest_says_what_there_is(tmp_path):
    save(tmp_path, 1)
    manifest = json.loads((tmp_path / "000001" / "manifest.json").read_text())
    assert manifest["format"] == 3
    assert manifest["facts"] == {"step": 1}
    assert manifest["contains"] == {
        "model": {"variables": 2, "bytes": 9 * 7 * 4 + 2 * 4},
        "optimizer": {"variables": 1, "bytes": 8},
        "metrics": {"variables": 1, "bytes": 0},
        "best": {"variables": 1, "bytes": 5 * 3 * 4},
    }
    for name, file in manifest["files"].items():
        path = tmp_path / "000001" / name if name.startswith("state") else tmp_path / name
        assert file == {"sha256": sha256(path), "bytes": path.stat().st_size}


def test_the_last_are_kept_and_the_best_lies_apart_once(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(
        checkpoints, "write_tensors", lambda p, a: written.append(p.name) or write_tensors(p, a)
    )
    kept = Checkpoints(tmp_path, keep=3)
    first, second = best(1), best(2)
    for step, weights in enumerate((first, first, second, second, second, second)):
        kept.save(state(step), {"step": step}, weights)
        bests = len(list(tmp_path.glob("best-*")))
        assert bests == (2 if step in (2, 3) else 1)
    assert written.count("best") == 2
    assert [name for name in names(tmp_path) if "/" not in name and "best" not in name] == [
        "000004", "000005", "000006",
    ]  # fmt: skip
    assert [found.facts["step"] for found in Checkpoints(tmp_path).newest_first()] == [5, 4, 3]


def fail_after(monkeypatch, limit, fail):
    """Calls `fail` once so many bytes are written."""
    left = [limit]

    class File:
        def __init__(self, path, mode):
            self.file = open(path, mode)  # noqa: SIM115

        def write(self, piece):
            fitting = bytes(piece)[: left[0]]
            self.file.write(fitting)
            left[0] -= len(fitting)
            if len(fitting) < len(piece):
                self.file.flush()
                fail()

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

    def opened(path, mode):
        return File(path, mode) if "w" in mode else open(path, mode)

    monkeypatch.setattr(tensor_files, "open", opened, raising=False)


def full():
    raise OSError(errno.ENOSPC, "No space left on device")


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def total_bytes(folder):
    newest = max(folder.glob("0*"))
    files = json.loads((newest / "manifest.json").read_text())["files"]
    return sum(f["bytes"] for f in files.values()) + (newest / "manifest.json").stat().st_size


def test_a_disk_that_is_full_at_any_byte_leaves_the_checkpoints_before(tmp_path, monkeypatch):
    for seed in (1, 2):
        save(tmp_path, seed)
    before = names(tmp_path)
    total = total_bytes(tmp_path)
    limits = [*range(0, total, STEP), total - 1]
    kept = Checkpoints(tmp_path)
    for limit in limits:
        with monkeypatch.context() as patch:
            fail_after(patch, limit, full)
            with pytest.raises(OSError, match="No space left"):
                kept.save(state(3), {"step": 3}, best(3))
        assert names(tmp_path) == before, limit
        assert_is(kept.newest(), 2)
    assert len(limits) > 40
    kept.save(state(3), {"step": 3}, best(3))
    assert_is(kept.newest(), 3)


@pytest.mark.parametrize("name", ["fsync", "replace", "mkdir"])
def test_a_call_that_fails_leaves_the_checkpoints_before(tmp_path, monkeypatch, name):
    for seed in (1, 2):
        save(tmp_path, seed)
    before = names(tmp_path)
    original = getattr(os, name)
    for number in range(9):
        left = [number]

        def fails(*args, left=left, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.EIO, "Input/output error")
            return original(*args, **kwargs)

        kept = Checkpoints(tmp_path)
        saved = False
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fails)
            with contextlib.suppress(OSError):
                kept.save(state(3), {"step": 3}, best(3))
                saved = True
        if saved:
            break
        found = kept.newest()
        if found.facts["step"] == 2:  # else it failed after the checkpoint was whole
            assert names(tmp_path) == before, number
            assert_is(found, 2)
        else:
            assert_is(found, 3)
            shutil.rmtree(max(tmp_path.glob("0*")))
            kept._remove_best()
    assert number >= (2 if name == "replace" else 1)
    assert_is(Checkpoints(tmp_path).newest(), 3)


def test_a_process_killed_at_any_byte_leaves_whole_checkpoints(tmp_path, monkeypatch):
    for seed in (1, 2):
        save(tmp_path / "runs", seed)
    total = total_bytes(tmp_path / "runs")
    for limit in [*range(0, total, STEP * 3), total - 1, total]:
        folder = tmp_path / f"killed-{limit}"
        shutil.copytree(tmp_path / "runs", folder)
        child = os.fork()
        if child == 0:
            fail_after(monkeypatch, limit, killed)
            save(folder, 3)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        was_killed = os.WIFSIGNALED(status)
        assert was_killed == (limit < total), (limit, status)
        kept = Checkpoints(folder)
        assert_is(kept.newest(), 2 if was_killed else 3)
        assert not kept.damaged
        kept.save(state(4), {"step": 4}, best(4))
        assert_is(kept.newest(), 4)
        assert not list(folder.glob(".writing-*"))
        assert len(list(folder.glob("best-*"))) == 2


def test_any_damage_is_recognised_and_the_checkpoint_before_is_used(tmp_path):
    for seed in (1, 2):
        save(tmp_path, seed)
    newest = tmp_path / "000002"
    files = [newest / "state.safetensors", newest / "manifest.json", *tmp_path.glob("best-*")]
    manifest = json.loads((newest / "manifest.json").read_text())
    files = [path for path in files if path.parent == newest or path.name in manifest["files"]]
    assert len(files) == 3
    for path in files:
        whole = path.read_bytes()
        for place in range(0, len(whole), STEP):
            damaged = bytearray(whole)
            damaged[place] ^= 4
            path.write_bytes(damaged)
            kept = Checkpoints(tmp_path)
            found = kept.newest()
            assert_is(found, 1)
            assert [p.name for p in kept.damaged] == ["000002"]
        for length in (0, len(whole) // 2, len(whole) - 2):
            path.write_bytes(whole[:length])
            assert_is(Checkpoints(tmp_path).newest(), 1)
        path.unlink()
        assert_is(Checkpoints(tmp_path).newest(), 1)
        path.write_bytes(whole)
    assert_is(Checkpoints(tmp_path).newest(), 2)


def test_a_damaged_checkpoint_does_not_take_the_place_of_a_whole_one(tmp_path):
    for seed in (1, 2):
        save(tmp_path, seed)
    (tmp_path / "000002" / "state.safetensors").write_bytes(b"x")
    kept = Checkpoints(tmp_path)
    assert_is(kept.newest(), 1)
    kept.save(state(3), {"step": 3}, best(3))
    assert [found.facts["step"] for found in Checkpoints(tmp_path).newest_first()] == [3, 1]


def test_training_goes_on_while_a_checkpoint_is_written():
    go, began, done = threading.Event(), threading.Event(), []

    def write(number):
        began.set()
        go.wait(10)
        done.append(number)

    saver = Saver(write, print, lambda: done.append("saved"))
    saver.start(1)
    assert began.wait(10)
    assert (saver.ready, done) == (False, [])
    go.set()
    saver.wait()
    assert (saver.ready, done) == (True, [1, "saved"])


def test_what_went_wrong_while_writing_is_said_or_raised():
    said, errors = [], [OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "broken"), KeyError("x")]

    def write():
        raise errors[0]

    saver = Saver(write, said.append, lambda: said.append("saved"))
    for _ in range(2):  # it is said once until there is space again
        saver.start()
        saver.wait()
    assert len(said) == 1
    assert said[0].startswith("No space is left to write a checkpoint.")
    for kind in (UserError, KeyError):
        del errors[0]
        saver.start()
        with pytest.raises(kind):
            saver.wait()
        saver.wait()
    assert len(said) == 1
