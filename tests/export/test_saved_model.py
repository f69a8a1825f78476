"""A SavedModel answers as its run does, in a process with nothing but TensorFlow and its texts."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from held_out_runs import write_picture_run, write_text_run
from PIL import Image
from text_runs import TEXTS

from tfsft.errors import UsageError, UserError
from tfsft.evaluation.predictions import read_predictions
from tfsft.evaluation.tags import tag_spans
from tfsft.export import certifying, export_saved_model, load_predictor, saved_model, served
from tfsft.export.held_out import find_held_out
from tfsft.export.replaying import Replay

SERVE = """
import json, sys
found = []
for usage, columns in json.load(sys.stdin):
    exec(usage)  # loads it as `model`
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
    """Loads SavedModels in a fresh process, as a person is told to, and returns their answers."""
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


@pytest.fixture
def untimed(monkeypatch):
    """Leaves out what only takes the time of Keras."""
    monkeypatch.setattr(certifying, "replay_keras", lambda *_: Replay([], 0.1, 0.1, 1))


def test_answers_of_a_fresh_process(make_run, held_out_run, tmp_path, untimed):
    runs = {"texts": make_run("texts"), "tags": held_out_run("tags")}
    runs["questions"] = make_run("questions")
    asked = []
    for name, run in runs.items():
        exported = export_saved_model(run, tmp_path / name, certified=name == "tags")
        assert exported.difference < 1e-5
        columns = dict(zip(NAMES[name], columns_of(name), strict=True))
        asked += [(exported.usage, columns)]
    for (name, run), (_, columns), found in zip(
        runs.items(), asked, serve_elsewhere(asked), strict=True
    ):
        check(name, run, list(columns.values()), found)
    task = json.loads((tmp_path / "texts" / "assets.extra" / "task.json").read_text())
    assert task == json.loads((runs["texts"] / "task.json").read_text())
    assert {path.name for path in tmp_path.iterdir()} == set(runs)  # nothing else is left
    check_certificate(runs["tags"], tmp_path / "tags")


def check_certificate(run, folder):
    """It is of the examples of predictions.csv, and has the figure that `tfsft evaluate` gives."""
    found = json.loads((folder / "certificate.json").read_text())
    rows = read_predictions(run / "predictions.csv")
    assert found["examples"] == len(rows) > 5
    assert 0 < found["difference"] < 1e-5
    assert found["agreement"] == 1.0
    assert found["exported"]["runtime"].startswith("TensorFlow ")
    predictor = load_predictor(run)
    metrics, _ = predictor.evaluate(find_held_out(predictor)[0])
    score = metrics[found["figure"]]
    assert found["keras"]["score"] == found["exported"]["score"] == pytest.approx(score)


@pytest.mark.slow
def test_the_certificate_of_questions(held_out_run, tmp_path):
    export_saved_model(held_out_run("questions"), tmp_path / "out", certified=True)
    check_certificate(held_out_run("questions"), tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", ["roberta", "deberta_v3", "albert", "xlm_roberta", "distil_bert"]
)
def test_every_kind_of_tokenizer(make_run, tmp_path, family):
    asked, names = [], ("numbers", "pairs", "tags", "questions")
    for name in names:
        exported = export_saved_model(make_run(name, family), tmp_path / name)
        columns = dict(zip(NAMES[name], columns_of(name), strict=True))
        asked += [(exported.usage, columns)]
        asked += [(exported.usage, {name: [] for name in columns})]
    found = serve_elsewhere(asked)
    for name, (_, columns), outputs in zip(names, asked[::2], found[::2], strict=True):
        run = make_run(name, family)
        check(name, run, list(columns.values()), outputs)
    assert all(value == [] for outputs in found[1::2] for value in outputs.values())


def test_a_folder_that_exists_is_refused(make_run, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="mine exists already"):
        export_saved_model(make_run("texts"), tmp_path / "mine")


def test_what_is_no_run_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(UsageError, match="is not the folder of a run"):
        export_saved_model(tmp_path / "run", tmp_path / "run" / "saved_model")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_answers_differently_is_removed(make_run, tmp_path, monkeypatch):
    pack = served.pack_texts
    monkeypatch.setattr(
        served, "pack_texts", lambda encoder, texts: pack(encoder, [texts[0] + "x"])
    )
    with pytest.raises(UserError, match="answers differently"):
        export_saved_model(make_run("texts"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_pictures_of_any_size(tmp_path, monkeypatch):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 3), dtype="uint8", name="pictures")
    x = keras.layers.Resizing(16, 16, antialias=True, dtype="uint8", name="resize")(inputs)
    x = keras.layers.Rescaling(1 / 255, dtype="float32")(x)
    outputs = keras.layers.Dense(3, "softmax")(keras.layers.Flatten()(x))
    run = tmp_path / "run"
    run.mkdir()
    keras.Model(inputs, outputs).save(run / "model.keras")
    (run / "config.json").write_text("{}")
    task = {"task": "image_classification", "labels": "single", "image_size": 16}
    (run / "task.json").write_text(json.dumps(task | {"class_names": ["a", "b", "c"]}))
    exported = export_saved_model(run, run / "saved_model")
    assert exported.difference < 1e-5
    assert "tensorflow_text" not in exported.usage


def test_encoded_pictures(tmp_path):
    """Files of several formats, one of them with transparency, give what `tfsft predict` says."""
    run, out = tmp_path / "run", tmp_path / "out"
    run.mkdir()
    write_picture_run(run)
    export_saved_model(run, out)
    files = sorted(map(str, (tmp_path / "run-data").rglob("*.*")))[::5]
    clear = tmp_path / "clear.png"
    Image.fromarray(np.arange(4800, dtype=np.uint32).astype(np.uint8).reshape(30, 40, 4)).save(
        clear
    )
    predictor = load_predictor(run)
    answers, _ = predictor.answer([*files, str(clear)])
    assert {Path(file).suffix for file in files} == {".jpg", ".png", ".webp"}
    model = tf.saved_model.load(str(out))
    found = model.signatures["encoded"](
        image_bytes=tf.constant([Path(file).read_bytes() for file in [*files, clear]])
    )
    expected = [list(answer["probabilities"].values()) for answer in answers]
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-4)
    assert [label.decode() for label in found["label"].numpy()] == [
        a["prediction"] for a in answers
    ]


@pytest.mark.slow
def test_the_command(make_run, tfsft, tmp_path):
    """It compares on the texts that the run was tested on, and says how to use what it wrote."""
    run = tmp_path / "run"
    shutil.copytree(make_run("pairs"), run)
    rows = ["id,label,prediction,probability,text", '1,a,a,0.5,"the fox\nthe dog"', "2,a,a,0.5,sun"]
    (run / "predictions.csv").write_text("\n".join(rows) + "\n")
    columns = {"text_column": "text", "text_pair_column": "pair", "label_column": "label"}
    (run / "config.json").write_text(json.dumps({"settings": columns}))
    gone = tfsft("export", run)
    assert gone.returncode == 1
    assert "--data" in gone.stderr
    other = tmp_path / "other.csv"
    other.write_text("text,pair,label\nthe fox,the dog,weather\nsun,fox,天气\n")
    done = tfsft("export", run, "--data", other)
    assert (done.returncode, done.stderr.count("\n")) == (0, 2), done.stderr
    assert "On 2 held-out examples 100% of its answers are those of the run" in done.stderr
    texts = {"text": ["the fox", ""], "pair": ["the dog", "fox"]}
    check("pairs", run, list(texts.values()), *serve_elsewhere([(done.stdout, texts)]))
    assert (run / "saved_model" / "saved_model.pb").exists()
    assert (run / "saved_model" / "certificate.html").exists()


@pytest.mark.slow
def test_the_certificate_of_pictures(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    write_picture_run(run)
    turned = tmp_path / "run-data" / "red" / "0.jpg"  # a camera held upright
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(turned).save(turned, exif=exif, quality=95)
    exported = export_saved_model(run, tmp_path / "out", certified=True)
    found = json.loads((tmp_path / "out" / "certificate.json").read_text())
    assert (found["examples"], found["agreement"]) == (30, 1.0)
    assert exported.certificate.difference == found["difference"] < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("name", "part"), [("tags", "tags"), ("questions", "probability")])
def test_a_wrong_choice_is_refused(held_out_run, tmp_path, monkeypatch, untimed, name, part):
    """The model has other names of tags, or is surer than it should be: nothing else differs."""
    monkeypatch.setattr(saved_model, "compare", lambda *_: (1, 0.0))
    serve = saved_model._SERVE

    def wrong(model, encoder, task):
        of_task = task | {"tags": [*task["tags"][1:], task["tags"][0]]} if "tags" in task else task
        function, signature = serve[task["task"]](model, encoder, of_task)
        if part == "tags":
            return function, signature
        return lambda *texts: (found := function(*texts)) | {part: found[part] * 1.01}, signature

    monkeypatch.setattr(saved_model, "_SERVE", dict.fromkeys(serve, wrong))
    with pytest.raises(UserError, match="answers differently from the run"):
        export_saved_model(held_out_run(name), tmp_path / "out", certified=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tags", "questions"])
def test_half_precision_may_choose_otherwise(encoder, tmp_path, untimed, name):
    """Of random weights many choices are nearly equal, and rounding decides."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        (tmp_path / "run").mkdir()
        write_text_run(tmp_path / "run", name, encoder("bert"))
    finally:
        keras.config.set_dtype_policy(before)
    exported = export_saved_model(tmp_path / "run", tmp_path / "out", certified=True)
    assert 0 < exported.difference < saved_model.HALF_PRECISION_TOLERANCE
    assert 0 < exported.certificate.difference < saved_model.HALF_PRECISION_TOLERANCE
