"""The recipe learns texts, says what it did with them, and leaves a model that takes strings."""

import csv
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from text_families import hugging_face_bert

from tfsft import data, models, training
from tfsft.errors import UsageError
from tfsft.export import load_predictor
from tfsft.recipes import text_cls

SMALL = {"epochs": 1, "batch_size": 8, "max_steps": 3, "max_length": 32, "warmup": 0.0}
LEARNING = {"epochs": 12, "max_steps": 0, "learning_rate": 3e-3, "backbone_dropout": 0.0}


def run_recipe(folder, **settings):
    config = text_cls.Config(**SMALL | settings)
    with training.Run("text_cls", config, run_dir=folder) as run:
        text_cls.main(config, run)
        return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory, weather, tiny_encoder, cache):
    folder = tmp_path_factory.mktemp("runs") / "weather"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFSFT_CACHE", cache)
        return run_recipe(folder, data=weather, backbone=tiny_encoder, **LEARNING)


def metrics_of(run):
    return json.loads((run.dir / "metrics.json").read_text())


def test_it_learns_which_words_matter(finished):
    assert metrics_of(finished)["test"]["accuracy"] >= 0.9


def test_what_it_leaves(finished, weather):
    task = json.loads((finished.dir / "task.json").read_text())
    assert (task["task"], task["labels"]) == ("text_classification", "single")
    assert (task["inputs"], task["max_length"]) == (["text"], 32)
    assert (finished.dir / "tokenizer").is_dir()
    with open(weather, newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    with open(finished.dir / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "label", "prediction", "probability", "text"]
    for row in rows:  # the id is the line that a person sees
        assert row["text"] == texts[int(row["id"].split(":")[1]) - 2]
    tokens = json.loads((finished.dir / "config.json").read_text())["data"]["tokens"]
    assert tokens["train"]["examples"] + tokens["validation"]["examples"] + len(rows) == 150
    assert 0 <= tokens["train"]["padding_share"] < 0.2
    assert "padding" in (finished.dir / "log.txt").read_text()
    assert any(row["text"] in (finished.dir / "report.html").read_text() for row in rows)


@pytest.mark.slow
def test_the_model_needs_keras_alone(finished):
    code = """
import sys
sys.modules["tfsft"] = None
import keras, keras_hub, numpy as np
model = keras.models.load_model(sys.argv[1])
tokens = np.array([[2, 9, 9, 3]], "int32")
inputs = {"token_ids": tokens, "padding_mask": tokens * 0 + 1, "segment_ids": tokens * 0}
print(model(inputs).shape)
"""
    path = finished.dir / "model.keras"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.stdout.strip().endswith("(1, 2)"), done.stderr


def test_answers_do_not_depend_on_the_batch(finished):
    predictor = load_predictor(finished.dir)
    texts = [
        "the fox",
        "rain and wind over the old dog",
        "",
        "some " * 50 + "sun",
        "ein Fuchs 狐 🦊",
    ]

    def answers(inputs):
        found, bad = predictor.answer(predictor.plain({"text": inputs}, inputs))
        assert not bad
        return np.array([list(answer["probabilities"].values()) for answer in found])

    together = answers(texts)
    alone = np.concatenate([answers([text]) for text in texts])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    np.testing.assert_allclose(answers(texts[::-1])[::-1], together, atol=1e-5)
    assert together[0].argmax() == 0


def test_evaluate_gives_the_figures_of_the_run(finished, weather):
    predictor = load_predictor(finished.dir)
    source, bad = predictor.labelled(weather, split="all")
    metrics, rows = predictor.evaluate(source)
    assert (len(source), len(rows), bad) == (150, 150, ())
    right = {row.id: row.correct for row in rows}
    with open(finished.dir / "predictions.csv", newline="") as file:
        for row in csv.DictReader(file):
            assert right[row["id"]] == (row["label"] == row["prediction"])
    assert metrics["examples"] == 150


def tuned(model, pipeline, epochs=1, accumulate=1, **kwargs):
    with (kwargs.get("strategy") or tf.distribute.get_strategy()).scope():
        tuner = training.FineTuner(model, accumulate=accumulate, clip_norm=1.0)
        tuner.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy")
    tuner.fit(pipeline, epochs=epochs)
    return [np.asarray(v) for v in model.trainable_variables]


@pytest.fixture
def batches(weather, tiny_encoder):
    """Makes a model and the batches for it."""

    def make(**options):
        splits = text_cls.load_data(text_cls.Config(data=weather))
        keras.utils.set_random_seed(3)
        backbone = models.load_text_backbone(tiny_encoder)
        model = text_cls.build_model(2, backbone, dropout=0.0)
        models.unfreeze(model, "all")
        feed = data.TextFeed(splits.train, data.TextEncoder(backbone.tokenizer, 32), num_outputs=2)
        return model, feed.pipeline(8, shuffle=True, seed=2, **options)

    return make


def test_the_width_of_the_padding_changes_nothing(batches):
    """Logits, loss and gradients of one batch, at its own width and padded to 60."""
    model, pipeline = batches()
    inputs, targets, _ = next(iter(pipeline.epoch()))

    def results(inputs):
        with tf.GradientTape() as tape:
            outputs = model(inputs, training=True)
            loss = tf.reduce_mean(keras.losses.categorical_crossentropy(targets, outputs))
        gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
        return [outputs, loss, *map(tf.convert_to_tensor, gradients)]

    wide = {name: tf.pad(x, [[0, 0], [0, 60 - x.shape[1]]]) for name, x in inputs.items()}
    for narrow, padded in zip(results(inputs), results(wide), strict=True):
        np.testing.assert_allclose(narrow, padded, atol=1e-5)


@pytest.mark.parametrize(
    "way", [pytest.param("two replicas", marks=pytest.mark.slow), "parts", "by tokens"]
)
def test_however_a_batch_is_cut_the_weights_are_the_same(batches, mirrored, way):
    by_tokens = {"batch_tokens": 120, "multiple": 4} if way == "by tokens" else {}
    model, pipeline = batches(**by_tokens)
    assert pipeline.steps > 3
    expected = tuned(model, pipeline)
    if way == "two replicas":
        with mirrored.scope():
            model, pipeline = batches()
        found = tuned(model, pipeline, strategy=mirrored)
    else:
        model, pipeline = batches(**by_tokens)
        found = tuned(model, pipeline, accumulate=4)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)


@pytest.mark.slow
def test_a_frozen_backbone_is_computed_once(weather, tiny_encoder, tmp_path, capsys):
    run = run_recipe(
        tmp_path / "run", data=weather, backbone=tiny_encoder, unfreeze="none", epochs=3
    )
    assert "Computing frozen features of training examples" in capsys.readouterr().out
    before = models.load_text_backbone(tiny_encoder).model
    after = run.model.get_layer("backbone")
    for old, new in zip(before.weights, after.weights, strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.slow
def test_stages_open_one_after_another(weather, tiny_encoder, tmp_path):
    run = run_recipe(tmp_path / "run", data=weather, backbone=tiny_encoder, gradual=2)
    assert list(metrics_of(run)["timing"]["phases"]) == ["head", "stage 1", "stage 2"]


def test_updates_of_low_rank(weather, tiny_encoder, tmp_path):
    """Only the projections that were asked for differ, by a matrix of the rank asked for."""
    run = run_recipe(
        tmp_path / "run", data=weather, backbone=tiny_encoder, lora_rank=2, lora_targets="query"
    )
    assert (run.dir / "adapter" / "adapter_model.safetensors").is_file()
    saved = keras.models.load_model(run.dir / "model.keras").get_layer("backbone")
    changed = {}
    before = models.load_text_backbone(tiny_encoder).model
    for old, new in zip(before.weights, saved.weights, strict=True):
        difference = np.asarray(new) - np.asarray(old)
        if difference.any():
            changed[old.path] = np.linalg.matrix_rank(difference.reshape(16, 16), tol=1e-6)
    assert len(changed) == 2
    assert all("query" in path for path in changed)
    assert set(changed.values()) == {2}


@pytest.mark.slow
def test_chinese_utterances_on_a_chinese_bert(tmp_path, capsys):
    """From a Hugging Face folder with a vocabulary of characters, through data, page and screen."""
    splits = text_cls.load_data(text_cls.Config(data="topics:chinese"))
    letters = sorted({letter for text in splits.train.column("text") for letter in text.lower()})
    within = ["##" + letter for letter in letters if letter.isascii()]  # of names such as HAL
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *within]
    folder = tmp_path / "chinese-bert"
    folder.mkdir()
    hugging_face_bert(folder, [word for word in vocabulary if word.strip()])
    run = run_recipe(tmp_path / "run", data="topics:chinese", backbone=str(folder))
    tokens = run.config["data"]["tokens"]
    assert tokens["train"]["unknown_share"] == 0
    assert tokens["test"]["unknown_share"] < 0.1
    with open(run.dir / "predictions.csv", newline="", encoding="utf-8") as file:
        texts = {row["text"] for row in csv.DictReader(file)}
    assert texts == set(splits.test.column("text"))
    report = (run.dir / "report.html").read_text("utf-8")
    assert any(text in report for text in texts)
    answers, _ = load_predictor(run.dir).answer(load_predictor(run.dir).read(["你好吗"]))
    assert answers[0]["prediction"] in splits.class_names
    assert "Glyph" not in capsys.readouterr().err


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.slow
def test_several_labels(tiny_encoder, tmp_path):
    words = ["fox", "rain", "old"]
    random = np.random.default_rng(1)
    chosen = [random.choice(words, random.integers(0, 3), replace=False) for _ in range(40)]
    rows = [{"text": " ".join(["a text", *c, str(i)]), "labels": c.tolist()}
            for i, c in enumerate(chosen)]  # fmt: skip
    path = write(tmp_path / "several.jsonl", rows)
    run = run_recipe(tmp_path / "run", data=path, backbone=tiny_encoder, multi_label=True)
    assert {"f1_micro", "f1_macro", "f1_samples"} <= set(metrics_of(run)["test"])


def test_a_number_for_a_pair(tiny_encoder, tmp_path):
    rows = [
        {"premise": f"the fox {i}", "hypothesis": "a dog " * (i % 7), "score": 100 + i % 7}
        for i in range(40)
    ]
    path = write(tmp_path / "pairs.jsonl", [row for row in rows if row["hypothesis"]])
    run = run_recipe(tmp_path / "run", data=path, backbone=tiny_encoder, regression=True)
    assert {"pearson", "spearman", "mae"} <= set(metrics_of(run)["test"])
    predictor = load_predictor(run.dir)
    answers, _ = predictor.answer(predictor.read(["the fox", "a dog"]))
    assert 95 < answers[0]["prediction"] < 112  # near the mean before it has learned anything
    with pytest.raises(UsageError, match="text and pair"):
        predictor.read(["alone"])


@pytest.mark.parametrize(
    "settings",
    [
        {"multi_label": True, "regression": True},
        {"regression": True, "class_weight": "balanced"},
        {"lora_rank": 4, "gradual": 1},
        {"lora_rank": 4, "lora_targets": "qery"},
    ],
)
def test_settings_that_exclude_each_other(settings, tmp_path):
    with pytest.raises(UsageError):
        run_recipe(tmp_path / "run", data="nowhere.csv", **settings)
