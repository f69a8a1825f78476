"""Real workers that are killed, stopped and lost: what they say, and that they go on exactly."""

import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import h5py
import numbers_recipe
import numpy as np
import pytest
from worker_processes import start_workers

RECIPE = Path(numbers_recipe.__file__)


def launch(folder, *words, options=("--workers", "2"), trouble=None):
    """Starts `tfsft launch`; returns the process."""
    environment = os.environ | ({"NUMBERS_TROUBLE": trouble} if trouble else {})
    place = () if "--resume" in words else ("--run-dir", str(folder))
    command = [sys.executable, "-m", "tfsft", "launch", *options, "--", "run", str(RECIPE)]
    return subprocess.Popen(
        [*command, *place, *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process, code=0):
    out, error = process.communicate(timeout=300)
    assert process.returncode == code, out + error
    return out, error


def left_by(folder):
    """Returns what must not depend on what happened to a run: weights, history, predictions."""
    archive = zipfile.ZipFile(folder / "model.keras")
    weights = {}
    with h5py.File(archive.open("model.weights.h5")) as file:
        file.visititems(
            lambda name, item: weights.update({name: item[()]} if hasattr(item, "shape") else {})
        )
    texts = {name: (folder / name).read_text() for name in ("history.csv", "predictions.csv")}
    return weights, texts


def assert_same(folder, undisturbed):
    (weights, texts), (expected, expected_texts) = left_by(folder), undisturbed
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(weights[name], value, err_msg=name)
    assert texts == expected_texts


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("launch") / "run"
    finish(launch(folder))
    return left_by(folder)


@pytest.mark.slow
def test_a_killed_worker_is_named_and_the_run_goes_on(undisturbed, tmp_path):
    process = launch(
        tmp_path / "run", options=("--max-restarts", "1"), trouble=f"1 whole 9 {signal.SIGKILL}"
    )
    out, error = finish(process)
    assert "Worker 1 of 2" in error
    assert "was killed by SIGKILL" in error
    assert "Going on from the end of phase 'head'" in out
    assert_same(tmp_path / "run", undisturbed)


@pytest.mark.slow
def test_a_signal_to_one_worker_stops_all_and_they_go_on_in_the_middle_of_an_epoch(
    undisturbed, tmp_path
):
    """Half-counted metrics, seeds of dropout and the optimizer are those of an unstopped run."""
    process = launch(tmp_path / "run", trouble=f"1 whole 9 {signal.SIGTERM}")
    _, error = finish(process, 143)
    command = f"tfsft launch --workers 2 --max-restarts 0 -- run {RECIPE}"
    assert f"{command} --resume {tmp_path / 'run'}" in error
    out, _ = finish(launch(tmp_path / "run", "--resume", str(tmp_path / "run")))
    assert "Going on from phase 'whole', epoch 2, step 4" in out
    assert_same(tmp_path / "run", undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopping_the_launcher_stops_the_run(undisturbed, tmp_path, number, code):
    process = launch(tmp_path / "run", "--wait", "0.3")
    while not list((tmp_path / "run").glob("history.csv")):
        time.sleep(0.2)
        assert process.poll() is None
    process.send_signal(number)
    _, error = finish(process, code)
    assert "the state is saved" in error
    finish(launch(tmp_path / "run", "--resume", str(tmp_path / "run"), "--wait", "0.3"))
    assert_same(tmp_path / "run", undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("dying", [0, 1])
def test_without_the_launcher_the_other_worker_ends_and_names_it(tmp_path, dying):
    words = ["run", str(RECIPE), "--strategy", "multiworker", "--run-dir", str(tmp_path / "run")]
    trouble = f"{dying} whole 9 {signal.SIGKILL}"
    processes = start_workers([sys.executable, "-m", "tfsft", *words], NUMBERS_TROUBLE=trouble)
    processes[dying].wait(timeout=300)
    died = time.monotonic()
    _, error = processes[1 - dying].communicate(timeout=60)
    assert time.monotonic() - died < 60
    assert processes[1 - dying].returncode == 75
    assert f"Worker {dying} (localhost:" in error
    assert "has ended or no longer answers, so worker" in error
    assert "Traceback" not in error
    assert "--resume" in error
