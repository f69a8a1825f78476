"""Workers on a local Ray cluster, one of them killed; what is said without Ray."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numbers_recipe
import numpy as np
import pytest
from safetensors.numpy import load_file

from tfsft.cli import main
from tfsft.cli.ray_workers import share
from tfsft.errors import UsageError

RECIPE = Path(numbers_recipe.__file__)
RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not RAY, reason='Ray is not installed: pip install "tfsft[ray]"')


@pytest.mark.parametrize(
    ("nodes", "workers", "expected"),
    [
        # Counted by hand. A worker lies on one node: two of 8 CPUs do not give three workers 5.
        ([{"CPU": 8.0}], 2, {"CPU": 4}),
        ([{"CPU": 8.0}, {"CPU": 8.0}], 2, {"CPU": 8}),
        ([{"CPU": 8.0}, {"CPU": 8.0}], 3, {"CPU": 4}),
        ([{"CPU": 2.0}, {"memory": 1e9}], 2, {"CPU": 1}),
        ([{"CPU": 16.0, "GPU": 4.0}] * 2, 2, {"GPU": 4, "CPU": 16}),
        ([{"CPU": 16.0, "GPU": 4.0}] * 2, 4, {"GPU": 2, "CPU": 8}),
        ([{"CPU": 16.0, "GPU": 3.0}] * 2, 3, {"GPU": 1, "CPU": 5}),
        ([{"CPU": 64.0}, {"CPU": 4.0, "GPU": 2.0}], 2, {"GPU": 1, "CPU": 2}),
        ([{"CPU": 8.0, "GPU": 1.0}], 2, {"CPU": 4}),  # GPUs do not suffice
    ],
)
def test_what_each_worker_gets(nodes, workers, expected):
    assert share(nodes, workers) == expected


def test_too_many_workers():
    with pytest.raises(UsageError, match="The Ray cluster has 3 CPUs for 4 workers"):
        share([{"CPU": 2.0}, {"CPU": 1.0}], 4)


@pytest.mark.skipif(RAY, reason="Ray is installed")
def test_without_ray(toy_recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["launch", "--engine", "ray", "--", "run", str(toy_recipe)]) == 2
    error = capsys.readouterr().err
    assert "--engine ray: No module named 'ray'." in error
    assert 'pip install "tfsft[ray]"' in error
    assert list(tmp_path.iterdir()) == []


def launch(engine, place, *words, restarts=1, trouble=None):
    """Starts `tfsft launch`; returns the process."""
    environment = os.environ | ({"NUMBERS_TROUBLE": trouble} if trouble else {})
    options = ["--engine", engine, "--workers", "2", "--max-restarts", str(restarts)]
    return subprocess.Popen(
        [sys.executable, "-m", "tfsft", "launch", *options, "--", "run", str(RECIPE),
         "--run-dir", place, *words],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finish(process, code=0):
    said, _ = process.communicate(timeout=900)
    assert process.returncode == code, said
    return said


def left_by(folder):
    """Returns what must not depend on what happened to a run."""
    newest = max(path for path in (folder / "checkpoints").iterdir() if path.is_dir())
    texts = [(folder / name).read_text() for name in ("history.csv", "predictions.csv")]
    return load_file(newest / "state.safetensors"), texts


def assert_same(folder, undisturbed):
    (arrays, texts), (expected, expected_texts) = left_by(folder), left_by(undisturbed)
    assert arrays.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(arrays[name], value, err_msg=name)
    assert texts == expected_texts


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The same run by two local processes."""
    folder = tmp_path_factory.mktemp("local") / "run"
    finish(launch("local", str(folder)))
    return folder


def tfsft_processes(folder):
    """The processes of workers, by their number in TF_CONFIG."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            environment = (path / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in words and b"run" in words[:4]:
            index = 1 if b'"index": 1' in environment else 0
            found[index] = int(path.name)
    return found


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@needs_ray
@pytest.mark.slow
def test_ray_starts_a_killed_worker_again(undisturbed, tmp_path):
    """Ray's own process is killed, so that what it has started must end by itself."""
    folder = tmp_path / "run"
    process = launch("ray", str(folder), "--wait", "0.5")
    while not (folder / "checkpoints").exists():
        time.sleep(0.2)
        assert process.poll() is None, process.stdout.read()
    worker = tfsft_processes(folder)[1]
    os.kill(parent_of(worker), signal.SIGKILL)
    killed = time.monotonic()
    while tfsft_processes(folder).get(1) == worker:
        assert time.monotonic() - killed < 10
        time.sleep(0.1)
    said = finish(process)
    assert "Going on from" in said
    assert_same(folder, undisturbed)
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


@needs_ray
@pytest.mark.slow
def test_ray_with_the_run_on_object_storage(undisturbed, tmp_path):
    """What the recipe runs in is killed; the run folder is a URL."""
    url = f"file://{tmp_path}/bucket/run"
    finish(launch("ray", url, trouble=f"1 whole 9 {signal.SIGKILL}"))
    assert_same(tmp_path / "bucket" / "run", undisturbed)
    assert {path.name for path in (tmp_path / "bucket").iterdir()} == {"run"}


@needs_ray
@pytest.mark.slow
def test_ray_gives_up_and_says_why(tmp_path):
    folder = tmp_path / "run"
    trouble = f"1 whole 9 {signal.SIGKILL}"
    said = finish(launch("ray", str(folder), restarts=0, trouble=trouble), 1)
    # Ray shows the RuntimeError of its worker as well, before.
    message = said[said.index("\nError: Worker 1 of 2 (process ") :]
    assert "was killed by SIGKILL." in message
    assert f"--run-dir {folder} --strategy" not in message
    assert f"--run-dir {folder} --go-on" in message
    assert "Traceback" not in message
