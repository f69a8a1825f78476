"""The finder of answers learns where answers are, and that there may be none."""

import csv
import json

import numpy as np
import pytest

from tfsft import training
from tfsft.export import load_predictor
from tfsft.recipes import extractive_qa

SMALL = {"epochs": 12, "batch_size": 8, "max_length": 96, "stride": 6, "warmup": 0.0,
         "learning_rate": 3e-3, "backbone_dropout": 0.0, "max_answer_length": 4}  # fmt: skip
OTHERS = ["the", "a", "one", "new", "was", "over", "under", "few", "old", "and", "what", "is", "to"]


def contexts(count):
    """Contexts in which the answer, where there is one, is an animal."""
    random = np.random.default_rng(3)
    for i in range(count):
        words = random.choice(OTHERS, random.integers(3, 30)).tolist()
        place = int(random.integers(0, len(words)))
        animal = str(random.choice(["fox", "dog"]))
        if i % 4:
            words.insert(place, animal)
        text = " ".join(words)
        start = len(" ".join(words[:place])) + (place > 0)
        yield text, [{"text": animal, "answer_start": start}] if i % 4 else []


@pytest.fixture(scope="module")
def squad(tmp_path_factory):
    paragraphs = [
        {"context": text, "qas": [{"id": str(i), "question": "what was it?", "answers": answers,
                                   "is_impossible": not answers}]}
        for i, (text, answers) in enumerate(contexts(90))
    ]  # fmt: skip
    path = tmp_path_factory.mktemp("questions") / "animals.json"
    path.write_text(json.dumps({"version": "v2.0", "data": [{"paragraphs": paragraphs}]}))
    return str(path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, squad, tiny_encoder, cache):
    folder = tmp_path_factory.mktemp("runs") / "animals"
    config = extractive_qa.Config(data=squad, backbone=tiny_encoder, **SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFSFT_CACHE", cache)
        with training.Run("extractive_qa", config, run_dir=folder) as run:
            extractive_qa.main(config, run)
            return run


def test_it_learns_where_answers_are(finished):
    metrics = json.loads((finished.dir / "metrics.json").read_text())["test"]
    assert metrics["exact"] >= 0.7
    assert (
        metrics["has_answer"]["examples"] + metrics["no_answer"]["examples"] == metrics["examples"]
    )
    assert json.loads((finished.dir / "task.json").read_text())["no_answer"] is True
    with open(finished.dir / "predictions.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == metrics["examples"]
    assert (finished.dir / "report.html").is_file()


def test_answers_are_places_in_the_context(finished):
    predictor = load_predictor(finished.dir)
    context = "one  new\tFox, and the old"
    answers, _ = predictor.answer(predictor.read(["what was it?", context]))
    (answer,) = answers
    assert answer["prediction"] == context[answer["start"] : answer["end"]] == "Fox"


def test_long_contexts_are_seen_in_windows_and_alone_or_in_a_batch(finished):
    predictor = load_predictor(finished.dir)
    long = " ".join(["one new"] * 60 + ["dog"] + ["over the old"] * 30)
    pairs = [("what was it?", long), ("what was it?", "the fox was old")]
    together, _ = predictor.answer(predictor.read([text for pair in pairs for text in pair]))
    assert len(predictor.pipeline(predictor.read(pairs[0])).feed.table) > 1
    alone = [predictor.answer(predictor.read(list(pair)))[0][0] for pair in pairs]
    for one, other in zip(alone, together, strict=True):
        assert one["prediction"] == other["prediction"]
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)


def test_evaluate_on_other_data(finished, squad):
    predictor = load_predictor(finished.dir)
    source, _ = predictor.labelled(squad, split="all")
    metrics, rows = predictor.evaluate(source)
    assert metrics["examples"] == len(rows) == 90


def test_the_sample_has_the_format():
    splits = extractive_qa.load_data(extractive_qa.Config())
    assert set(np.unique(splits.train.labels)) == {0, 1}
