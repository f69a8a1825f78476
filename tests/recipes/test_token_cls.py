"""The tagger learns its sample's kind of data and says where in a text its entities are."""

import csv
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfsft import data, models, training
from tfsft.errors import UserError
from tfsft.export import load_predictor
from tfsft.recipes import token_cls

SMALL = {"epochs": 15, "batch_size": 8, "max_length": 32, "stride": 8, "warmup": 0.0,
         "learning_rate": 3e-3, "backbone_dropout": 0.0}  # fmt: skip
ANIMALS = ["fox", "dog", "quick fox"]
OTHERS = ["the", "a", "one", "new", "was", "over", "under", "few", "old", ","]


def sentences(count):
    """Sentences with their tags: an animal of one or two words somewhere between others."""
    random = np.random.default_rng(2)
    for _ in range(count):
        before, after = (random.choice(OTHERS, random.integers(0, 9)).tolist() for _ in range(2))
        animal = random.choice(ANIMALS).split()
        tags = ["O"] * len(before) + ["B-ANI", "I-ANI"][: len(animal)] + ["O"] * len(after)
        yield [*before, *animal, *after], tags


@pytest.fixture(scope="module")
def conll(tmp_path_factory):
    path = tmp_path_factory.mktemp("tags") / "animals.conll"
    blocks = ("\n".join(f"{w}\t{t}" for w, t in zip(*s, strict=True)) for s in sentences(160))
    path.write_text("\n\n".join(blocks) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, conll, tiny_encoder, cache):
    folder = tmp_path_factory.mktemp("runs") / "animals"
    # Of few sentences, how many of 25 entities it finds depends on the seed.
    config = token_cls.Config(data=conll, backbone=tiny_encoder, seed=1, **SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFSFT_CACHE", cache)
        with training.Run("token_cls", config, run_dir=folder) as run:
            token_cls.main(config, run)
            return run


def test_it_learns_what_an_animal_is(finished):
    metrics = json.loads((finished.dir / "metrics.json").read_text())["test"]
    assert metrics["f1"] >= 0.9
    assert [row["class"] for row in metrics["per_class"]] == ["ANI"]
    task = json.loads((finished.dir / "task.json").read_text())
    assert task["tags"] == ["O", "B-ANI", "I-ANI"]


def test_predictions_show_the_entities(finished):
    with open(finished.dir / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"id", "label", "prediction", "probability", "text"} <= set(rows[0])
    assert all(row["label"].startswith("ANI: ") for row in rows)
    assert (finished.dir / "report.html").is_file()


def test_spans_are_places_in_the_text_as_it_was_typed(finished):
    predictor = load_predictor(finished.dir)
    texts = ["Over  the\tOLD  fox!", "a dog, a fox", "one " * 60 + "quick fox" + " old" * 60]
    answers, _ = predictor.answer(predictor.read(texts))
    for text, answer in zip(texts, answers, strict=True):
        assert answer["text"] == text
        for entity in answer["entities"]:
            assert text[entity["start"] : entity["end"]] == entity["text"]
    assert [e["text"] for e in answers[1]["entities"]] == ["dog", "fox"]
    # Far beyond the limit of 32 tokens: seen in windows.
    assert "fox" in answers[2]["prediction"]


def test_answers_do_not_depend_on_the_batch(finished):
    predictor = load_predictor(finished.dir)
    texts = [" ".join(words) for words, _ in sentences(6)]

    def answers(inputs):
        return [a["probability"] for a in predictor.answer(predictor.read(inputs))[0]]

    np.testing.assert_allclose([answers([text])[0] for text in texts], answers(texts), atol=1e-5)


def test_evaluate_on_other_data(finished, conll, tmp_path):
    predictor = load_predictor(finished.dir)
    source, _ = predictor.labelled(conll, split="all")
    metrics, rows = predictor.evaluate(source)
    assert metrics["examples"] == len(rows) == 160
    other = tmp_path / "other.conll"
    other.write_text("Rome\tB-LOC\nis\tO\n\nold\tO\n")
    with pytest.raises(UserError, match="LOC"):
        predictor.labelled(str(other))


def test_every_word_counts_the_same_however_batches_are_cut(conll, tiny_encoder):
    """One step of plain gradient descent on the mean over all words, by hand and by FineTuner."""
    splits = token_cls.load_data(token_cls.Config(data=conll))
    expected = None
    for accumulate in (None, 4):
        keras.utils.set_random_seed(1)
        backbone = models.load_text_backbone(tiny_encoder)
        model = token_cls.build_model(3, backbone, dropout=0.0)
        models.unfreeze(model, "all")
        encoder = data.TagEncoder(backbone.tokenizer, 32, stride=8)
        feed = data.TextFeed(splits.train, encoder, num_outputs=3)
        pipeline = feed.pipeline(128, shuffle=True)
        assert pipeline.steps == 1
        if accumulate is None:
            inputs, targets, weights = next(iter(pipeline.epoch()))
            with tf.GradientTape() as tape:
                probabilities = model(inputs, training=True)
                losses = -tf.reduce_sum(targets * tf.math.log(probabilities), -1)
                mean = tf.reduce_sum(losses * weights) / tf.reduce_sum(weights)
            variables = model.trainable_variables
            gradients = tape.gradient(mean, [v.value for v in variables])
            pairs = zip(variables, gradients, strict=True)
            expected = [np.asarray(v) - 0.1 * tf.convert_to_tensor(g).numpy() for v, g in pairs]
            assert 0 < int(tf.reduce_sum(weights)) < tf.size(weights)
            continue
        tuner = training.FineTuner(model, accumulate=accumulate)
        tuner.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy")
        tuner.fit(pipeline)
        for found, wanted in zip(model.trainable_variables, expected, strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_the_sample_has_the_format(tiny_encoder):
    splits = token_cls.load_data(token_cls.Config())
    assert isinstance(splits, data.Splits)
    assert {"PER", "ORG", "LOC"} == set(splits.class_names)
