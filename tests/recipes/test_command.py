"""The commands as a person types them, each in a process of its own, on real pictures."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

SETTINGS = ["--image-size", "32", "--batch-size", "8", "--epochs", "6", "--hidden-units", "16",
            "--learning-rate", "0.03", "--patience", "0"]  # fmt: skip


@pytest.fixture(scope="module")
def options(flowers, tiny_backbone):
    return ["--data", str(flowers), "--backbone", tiny_backbone, *SETTINGS]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, options):
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("command")
    command = [sys.executable, "-m", "tfsft", "run", "image_cls", *options, "--run-dir", "run"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder / "run", done.stdout


def weights(run):
    newest = max((run / "checkpoints").glob("0*"))
    return load_file(newest / "state.safetensors")


def test_lines_when_nobody_watches(finished):
    _, output = finished
    lines = output.splitlines()
    assert sum(line.startswith("head ") for line in lines) == 6
    assert sum(line.startswith("unfrozen ") for line in lines) == 6
    assert "\r" not in output
    assert "\x1b" not in output


def test_run_folder_has_what_the_design_says(finished):
    run, _ = finished
    assert {path.name for path in run.iterdir()} == {
        "config.json", "recipe.py", "model.keras", "task.json", "metrics.json", "history.csv",
        "predictions.csv", "report.html", "README.md", "suspicious.csv", "tensorboard",
        "checkpoints", "log.txt",
    }  # fmt: skip


def test_predict(finished, flowers, tfsft, tmp_path):
    run, _ = finished
    done = tfsft("predict", run, flowers / "red" / "0.jpg", flowers / "blue")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 25
    assert lines[0].split()[1] == "red"

    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no")
    done = tfsft("predict", run, flowers / "red" / "0.jpg", tmp_path / "broken.jpg", "--json")
    answer = json.loads(done.stdout)[0]
    assert answer["prediction"] == "red"
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert "broken.jpg" in done.stderr

    shutil.copy(flowers / "green" / "1.png", tmp_path)
    (tmp_path / "in.csv").write_text("path\n1.png\n")
    done = tfsft("predict", run, "--csv", tmp_path / "in.csv", "--out", tmp_path / "out.csv")
    with open(tmp_path / "out.csv") as file:
        assert next(csv.DictReader(file))["prediction"] == "green"


def test_evaluate_gives_the_figures_of_the_run(finished, tfsft, tmp_path, flowers):
    """The test pictures of the run, laid out as a folder, score as they did in the run."""
    run, _ = finished
    with open(run / "predictions.csv") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        (tmp_path / "data" / row["label"]).mkdir(parents=True, exist_ok=True)
        shutil.copy(flowers / row["id"], tmp_path / "data" / row["label"])
    done = tfsft("evaluate", run, "--data", tmp_path / "data", "--json", "--out", "out.csv")
    assert done.returncode == 0, done.stderr
    expected = json.loads((run / "metrics.json").read_text())["test"]
    actual = json.loads(done.stdout)
    assert actual["examples"] == len(rows)
    assert actual["accuracy"] == expected["accuracy"]
    assert actual["log_loss"] == pytest.approx(expected["log_loss"], rel=1e-5)
    assert (tmp_path / "out.csv").exists()

    (tmp_path / "data" / "violet").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "data" / "violet" / "1.png")
    done = tfsft("evaluate", run, "--data", tmp_path / "data")
    assert done.returncode == 1
    assert "violet" in done.stderr


def start(cwd, *words):
    command = [sys.executable, "-m", "tfsft", "run", "image_cls", *map(str, words)]
    return subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )


@pytest.mark.parametrize(
    ("number", "after", "code"),
    [
        (signal.SIGTERM, "unfrozen 3/", 143),
        pytest.param(signal.SIGINT, "head 2/", 130, marks=pytest.mark.slow),
    ],
)
def test_stopped_and_resumed_is_the_same_run(finished, options, tmp_path, number, after, code):
    run, _ = finished
    process = start(tmp_path, *options, "--run-dir", "run")
    for line in process.stdout:
        if line.startswith(after):
            process.send_signal(number)
            break
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code
    resume = next(line.strip() for line in errors.splitlines() if "--resume" in line)
    assert not (tmp_path / "run" / "model.keras").exists()
    words = resume.removeprefix("tfsft run image_cls ").split()
    process = start(tmp_path, *words)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "Going on from phase" in output
    before, after_resume = weights(run), weights(tmp_path / "run")
    assert before.keys() == after_resume.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(value, after_resume[name], err_msg=name)
    for name in ("history.csv", "predictions.csv"):
        assert (tmp_path / "run" / name).read_text() == (run / name).read_text()


@pytest.mark.slow
def test_two_devices_train_the_same_weights(options, tmp_path):
    """AdamW, clipping, accumulation and uneven tails on one device and on two, dropout 0."""
    found = []
    for name, extra in (
        ("one", []),
        ("two", ["--strategy", "mirrored", "--devices", "cpu:0,cpu:1", "--accumulate", "2"]),
    ):
        fixed = [*options, "--dropout", "0", "--clip-norm", "0.5", "--epochs", "2"]
        process = start(tmp_path, *fixed, *extra, "--run-dir", name)
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        found.append(weights(tmp_path / name))
    one, two = found
    for key, value in one.items():
        if key.startswith("model/") and "seed" not in key:
            np.testing.assert_allclose(value, two[key], atol=1e-5, err_msg=key)


def test_bad_pictures(flowers, options, tfsft, tmp_path):
    shutil.copytree(flowers, tmp_path / "data")
    cut = tmp_path / "data" / "red" / "0.jpg"
    cut.write_bytes(cut.read_bytes()[:300])
    words = ["run", "image_cls", *options, "--data", tmp_path / "data", "--epochs", "1"]
    done = tfsft(*words, "--run-dir", "stopped")
    assert done.returncode == 1
    assert "red/0.jpg" in done.stderr
    assert "Traceback" not in done.stderr

    done = tfsft(*words, "--run-dir", "run", "--on-bad", "skip")
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "run" / "config.json").read_text())["data"]
    assert [example["id"] for example in facts["bad"]] == ["red/0.jpg"]
    assert facts["train"] + facts["validation"] + facts["test"] == 59

    done = tfsft("check", "image_cls", *words[2:])
    assert done.returncode == 1
    assert "red/0.jpg" in done.stdout
    assert "Time to finish" in done.stdout


def test_mistakes_before_anything_is_read(finished, options, tfsft, tmp_path):
    run, _ = finished
    start = time.monotonic()
    for words, named in (
        (["--epoch", "3"], "--epochs"),
        (["--run-dir", run], "not empty"),
        (["--resume", tmp_path], "is not a run folder"),
        (["--batch-size", "0"], "1"),
    ):
        done = tfsft("run", "image_cls", *options, *words)
        assert done.returncode == 2, (words, done.stderr)
        assert named in done.stderr
    assert time.monotonic() - start < 20  # none of them starts TensorFlow
    done = tfsft("run", "image_cls", *options, "--resume", run, "--seed", "9")
    assert done.returncode == 2
    assert "seed was 0, now 9" in done.stderr
    done = tfsft("run", "image_cls", *options, "--data", tmp_path / "nowhere")
    assert done.returncode == 1
    assert "nowhere" in done.stderr
    done = tfsft("run", "image_cls", *options, "--unfreeze", "conv9")
    assert done.returncode == 2
    assert "conv1" in done.stderr


def test_a_full_disk_is_said_and_training_goes_on(options, tmp_path):
    """A checkpoint that cannot be written for want of space."""
    code = (
        "import errno, sys\n"
        "from tfsft.training import checkpoints\n"
        "def full(*_, **__):\n"
        "    raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "checkpoints.write_tensors = full\n"
        "from tfsft.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    words = ["run", "image_cls", *options, "--epochs", "1", "--run-dir", "run"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=tmp_path, env=os.environ, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "No space is left to write a checkpoint" in done.stdout
    assert (tmp_path / "run" / "model.keras").exists()
