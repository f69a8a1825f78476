"""A model is trained further on new data: what it knew is mixed in, measured, and defended."""

import hashlib
import json
import shutil

import numpy as np
import pytest

from tfsft import data, training
from tfsft.errors import Forgotten, UsageError, UserError
from tfsft.evaluation.finished_run import REFUSED, read_task
from tfsft.export import EarlierRun, load_predictor
from tfsft.recipes import text_cls

SETTINGS = {"max_length": 16, "epochs": 1, "batch_size": 32}


def train(folder, earlier=None, resume=False, **settings):
    config = text_cls.Config(**SETTINGS | settings)
    where = {"resume" if resume else "run_dir": folder}
    with training.Run("text_cls", config, **where, earlier=earlier) as run:
        text_cls.main(config, run)
    return folder


def hashes(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read(folder, name):
    return json.loads((folder / name).read_text())


@pytest.fixture(scope="module")
def old(tmp_path_factory, weather, tiny_encoder):
    folder = tmp_path_factory.mktemp("runs") / "old"
    return train(
        folder, data=weather, backbone=tiny_encoder, learning_rate=3e-3, epochs=2, max_steps=5
    )


@pytest.fixture(scope="module")
def feedback(tmp_path_factory):
    """What `tfsft serve --feedback` writes: texts with their right label, of one class alone."""
    path = tmp_path_factory.mktemp("new") / "feedback.jsonl"
    rows = [{"text": f"a cloud over field {i}", "label": "weather"} for i in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path.with_name("feedback-wrong.jsonl").write_text('{"text": "a fox"}\n{"text": "a dog"}\n')
    return str(path)


@pytest.fixture(scope="module")
def further(tmp_path_factory, old, feedback, tiny_encoder):
    before = hashes(old)
    folder = tmp_path_factory.mktemp("runs") / "further"
    # The head alone, slowly, so that the figures before and after are about the same.
    train(folder, EarlierRun(old, 100.0), data=feedback, backbone=tiny_encoder, unfreeze="none",
          head_learning_rate=1e-6, max_steps=1)  # fmt: skip
    assert hashes(old) == before, "the old run was changed"
    return folder


def test_the_share_of_old_examples_is_exact_and_repeats_itself(old, feedback):
    config = text_cls.Config(**SETTINGS, data=feedback, replay_share=0.75, seed=5)
    said = []
    first, again = (EarlierRun(old).load(text_cls.load_data, config, said.append) for _ in range(2))
    texts = first.train.column("text")
    new = sum("cloud" in text for text in texts)
    assert (new, len(texts)) == (14, 56)  # of 20, 3 are for validation and 3 for the test
    assert texts == again.train.column("text")
    assert first.fingerprint == again.fingerprint
    assert first.class_names == ("animals", "weather")
    assert {first.class_names[label] for text, label in zip(texts, first.train.labels, strict=True)
            if "cloud" in text} == {"weather"}  # fmt: skip
    assert said[0].startswith("14 new training examples, and 42 of the")


def test_no_example_is_trained_on_that_was_held_out(old, tmp_path, weather):
    held_out = text_cls.load_data(text_cls.Config(data=weather)).test.column("text")
    path = tmp_path / "same.jsonl"
    rows = [{"text": text, "label": "animals"} for text in held_out]
    rows += [{"text": f"new {i}", "label": "animals"} for i in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = text_cls.Config(**SETTINGS, data=str(path))
    mixed = EarlierRun(old).load(text_cls.load_data, config, lambda said: None)
    assert not set(mixed.train.column("text")) & set(held_out)
    assert any("were held out before; train does without" in note for note in mixed.warnings)


def test_the_four_figures_are_those_of_the_two_models(old, further, weather):
    found = read(further, "metrics.json")["from"]
    before = read(old, "metrics.json")["test"]["accuracy"]
    assert found["old"]["before"] == pytest.approx(before, abs=1e-9)
    for when, folder in (("before", old), ("after", further)):
        predictor = load_predictor(folder)
        answers, _ = predictor.answer(
            predictor.read([f"a cloud over field {i}" for i in range(20)])
        )
        assert found["new"]["examples"] == 3
        assert {answer["prediction"] for answer in answers} <= {"animals", "weather"}
        if len({answer["prediction"] for answer in answers}) == 1:
            assert found["new"][when] == float(answers[0]["prediction"] == "weather")
    page = (further / "report.html").read_text()
    assert "What it learned, and what it forgot" in page
    log = (further / "log.txt").read_text()
    assert "2 answers were called wrong without a right one" in log


def test_it_begins_with_the_weights_of_the_old_run(old, further):
    a, b = (load_predictor(folder).model.get_weights() for folder in (old, further))
    differences = [float(np.abs(x - y).max()) for x, y in zip(a, b, strict=True)]
    assert max(differences[:-2]) == 0.0  # the backbone
    assert 0 < max(differences[-2:]) < 1e-3  # the head, which has been trained slowly


def test_a_model_that_forgot_is_refused_and_says_so(old, feedback, tmp_path):
    """Its head is turned round, so that it is wrong where it was right."""
    before, folder = hashes(old), tmp_path / "bad"
    shutil.copytree(old, folder)
    model = load_predictor(old).load_model()
    head = model.get_layer("predictions")
    head.set_weights([-weights for weights in head.get_weights()])
    model.save(folder / "model.keras")
    earlier, said = EarlierRun(old, 2.0), []
    earlier.load(text_cls.load_data, text_cls.Config(**SETTINGS, data=feedback), said.append)
    found, refusal = earlier.judge(folder, said.append)
    known = found["old"]
    assert known["after"] == pytest.approx(1 - known["before"])
    assert known["change"] == pytest.approx(known["after"] - known["before"])
    assert found["refused"]
    assert isinstance(refusal, Forgotten)
    assert refusal.exit_code == 3
    with pytest.raises(UsageError, match="was refused"):
        load_predictor(folder)
    assert load_predictor(folder, refused_too=True)
    with pytest.raises(UsageError, match="was refused"):
        EarlierRun(folder)
    (folder / REFUSED).unlink()
    assert read_task(folder)["labels"] == "single"
    assert hashes(old) == before


@pytest.mark.slow
def test_the_command_ends_with_the_code_of_a_refusal(old, feedback, tmp_path, tfsft):
    before, folder = hashes(old), tmp_path / "bad"
    command = ["run", "text_cls", "--from", old, "--data", feedback, "--run-dir", folder]
    harmful = ["--replay-share", "0", "--learning-rate", "0.3"]
    result = tfsft(*map(str, [*command, *harmful]))
    assert result.returncode == 3
    assert "The new model is refused." in result.stderr
    assert "Traceback" not in result.stderr
    assert hashes(old) == before
    assert read(folder, "metrics.json")["from"]["refused"] is True
    assert "Refused: it forgot too much" in (folder / "report.html").read_text()
    refused = tfsft("predict", str(folder), "a fox")
    assert refused.returncode == 2
    assert "remove the file" in refused.stderr
    again = tfsft("run", "text_cls", "--resume", str(folder), "--max-forgetting", "100")
    assert again.returncode == 0, again.stderr
    assert tfsft("predict", str(folder), "a fox").returncode == 0


def test_what_does_not_go_together_is_said_before_tensorflow(old, tmp_path, tfsft):
    for words, said in (
        (["--from", str(old)], "was given without --data"),
        (["--from", str(tmp_path), "--data", "x.csv"], "is not the folder of a run"),
        (["--max-forgetting", "1"], "without --from"),
        (["--from", str(old), "--data", "x.csv", "--pooling", "cls"], "has mean"),
    ):
        result = tfsft("run", "text_cls", *words)
        assert (result.returncode, said in result.stderr) == (2, True), result.stderr


def test_new_classes_and_changed_data_are_refused(old, tmp_path, weather):
    path = tmp_path / "sports.jsonl"
    path.write_text('{"text": "a goal", "label": "sports"}\n')
    config = text_cls.Config(**SETTINGS, data=str(path))
    with pytest.raises(UserError, match="sports"):
        EarlierRun(old).load(text_cls.load_data, config, print)
    earlier = EarlierRun(old)
    earlier.config["data"]["fingerprint"] = "another"
    with pytest.raises(UserError, match="has changed"):
        earlier.load(text_cls.load_data, text_cls.Config(data=weather), print)


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        ("", {}, "new.jsonl is empty"),
        (
            "".join(f'{{"foo": "a {i}", "bar": {i}}}\n' for i in range(6)),
            {},
            "no column that is clearly",
        ),
        ('{"text": "a", "label": "weather"}\n', {"text_column": "body"}, "no column 'body'"),
    ],
)
def test_new_data_that_is_none_costs_one_message(old, tmp_path, content, settings, message):
    path = tmp_path / "new.jsonl"
    path.write_text(content)
    config = text_cls.Config(**SETTINGS, data=str(path), **settings)
    with pytest.raises(UserError, match=message):
        EarlierRun(old).load(text_cls.load_data, config, print)


def test_one_new_example_is_trained_on_and_nothing_is_said_of_what_is_learned(old, tmp_path):
    path, said = tmp_path / "new.jsonl", []
    path.write_text('{"text": "a new sun", "label": "weather"}\n')
    config = text_cls.Config(**SETTINGS, data=str(path))
    mixed = EarlierRun(old).load(text_cls.load_data, config, said.append)
    assert "a new sun" in mixed.train.column("text")
    assert said[1] == "No new example is held out, so what is learned will not be measured."


def test_a_run_may_go_on_from_one_that_went_on(further, feedback, tmp_path):
    path = tmp_path / "more.jsonl"
    rows = [{"text": f"a puppy {i}", "label": "animals"} for i in range(10)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = text_cls.Config(**SETTINGS, data=str(path), replay_share=0.9)
    mixed = EarlierRun(further).load(text_cls.load_data, config, lambda said: None)
    texts = mixed.train.column("text") + mixed.test.column("text")
    assert any("puppy" in text for text in texts)
    assert any("cloud" in text for text in texts)


def test_pictures_of_several_places_are_one_source():
    from tfsft.data.sources import ArrayStorage, ImageSource

    def source(count, value):
        images = np.full((count, 2, 3, 3), value, np.uint8)
        images[:, 0, 0, 0] = np.arange(count)
        names, keys = (
            [f"{value}/{i}" for i in range(count)],
            np.array([str(i) for i in range(count)]),
        )
        return ImageSource(ArrayStorage(images), np.arange(count), names,
                           np.zeros(count, np.int64), ("a", "b"), keys)  # fmt: skip

    mixed = data.mix_in(source(4, 10), source(9, 20).subset(np.array([8, 7])), 0.5)
    pictures = [mixed.image(i)[0].numpy() for i in range(len(mixed))]
    assert [int(picture[1, 1, 1]) for picture in pictures] == [10] * 4 + [20] * 4
    assert [int(picture[0, 0, 0]) for picture in pictures[:4]] == [0, 1, 2, 3]
    assert sorted(int(picture[0, 0, 0]) for picture in pictures[4:]) == [7, 7, 8, 8]
