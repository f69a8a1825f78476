"""An ONNX or LiteRT file answers as its run does, where there is no TensorFlow."""

import functools
import json
import subprocess
import sys

import numpy as np
import pytest
from held_out_runs import write_picture_run, write_text_run

from tfsft.export import export_portable, load_predictor

FORMATS = ("onnx", "litert")


@pytest.fixture(scope="session")
def held_out_run(tmp_path_factory, make_run):
    """Makes the folder of a run with its data."""
    import text_families
    import text_runs

    @functools.cache
    def encoder(family):
        folder = tmp_path_factory.mktemp(family)
        text_families.save_tiny(family, folder, max_sequence_length=text_runs.POSITIONS)
        return folder

    @functools.cache
    def make(name, family="bert"):
        folder = tmp_path_factory.mktemp(f"{family}-{name}") / "run"
        folder.mkdir()
        if name == "pictures":
            write_picture_run(folder)
        else:
            write_text_run(folder, name, encoder(family))
        return folder

    return make


def ask(folder, *inputs):
    """Runs example.py as a person does; returns what it says."""
    blocked = "import sys; sys.modules |= dict.fromkeys(['tensorflow', 'keras', 'tfsft']);"
    code = f"{blocked} import runpy; sys.path.insert(0, '.'); runpy.run_path('example.py')"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, *inputs],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(("name", "format"), [("pictures", "litert"), ("texts", "onnx")])
def test_answers_where_there_is_no_tensorflow(held_out_run, tmp_path, name, format):
    check(held_out_run(name), tmp_path / "out", name, format)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("pictures", "bert"),
        ("texts", "xlm_roberta"),
        ("pairs", "bert"),
        ("pairs", "albert"),
        ("numbers", "distil_bert"),
        ("tags", "bert"),
        ("tags", "roberta"),
        ("questions", "bert"),
        ("questions", "deberta_v3"),
    ],
)
def test_every_task(held_out_run, tmp_path, name, format, family):
    check(held_out_run(name, family), tmp_path / "out", name, format)


def check(run, out, name, format):
    exported = export_portable(run, out, format)
    certificate = json.loads((out / "certificate.json").read_text())
    assert exported.difference == certificate["difference"] < 1e-4
    assert certificate["agreement"] == 1.0
    assert certificate["keras"]["score"] == certificate["exported"]["score"]
    predictor = load_predictor(run)
    if name == "pictures":
        inputs = sorted(map(str, (run.parent / "run-data").rglob("*.*")))[::9]
        expected, _ = predictor.answer(inputs)
        found = ask(out, *inputs)
    else:
        columns = {column: ["the quick fox", "Élodie, a dog? 😀"] for column in predictor.columns}
        expected, _ = predictor.answer(predictor.plain(columns, ["0", "1"]))
        words = [text for pair in zip(*columns.values(), strict=True) for text in pair]
        found = ask(out, *words)
    assert len(found) == len(expected)
    for ours, theirs in zip(expected, found, strict=True):
        same_answer(ours, theirs)


def same_answer(ours, theirs):
    if "probabilities" in ours:
        assert theirs["probabilities"] == pytest.approx(ours["probabilities"], abs=1e-4)
        assert theirs.get("label", ours["prediction"]) == ours["prediction"]
    elif "entities" in ours:
        sure = np.prod([probability for *_, probability in theirs["words"]])
        assert sure == pytest.approx(ours["probability"], abs=1e-4)
    elif "answer" in theirs:
        assert theirs["answer"] == ours["prediction"]
        assert theirs["probability"] == pytest.approx(ours["probability"], abs=1e-4)
    else:
        assert theirs["value"] == pytest.approx(ours["prediction"], rel=1e-5)
