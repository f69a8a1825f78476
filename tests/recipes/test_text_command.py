"""The commands on texts as a person types them, each in a process of its own."""

import csv
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

SETTINGS = ["--epochs", "4", "--batch-size", "16", "--max-length", "32", "--learning-rate", "0.003"]


@pytest.fixture(scope="module")
def options(weather, tiny_encoder):
    return ["--data", weather, "--backbone", tiny_encoder, *SETTINGS]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, options, cache):
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("command")
    done = subprocess.run(
        [sys.executable, "-m", "tfsft", "run", "text_cls", *options, "--run-dir", "run"],
        cwd=folder,
        env=os.environ | {"TFSFT_CACHE": cache},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder / "run", done.stdout


def weights(run):
    newest = max((run / "checkpoints").glob("0*"))
    return load_file(newest / "state.safetensors")


def test_the_run_says_what_it_took_and_leaves_its_tokenizer(finished):
    run, output = finished
    assert "Text is column 'text', label column 'label' of weather.csv (UTF-8, comma)." in output
    assert "of a batch is padding" in output
    assert {path.name for path in run.iterdir()} == {
        "config.json", "recipe.py", "model.keras", "task.json", "metrics.json", "history.csv",
        "predictions.csv", "report.html", "README.md", "suspicious.csv", "tensorboard",
        "checkpoints", "log.txt",
        "tokenizer",
    }  # fmt: skip


def test_predict(finished, tfsft, tmp_path):
    run, _ = finished
    (tmp_path / "fox.txt").write_text("under the fox")
    done = tfsft("predict", run, "the sun ☀ 太阳", tmp_path / "fox.txt", "--json")
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert [answer["text"] for answer in answers] == ["the sun ☀ 太阳", "under the fox"]
    assert sum(answers[0]["probabilities"].values()) == pytest.approx(1, abs=1e-6)

    (tmp_path / "new.csv").write_text("number,text\n1,the dog\n2,a short word\n")
    done = tfsft("predict", run, "--csv", "new.csv", "--out", "answers.csv")
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "answers.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["new.csv:2", "new.csv:3"]


def test_explain(finished, weather, tfsft):
    run, _ = finished
    done = tfsft("explain", run, "the <sun> and the fox", "--worst", "2")
    assert done.returncode == 0, done.stderr
    page, *worst = done.stdout.splitlines()
    assert page.endswith("explanations/01-the-sun-and-the-fox.html")
    with open(page, encoding="utf-8") as file:
        assert "&lt;sun" in file.read()
    assert len(worst) + ("no mistakes" in done.stderr) == 1


@pytest.mark.slow
def test_evaluate(finished, weather, tfsft):
    run, _ = finished
    done = tfsft("evaluate", run, "--data", weather, "--label-column", "label", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["examples"] == 150
    done = tfsft("evaluate", run, "--data", weather, "--image-column", "x")
    assert done.returncode == 2
    assert "--text-column" in done.stderr


@pytest.mark.slow
def test_check(options, tfsft):
    done = tfsft("check", "text_cls", *options)
    assert done.returncode == 0, done.stderr
    for words in ("106 train, 22 validation, 22 test", "Texts:", "finetune: trains", "Peak memory"):
        assert words in done.stdout


@pytest.mark.slow
def test_stopped_and_resumed_is_the_same_run(finished, options, cache, tmp_path):
    run, _ = finished

    def start(*words):
        return subprocess.Popen(
            [sys.executable, "-m", "tfsft", "run", "text_cls", *words],
            cwd=tmp_path,
            env=os.environ | {"TFSFT_CACHE": cache, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    process = start(*options, "--run-dir", "run")
    for line in process.stdout:
        if line.startswith("finetune 2/"):
            process.send_signal(signal.SIGTERM)
            break
    process.communicate(timeout=120)
    assert process.returncode == 143
    process = start(*options, "--resume", "run")
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "Going on from phase" in output
    before, after = weights(run), weights(tmp_path / "run")
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name], err_msg=name)
    for name in ("history.csv", "predictions.csv"):
        assert (tmp_path / "run" / name).read_text() == (run / name).read_text()
