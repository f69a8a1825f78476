"""The recipe of sequence to sequence on small real models: training, figures, files."""

import csv
import json
import shutil

import keras
import numpy as np
import pytest
import requests
from running_server import Running
from seq2seq_families import WORDS, hugging_face_bart, tiny_bart, tiny_t5
from stateful import stateful_operations

from tfsft import data, models, training
from tfsft.errors import UsageError, UserError
from tfsft.export import load_predictor
from tfsft.recipes import seq2seq


@pytest.fixture(scope="session")
def bart(tmp_path_factory):
    return str(tiny_bart(tmp_path_factory.mktemp("tiny_bart")))


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """A table with ninety short texts and their first words."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.csv"
    rows = [f"{a} {b} {a},{a}\n" for a in WORDS for b in WORDS if a != b]
    path.write_text("document,summary\n" + "".join(rows))
    return str(path)


def options(pairs, backbone, **changes):
    given = {"data": pairs, "backbone": backbone, "epochs": 2, "learning_rate": 3e-3}
    given |= {"max_length": 32, "max_target_length": 16, "max_new_tokens": 8, "answers": 0}
    return seq2seq.Config(**(given | changes))


def train(config, folder, **where):
    keras.utils.clear_session()
    with training.Run("seq2seq", config, **(where or {"run_dir": folder})) as run:
        seq2seq.main(config, run)
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def run(pairs, bart, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    train(options(pairs, bart, epochs=4), folder)
    return folder


def encoder_of(backbone, **changes):
    settings = {"max_length": 32, "max_target_length": 16, **changes}
    return data.Seq2SeqEncoder(
        backbone.tokenizer,
        start=backbone.start,
        end=backbone.end,
        decoder_start=backbone.decoder_start,
        **settings,
    )


def plain_answer(model, inputs, start, stop, new):
    """Returns the likeliest tokens one by one, each from the whole model without a cache."""
    written = list(start)
    for _ in range(new):
        batch = {
            "encoder_token_ids": np.array([inputs], np.int32),
            "encoder_padding_mask": np.ones((1, len(inputs)), np.int32),
            "decoder_token_ids": np.array([written], np.int32),
            "decoder_padding_mask": np.ones((1, len(written)), np.int32),
        }
        token = int(np.asarray(model(batch))[0, -1].argmax())
        if token in stop:
            break
        written.append(token)
    return written[len(start) :]


def numpy_scores(model, pipeline):
    """Returns loss and accuracy over all targets, from the logits by NumPy."""
    losses, hits = [], []
    for inputs, _, weights in pipeline.epoch():
        logits = np.asarray(model({k: v for k, v in inputs.items() if k != "targets"}), np.float64)
        targets = np.asarray(inputs["targets"])
        assert ((targets >= 0) == (np.asarray(weights) > 0)).all()
        top = logits.max(-1, keepdims=True)
        logs = logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))
        for row, place in zip(*np.nonzero(targets >= 0), strict=True):
            losses.append(-logs[row, place, targets[row, place]])
            hits.append(logits[row, place].argmax() == targets[row, place])
    return np.mean(losses), np.mean(hits), len(losses)


def test_a_run_leaves_what_it_promises(run):
    metrics = json.loads((run / "metrics.json").read_text())
    test = metrics["test"]
    assert test["perplexity"] == pytest.approx(np.exp(test["loss"]))
    assert test["perplexity"] < metrics["before"]["test"]["perplexity"] / 2
    for name in ("chrf", "bleu", "rougeL", "exact_match", "stopped_share", "token_accuracy"):
        assert name in test
    history = list(csv.DictReader((run / "history.csv").read_text().splitlines()))
    assert len(history) == 4
    assert float(history[3]["val_loss"]) < float(history[0]["val_loss"])
    assert "val_chrf" in history[0]
    report = (run / "report.html").read_text()
    assert "Before and after" in report
    assert "tfsft chat" not in report
    task = json.loads((run / "task.json").read_text())
    assert (task["start"], task["end"], task["decoder_start"]) == ([0], [2], [2, 0])


def test_the_figures_are_sacrebleus_of_the_predictions_which_begin_with_the_worst(run):
    import sacrebleu

    rows = list(csv.DictReader((run / "predictions.csv").read_text().splitlines()))
    test = json.loads((run / "metrics.json").read_text())["test"]
    said, wanted = [row["prediction"] for row in rows], [row["label"] for row in rows]
    assert len(rows) == test["answers"] > 5
    assert test["chrf"] == pytest.approx(sacrebleu.corpus_chrf(said, [wanted]).score)
    assert test["bleu"] == pytest.approx(sacrebleu.corpus_bleu(said, [wanted]).score)
    right = [a == b for a, b in zip(said, wanted, strict=True)]
    assert test["exact_match"] == pytest.approx(np.mean(right))
    alone = [sacrebleu.sentence_chrf(a, [b]).score for a, b in zip(said, wanted, strict=True)]
    assert alone == sorted(alone)


def test_every_weight_of_encoder_and_decoder_moves(run, bart):
    before = models.load_seq2seq_lm(bart).model.weights
    after = keras.saving.load_model(run / "model.keras").weights
    assert len(before) == len(after) > 60
    for a, b in zip(before, after, strict=True):
        if "key/bias" not in a.path:  # softmax takes no notice of it
            assert np.abs(np.asarray(a) - np.asarray(b)).max() > 1e-5, a.path


def test_loss_and_accuracy_are_those_of_numpy(run, pairs):
    predictor = load_predictor(run)
    source, _ = predictor.labelled(pairs, split="all")
    feed = data.Seq2SeqFeed(source, predictor.encoder)
    pipeline = feed.pipeline(7)
    assert stateful_operations(pipeline.epoch()) == set()
    scores = training.token_scores(predictor.model, pipeline)
    loss, accuracy, number = numpy_scores(predictor.model, pipeline)
    assert number == feed.table.facts["trained"]
    assert scores["loss"] == pytest.approx(loss, rel=1e-5)
    assert scores["token_accuracy"] == pytest.approx(accuracy, abs=1e-6)
    # Other batches have other padding, and the same loss.
    assert training.token_scores(predictor.model, feed.pipeline(1))["loss"] == pytest.approx(
        loss, rel=1e-5
    )


def test_a_row_is_shifted_by_the_decoders_first_tokens(bart):
    backbone = models.load_seq2seq_lm(bart)
    encoder = encoder_of(backbone, max_length=6, max_target_length=4, prefix="jo ")
    encode = backbone.tokenizer.encode
    chat = [
        {"role": "user", "content": "ada bob cleo dan eve finn"},
        {"role": "assistant", "content": "ada bob cleo dan eve"},
    ]
    short = [{"role": "user", "content": "ada"}, {"role": "assistant", "content": "bob"}]
    tokens, rows, facts = encoder.encode({"messages": [chat, short]}, 0)
    long_input, long_target = (
        encode(["jo " + chat[0]["content"]])[0],
        encode(["ada bob cleo dan eve"])[0],
    )
    first = [0, *long_input[:4], 2]
    assert tokens["token_ids"][0].tolist() == [*first, 2, 0, *long_target[:3]]
    assert tokens["targets"][0].tolist() == [-1] * 7 + long_target[:4].tolist()
    source, target = encode(["jo ada"])[0].tolist(), encode(["bob"])[0].tolist()
    assert tokens["token_ids"][1].tolist() == [0, *source, 2, 2, 0, *target]
    assert tokens["targets"][1].tolist() == [-1] * (len(source) + 3) + [*target, 2]
    assert rows["second"].tolist() == [6, len(source) + 2]
    assert (facts["too_long"], facts["cut_targets"]) == (1, 1)
    assert encoder.prompt(chat[:1]) == first


@pytest.mark.parametrize(
    "family",
    [
        "bart",
        pytest.param("t5", marks=pytest.mark.slow),
        pytest.param("t5 untied", marks=pytest.mark.slow),
    ],
)
def test_cached_answers_are_those_of_the_whole_model(family, tmp_path):
    if family == "bart":
        folder = tiny_bart(tmp_path)
    else:
        folder = tiny_t5(tmp_path, tied=family == "t5")
    backbone = models.load_seq2seq_lm(str(folder))
    model, encoder = backbone.model, encoder_of(backbone)
    random = np.random.default_rng(1)
    for weight in model.weights:  # louder, so that answers differ
        if family != "t5 untied":
            weight.assign(weight + random.normal(0, 0.15, weight.shape))
        elif len(weight.shape) > 1:
            weight.assign(random.normal(0, 1, weight.shape))
    generator = models.Seq2SeqGenerator(
        model, start=backbone.decoder_start, stop=backbone.end, pad=backbone.tokenizer.pad
    )
    texts = ["ada", "ada bob cleo dan", "eve finn gil", "hal ida jo ada bob cleo", "jo"]
    inputs = [encoder.prompt([{"role": "user", "content": text}]) for text in texts]
    found = generator.answer(inputs, max_new_tokens=12, batch_size=3)
    plain = [
        plain_answer(model, tokens, backbone.decoder_start, backbone.end, 12) for tokens in inputs
    ]
    assert [answer.ids for answer in found] == plain
    assert len({tuple(ids) for ids in plain}) > 2
    assert [answer.stopped for answer in found] == [len(ids) < 12 for ids in plain]
    # What stops is the token that is named: with the first one of an answer as such, none is left.
    first = plain[1][0]
    generator = models.Seq2SeqGenerator(
        model, start=backbone.decoder_start, stop=(first,), pad=backbone.tokenizer.pad
    )
    (answer,) = generator.answer(inputs[1:2], max_new_tokens=12)
    assert (answer.ids, answer.stopped) == ([], True)


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False])
def test_a_t5_trains_and_its_loss_is_that_of_numpy_whatever_the_padding(tied, pairs, tmp_path):
    folder = tiny_t5(tmp_path / "t5", tied=tied)
    config = options(pairs, str(folder), prefix="eve: ", epochs=3, learning_rate=1e-2)
    metrics = train(config, tmp_path / "run")
    assert metrics["test"]["perplexity"] < metrics["before"]["test"]["perplexity"] / 2
    predictor = load_predictor(tmp_path / "run")
    assert predictor.encoder.prefix == "eve: "
    source, _ = predictor.labelled(pairs, split="all")
    feed = data.Seq2SeqFeed(source, predictor.encoder)
    loss, accuracy, _ = numpy_scores(predictor.model, feed.pipeline(1))
    scores = training.token_scores(predictor.model, feed.pipeline(40))
    assert scores["loss"] == pytest.approx(loss, rel=1e-4)
    assert scores["token_accuracy"] == pytest.approx(accuracy, abs=0.01)


@pytest.mark.slow
def test_the_certificate_of_an_export_has_the_perplexity_of_the_run(bart, tfsft, tmp_path):
    """Its columns have names of nobody, and are found again by the settings."""
    table = tmp_path / "table.csv"
    rows = [f"1,{a},{a} {b} {a}\n" for a in WORDS for b in WORDS if a != b]
    table.write_text("prompt,second,first\n" + "".join(rows))
    columns = {"input_column": "first", "target_column": "second"}
    metrics = train(options(str(table), bart, **columns), tmp_path / "run")
    done = tfsft("export", tmp_path / "run", "--format", "keras")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "run" / "keras" / "certificate.json").read_text())
    assert found["examples"] == 9
    for side in ("keras", "exported"):
        assert found[side]["score"] == pytest.approx(metrics["test"]["perplexity"], rel=1e-4)


def test_the_commands_answer_and_score(run, pairs, tfsft, tmp_path):
    (tmp_path / "texts.csv").write_text("article\nada bob ada\njo cleo jo\n")
    done = tfsft("predict", run, "--csv", tmp_path / "texts.csv", "--out", tmp_path / "a.csv")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert [row["id"] for row in rows] == ["texts.csv:2", "texts.csv:3"]
    predictor = load_predictor(run)
    answers, _ = predictor.answer(predictor.read(["ada bob ada"]))
    assert rows[0]["prediction"] == answers[0]["prediction"]
    inputs = predictor.encoder.prompt([{"role": "user", "content": "ada bob ada"}])
    encoder = predictor.encoder
    ids = plain_answer(predictor.model, inputs, encoder.decoder_start, encoder.stop, 8)
    assert answers[0]["prediction"] == predictor.tokenizer.decode(ids).strip()
    done = tfsft("evaluate", run, "--data", pairs, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["answers"] == 90
    done = tfsft("chat", run)
    assert "is about 'text_generation'" in done.stderr


def test_a_server_gives_the_same_answers(run, tmp_path):
    """Of random weights, as those of the run have learned to say nothing."""
    shutil.copytree(run, tmp_path / "run")
    run = tmp_path / "run"
    keras.utils.set_random_seed(0)
    model = keras.saving.load_model(run / "model.keras")
    for weight in model.weights:
        weight.assign(weight + keras.random.normal(weight.shape, stddev=0.3))
    model.save(run / "model.keras")
    texts = ["ada bob ada", "jo cleo jo"]
    predictor = load_predictor(run)
    expected = [answer["prediction"] for answer in predictor.answer(predictor.read(texts))[0]]
    assert len(set(expected)) == 2
    running = Running(run).wait()
    try:
        rows = [{"text": text} for text in texts]
        found = requests.post(f"{running.url}/predict", json=rows, timeout=60).json()["answers"]
        assert found == [{"prediction": text} for text in expected]
        body = {"instances": texts}
        found = requests.post(f"{running.url}/v1/models/model:predict", json=body, timeout=60)
        assert found.json() == {"predictions": expected}
        assert requests.get(f"{running.url}/v1/models", timeout=60).status_code == 404
    finally:
        running.stop()


def test_columns_are_found_by_name_or_named(bart, tmp_path):
    def texts(content, **changes):
        (tmp_path / "t.csv").write_text(content)
        splits = seq2seq.load_data(options(str(tmp_path / "t.csv"), bart, **changes))
        first = splits.everything().column("messages")[0]
        return [message["content"] for message in first], splits.notes

    rows = "".join(f"{i},a{i},b{i},c{i}\n" for i in range(9))
    for source, target in (("source", "target"), ("article", "highlights"), ("input", "output")):
        found, notes = texts(f"id,{source},{target},note\n" + rows)
        assert found == ["a0", "b0"]
        assert f"Inputs are column '{source}', targets column '{target}'" in notes[0]
    found, _ = texts("id,en,de,note\n" + rows, input_column="de", target_column="en")
    assert found == ["b0", "a0"]
    with pytest.raises(UserError, match="--input-column and --target-column"):
        texts("id,en,de,note\n" + rows)


def test_a_bart_of_hugging_face_has_the_same_tokens(bart, tmp_path):
    found = models.load_seq2seq_lm(f"{hugging_face_bart(tmp_path)}:random")
    known = models.load_seq2seq_lm(bart)
    text = [{"role": "user", "content": "ada <s> bob, cléo"}]
    assert encoder_of(found).prompt(text) == encoder_of(known).prompt(text)
    assert (found.start, found.end, found.decoder_start) == ((0,), (2,), (2, 0))
    assert found.max_length == 48
    ids = found.tokenizer.encode(["cléo jo"])[0]
    assert found.tokenizer.decode(ids) == "cléo jo"


def test_auto_says_what_it_would_take_and_what_to_give(monkeypatch, tmp_path):
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    monkeypatch.setattr(models.seq2seq_lms, "offered", lambda handle: False)
    with pytest.raises(UserError, match="bart_base_en of KerasHub") as error:
        models.resolve("auto", kind="seq2seq")
    assert "Give --backbone a local folder" in str(error.value.fix)
    monkeypatch.setattr(models.seq2seq_lms, "offered", lambda handle: True)
    assert models.resolve("auto", kind="seq2seq")[0] == "bart_base_en"


def test_what_does_not_fit_is_refused(pairs, bart, tmp_path):
    from chat_families import tiny_causal_lm

    with pytest.raises(UsageError, match="has positions for 64 tokens"):
        train(options(pairs, bart, max_length=65), tmp_path / "a")
    llama = tiny_causal_lm(tmp_path / "llama")
    with pytest.raises(UserError, match="no sequence-to-sequence model"):
        train(options(pairs, str(llama)), tmp_path / "b")
