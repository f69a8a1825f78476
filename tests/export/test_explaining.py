"""Models built to look at a known place are explained by it; random ones add up."""

import json
import shutil

import chat_families
import chat_runs
import keras
import numpy as np
import pytest
import text_families
from PIL import Image

from tfsft import models
from tfsft.errors import UserError
from tfsft.evaluation.predictions import Prediction, write_rows
from tfsft.export import explain_run, image_explainer, load_predictor, text_explainers
from tfsft.export.attribution import GAP, integrated_gradients
from tfsft.export.explainer import load_explainer
from tfsft.export.held_out import find_held_out
from tfsft.export.token_pieces import token_spans

SIZE = 32
REGION = (slice(4, 12), slice(20, 28))


def write_image_run(folder, model, labels="single", class_names=("dark", "bright")):
    folder.mkdir()
    model.save(folder / "model.keras")
    task = {"task": "image_classification", "labels": labels, "class_names": class_names}
    (folder / "task.json").write_text(json.dumps(task | {"image_size": SIZE}))
    (folder / "config.json").write_text("{}")
    return folder


def picture_inputs():
    inputs = keras.Input((None, None, 3), dtype="uint8", name="pictures")
    resize = keras.layers.Resizing(SIZE, SIZE, antialias=True, dtype="uint8", name="resize")
    return inputs, keras.layers.Rescaling(1 / 127.5, -1.0)(resize(inputs))


@pytest.fixture(scope="module")
def noisy_picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "noise.png"
    noise = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3), dtype="uint8")
    noise[REGION] = 250
    Image.fromarray(noise).save(path)
    return path


def test_a_model_that_looks_at_one_region_is_explained_by_it(tmp_path, noisy_picture, seen):
    inputs, x = picture_inputs()
    output = keras.layers.Dense(2, "softmax", dtype="float32", name="predictions")
    model = keras.Model(inputs, output(keras.layers.Flatten()(x)))
    kernel = np.zeros((SIZE, SIZE, 3, 2), "float32")
    kernel[*REGION, :, 1] = 0.05
    output.kernel.assign(kernel.reshape(-1, 2))
    explainer = load_explainer(write_image_run(tmp_path / "run", model))
    examples, _ = explainer.read([str(noisy_picture)])
    (found,) = explainer.explain(examples)
    assert found.prediction == "bright"
    (reason,) = found.reasons
    assert reason.gap < GAP
    values = seen[0].values
    assert values.shape == (SIZE, SIZE)
    np.testing.assert_allclose(values.sum(), reason.output - reason.baseline, rtol=GAP)
    inside = abs(values[REGION]).sum() / abs(values).sum()
    assert inside == pytest.approx(1, abs=1e-6)


def test_grad_cam_lies_where_the_features_are(tmp_path):
    """A network that counts red pixels, wherever they are."""
    inputs, x = picture_inputs()
    convolution = keras.layers.Conv2D(4, 3, padding="same", activation="relu")
    output = keras.layers.Dense(2, "softmax", dtype="float32", name="predictions")
    x = keras.layers.GlobalAveragePooling2D(name="pooling")(convolution(x))
    model = keras.Model(inputs, output(x))
    kernel = np.zeros((3, 3, 3, 4), "float32")
    kernel[1, 1, :, 0] = (1, -1, -1)
    convolution.kernel.assign(kernel)
    convolution.bias.assign([-1.0, 0, 0, 0])
    output.kernel.assign([[-30.0, 30.0], [0, 0], [0, 0], [0, 0]])
    explainer = load_explainer(write_image_run(tmp_path / "run", model))
    picture = np.full((1, SIZE, SIZE, 3), 90, "uint8")
    picture[0, *REGION] = (255, 0, 0)
    heat = explainer._heat(explainer._looked(picture), 1)
    expected = np.zeros((SIZE, SIZE))
    expected[REGION] = 1
    np.testing.assert_allclose(heat, expected, atol=1e-6)


@pytest.fixture
def seen(monkeypatch):
    """What integrated gradients find for pictures."""
    found = []

    def integrate(*arguments, **options):
        found.append(integrated_gradients(*arguments, **options))
        return found[-1]

    monkeypatch.setattr(image_explainer, "integrated_gradients", integrate)
    return found


@pytest.fixture(scope="module")
def fox_run(tmp_path_factory):
    """A model of texts whose only word is `fox`."""
    import keras_hub  # noqa: F401

    folder = tmp_path_factory.mktemp("fox")
    layer = text_families.tiny_tokenizer("bert")
    tokenizer = models.TextTokenizer(layer, name="tiny", uses_segments=True)
    tokens = {name: keras.Input((None,), dtype="int32", name=name)
              for name in ("token_ids", "padding_mask", "segment_ids")}  # fmt: skip
    embedding = keras.layers.Embedding(layer.vocabulary_size(), 4)
    x = embedding(tokens["token_ids"])
    x = keras.layers.GlobalAveragePooling1D(name="pooling")(x, mask=tokens["padding_mask"])
    output = keras.layers.Dense(2, "softmax", dtype="float32", name="predictions")
    model = keras.Model(tokens, output(x))
    table = np.zeros(embedding.embeddings.shape, "float32")
    table[layer.token_to_id("fox")] = 3.0
    embedding.embeddings.assign(table)
    output.kernel.assign(np.array([[-1.0, 1.0]] * 4))
    model.save(folder / "model.keras")
    tokenizer.save(folder / "tokenizer")
    task = {
        "task": "text_classification",
        "labels": "single",
        "inputs": ["text"],
        "class_names": ["other", "foxes"],
        "max_length": 16,
        "tokenizer": "tokenizer",
    }
    (folder / "task.json").write_text(json.dumps(task))
    (folder / "config.json").write_text("{}")
    return folder


def test_a_model_that_looks_at_one_word_is_explained_by_it(fox_run):
    explainer = load_explainer(fox_run)
    text = "The quick brown fox jumps over the lazy dog"
    examples, _ = explainer.read([text])
    (found,) = explainer.explain(examples)
    assert found.prediction == "foxes"
    (reason,) = found.reasons
    ((_, pieces),) = reason.passages
    assert "".join(words for words, _ in pieces) == text
    weights = {words.strip(): weight for words, weight in pieces}
    assert weights["fox"] == pytest.approx(reason.output - reason.baseline, rel=GAP)
    assert weights["fox"] > 0.1
    assert all(abs(weight) < 1e-6 for words, weight in weights.items() if words != "fox")


def test_what_the_model_did_not_read_is_not_coloured(fox_run):
    explainer = load_explainer(fox_run)
    examples, _ = explainer.read(["the dog " * 12 + "fox"])
    (found,) = explainer.explain(examples)
    pieces = [piece for piece in found.reasons[0].passages[0][1] if piece[0].strip()]
    assert [weight for _, weight in pieces[:14]].count(None) == 0
    assert {weight for _, weight in pieces[14:]} == {None}


@pytest.mark.parametrize("name", ["texts", "pairs", "numbers", "tags", "questions"])
def test_the_parts_of_random_models_add_up(make_run, name):
    explainer = load_explainer(make_run(name))
    text = "the quick brown fox, it is said, jumps over the lazy dogs!"
    given = {"questions": ["what jumps over the dogs?", text * 3], "pairs": [text, "a fox"]}
    examples, _ = explainer.read(given.get(name, [text]))
    (found,) = explainer.explain(examples)
    assert found.reasons
    for reason in found.reasons:
        assert reason.gap < GAP
        shown = [weight for _, pieces in reason.passages for _, weight in pieces if weight]
        assert len(shown) > 3
        if name != "questions":
            assert "".join(words for words, _ in reason.passages[0][1]) == text
        # Special tokens are the same on both sides and add nothing.
        assert sum(shown) == pytest.approx(
            reason.output - reason.baseline,
            abs=GAP * max(abs(reason.output - reason.baseline), 0.02),
        )


FOX = {"prediction": "fox", "probability": 0.2, "start": 4, "end": 7}


@pytest.mark.parametrize(
    ("name", "given", "said", "title"),
    [
        ("texts", ["fox"], {"probabilities": {"weather": 0.3, "天气": 0.3, "طقس": 0.4}}, "طقس"),
        ("texts", ["fox"], {"probabilities": {"weather": 0.3, "天气": 0.4, "طقس": 0.3}}, "天气"),
        ("questions", ["who jumps?", "the fox jumps"], FOX, "fox"),
    ],
)
def test_what_was_said_is_explained(make_run, name, given, said, title):
    """And not what is likeliest here: a server's graph rounds in other places."""
    explainer = load_explainer(make_run(name))
    examples, _ = explainer.read(given)
    (found,) = explainer.explain(examples, said=[said])
    (reason,) = found.reasons
    assert reason.title == f"Why “{title}”"
    assert found.prediction == title
    if name == "questions":
        rows, facts, _ = explainer.predictor.encoder.encode(
            {"question": given[:1], "context": given[1:], "answers": [[]]}, 0
        )
        inputs = explainer.inputs(rows["token_ids"][0], int(facts["second"][0]))
        logits = np.asarray(explainer.predictor.model(inputs), np.float64)[0]
        chances = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        at = np.flatnonzero(rows["words"][0] == 1)
        best = max(chances[0, i] + chances[1, j] for i in at for j in at if i <= j)
        assert reason.output == pytest.approx(best, abs=1e-4)


def test_of_many_marks_the_first_are_explained(make_run, monkeypatch):
    monkeypatch.setattr(text_explainers, "MOST_MARKS", 2)
    explainer = load_explainer(make_run("tags"))
    text = "a fox a fox a fox"
    marks = [{"type": "PER", "text": "fox", "start": i, "end": i + 3} for i in (2, 8, 14)]
    said = {"prediction": "", "probability": 0.1, "entities": marks}
    (found,) = explainer.explain(explainer.read([text])[0], said=[said])
    assert len(found.reasons) == 2
    assert found.notes == ("It marks 3 places; the first 2 are explained.",)


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm_roberta"])
def test_pieces_of_a_text_are_its_tokens(family):
    tokenizer = models.TextTokenizer(
        text_families.tiny_tokenizer(family), name="tiny", uses_segments=False
    )
    text = "The lazy dogs, überall: mostly!  under"
    spans = token_spans(tokenizer, text)
    ids, _ = tokenizer.encode([text])
    assert [span[0] for span in spans[1:]] == [span[1] for span in spans[:-1]]
    assert (spans[0][0], spans[-1][1]) == (0, len(text))
    assert spans[-1][3] == len(ids)
    assert len(spans) > 0.5 * len(ids)
    for _, end, _, last in spans:
        begin, _ = tokenizer.encode([text[:end]])
        np.testing.assert_array_equal(begin, ids[:last])


def test_pages_of_inputs(fox_run, tmp_path):
    found = explain_run(fox_run, ["a fox", "a <dog>"], out=tmp_path, worst=0)
    assert [path.name for path in found.pages] == ["01-a-fox.html", "02-a-dog.html"]
    page = found.pages[1].read_text()
    assert "a &lt;dog&gt;" in page
    assert "rgba(0,114,178" in found.pages[0].read_text()
    for word in ("<script", "https://", "http://"):
        assert word not in page


def test_the_worst_mistakes_come_from_the_data_of_the_run(fox_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(fox_run, run)
    lines = ["text,label", "a fox,foxes", "the fox runs,other", "a dog,other", "one fox,other"]
    (tmp_path / "fox.csv").write_text("\n".join(lines) + "\n")
    settings = {"data": str(tmp_path / "fox.csv"), "text_column": "text", "label_column": ""}
    (run / "config.json").write_text(json.dumps({"settings": settings}))
    rows = [
        Prediction(f"fox.csv:{line}", "other", "foxes", sure, text="")
        for line, sure in ((5, 0.9), (3, 0.8))
    ]
    write_rows(run / "predictions.csv", rows)
    found = explain_run(run, worst=5)
    assert (found.pages, found.notes) == ([run / "explanations" / "worst.html"], [])
    page = found.pages[0].read_text()
    assert page.index("fox.csv:5") < page.index("fox.csv:3")
    assert page.count("Why not “other”, which is right") == 2
    assert "a dog" not in page
    (tmp_path / "fox.csv").unlink()
    gone = explain_run(run, worst=5)
    assert gone.pages == []
    assert "the data is not there" in gone.notes[0]


def test_the_worst_mistakes_of_a_run_that_was_trained_further_are_of_all_its_data(
    fox_run, tmp_path
):
    rows = []
    for name, text in (("old", "a dog"), ("new", "a cat")):
        shutil.copytree(fox_run, tmp_path / name)
        lines = ["text,label", "a fox,foxes", f"{text},other"]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
        config = {"settings": {"data": str(tmp_path / f"{name}.csv")}}
        if name == "new":
            config["from"] = {"run": str(tmp_path / "old")}
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        rows.append(Prediction(f"{name}.csv:3", "other", "foxes", 0.9, text=""))
    write_rows(tmp_path / "new" / "predictions.csv", rows)
    (path,) = explain_run(tmp_path / "new").pages
    page = path.read_text()
    assert page.index("old.csv:3") < page.index("new.csv:3")
    held, others = find_held_out(load_predictor(tmp_path / "new"))
    assert sorted(held.ids) == ["new.csv:3", "old.csv:3"]
    assert sorted(others.ids) == ["new.csv:2", "old.csv:2"]


def test_an_answer_leans_on_its_prompt(tmp_path):
    chat_families.tiny_causal_lm(tmp_path / "lm")
    run = chat_runs.write_chat_run(tmp_path / "run", tmp_path / "lm")
    explainer = load_explainer(run)
    examples, _ = explainer.read(["What is your name?"])
    (found,) = explainer.explain(examples)
    (reason,) = found.reasons
    assert reason.gap < GAP
    ((_, pieces),) = reason.passages
    assert "What is your name?" in "".join(words for words, _ in pieces)
    weights = [weight for _, weight in pieces]
    assert sum(weights) == pytest.approx(reason.output - reason.baseline, rel=GAP)
    control = [weight for words, weight in pieces if words.startswith("<|im_")]
    assert len(control) >= 3
    assert set(control) == {0.0}
    # The log-probability of the answer by the model itself, over what follows the prompt.
    answerer = explainer.predictor.answerer()
    _, (answer,) = answerer.answer(examples["chats"])
    prompt = explainer.predictor.encoder.prompt(examples["chats"][0])
    row = np.array([*prompt, *answer.ids], "int32")[None]
    given = {"token_ids": row[:, :-1], "padding_mask": np.ones_like(row[:, :-1])}
    logits = np.asarray(explainer.predictor.model(given), np.float64)[0, len(prompt) - 1 :]
    chances = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    expected = sum(chances[i, token] for i, token in enumerate(answer.ids))
    assert reason.output == pytest.approx(expected, abs=1e-4)


def test_what_is_too_large_or_unreadable(fox_run, tmp_path, noisy_picture):
    with pytest.raises(UserError, match="has 25,000 characters"):
        explain_run(fox_run, ["a" * 25_000], worst=0)
    with pytest.raises(UserError, match="101 texts were given"):
        explain_run(fox_run, ["a"] * 101, worst=0)
    with pytest.raises(UserError, match="is a picture, and the run is about texts"):
        explain_run(fox_run, [str(noisy_picture)], worst=0)
    inputs, x = picture_inputs()
    x = keras.layers.GlobalAveragePooling2D()(x)
    run = write_image_run(tmp_path / "run", keras.Model(inputs, keras.layers.Dense(2)(x)))
    (tmp_path / "no.png").write_text("no picture")
    with pytest.raises(UserError, match=r"no\.png is not a picture"):
        explain_run(run, [str(tmp_path / "no.png")], worst=0)
    with pytest.raises(UserError, match="There is no file or folder a text"):
        explain_run(run, ["a text"], worst=0)
