"""A SavedModel answers as the run does, in a process that has TensorFlow and its text operations."""

import json
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from text_runs import TEXTS

from tfsft.errors import UsageError, UserError
from tfsft.evaluation.tags import tag_spans
from tfsft.export import export_saved_model, load_predictor, served

SERVE = """
import json, sys
import tensorflow as tf
import tensorflow_text
found = []
for folder, columns in json.load(sys.stdin):
    model = tf.saved_model.load(folder)
    outputs = model.signatures["serving_default"](
        **{name: tf.constant(texts, tf.string, [len(texts)]) for name, texts in columns.items()}
    )
    again = model.serve(*(tf.constant(t, tf.string, [len(t)]) for t in columns.values()))
    for name, value in again.items():
        tf.debugging.assert_equal(value, outputs[name])
    found.append({
        name: tf.strings.unicode_decode(value, "UTF-8").to_list()
        if value.dtype == tf.string else value.numpy().tolist()
        for name, value in outputs.items()
    })
assert not {"tfsft", "keras_hub"} & set(sys.modules)
print(json.dumps(found))
"""
NAMES = {  # of what is served, by the columns of the run
    "texts": ["texts"],
    "numbers": ["texts"],
    "tags": ["texts"],
    "pairs": ["text", "pair"],
    "questions": ["question", "context"],
}


def columns_of(name):
    """Texts for each input: questions about long contexts, pairs of different lengths."""
    return [TEXTS, [*TEXTS[3:], *TEXTS[:3]]][-len(NAMES[name]) :]


def serve_elsewhere(asked):
    """Loads SavedModels in a fresh process and returns what each answers."""
    done = subprocess.run(
        [sys.executable, "-c", SERVE],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def text(letters):
    return "".join(map(chr, letters))


def expected_answers(run, columns):
    predictor = load_predictor(run)
    ids = [str(i) for i in range(len(columns[0]))]
    examples = predictor.plain(dict(zip(predictor.columns, columns, strict=True)), ids)
    return predictor.answer(examples)[0]


def check(name, run, columns, found):
    answers = expected_answers(run, columns)
    if name == "tags":
        return check_tags(answers, found)
    if name == "questions":
        assert [text(x) for x in found["answer"]] == [a["prediction"] for a in answers]
        for end in ("start", "end"):
            places = [None if x < 0 else x for x in found[end]]
            assert places == [a[end] for a in answers]
        expected = [a["probability"] for a in answers]
        return np.testing.assert_allclose(found["probability"], expected, atol=1e-5)
    if name == "numbers":
        expected = [a["prediction"] for a in answers]
        return np.testing.assert_allclose(found["value"], expected, rtol=1e-6)
    expected = [list(a["probabilities"].values()) for a in answers]
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5)
    if name == "texts":
        assert [text(x) for x in found["label"]] == [a["prediction"] for a in answers]
    return None


def check_tags(answers, found):
    for row, answer in enumerate(answers):
        starts, ends = (np.array(found[end][row]) for end in ("starts", "ends"))
        count = int((starts >= 0).sum())
        assert (ends[count:] == -1).all()
        words = [text(x) for x in found["words"][row]]
        assert words[:count] == [
            answer["text"][a:b] for a, b in zip(starts[:count], ends[:count], strict=True)
        ]
        assert set(words[count:]) <= {""}
        tags = [text(x) for x in found["tags"][row]][:count]
        entities = [(kind, starts[a], ends[b]) for kind, a, b in tag_spans(tags)]
        assert entities == [(e["type"], e["start"], e["end"]) for e in answer["entities"]]
        sure = np.prod(found["probabilities"][row][:count])
        assert sure == pytest.approx(answer["probability"], abs=1e-5)


def test_answers_of_a_fresh_process(make_run, tmp_path):
    runs = {name: make_run(name) for name in ("texts", "pairs", "tags", "questions")}
    asked = []
    for name, run in runs.items():
        exported = export_saved_model(run, tmp_path / name)
        assert exported.difference < 1e-5
        columns = dict(zip(NAMES[name], columns_of(name), strict=True))
        asked += [(str(tmp_path / name), columns)]
    for (name, run), (_, columns), found in zip(
        runs.items(), asked, serve_elsewhere(asked), strict=True
    ):
        check(name, run, list(columns.values()), found)
    task = json.loads((tmp_path / "texts" / "assets.extra" / "task.json").read_text())
    assert task == json.loads((runs["texts"] / "task.json").read_text())
    assert {path.name for path in tmp_path.iterdir()} == set(runs)  # nothing else is left


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", ["roberta", "deberta_v3", "albert", "xlm_roberta", "distil_bert"]
)
def test_every_kind_of_tokenizer(make_run, tmp_path, family):
    asked, names = [], ("numbers", "pairs", "tags", "questions")
    for name in names:
        export_saved_model(make_run(name, family), tmp_path / name)
        columns = dict(zip(NAMES[name], columns_of(name), strict=True))
        asked += [(str(tmp_path / name), columns)]
        asked += [(str(tmp_path / name), {name: [] for name in columns})]
    found = serve_elsewhere(asked)
    for name, (_, columns), outputs in zip(names, asked[::2], found[::2], strict=True):
        run = make_run(name, family)
        check(name, run, list(columns.values()), outputs)
    assert all(value == [] for outputs in found[1::2] for value in outputs.values())
