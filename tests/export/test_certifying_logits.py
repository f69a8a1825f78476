"""Exports of language models foresee held-out answers as their runs do."""

import json
import os
import subprocess

import keras
import numpy as np
import pytest
from chat_families import tiny_causal_lm
from chat_runs import write_chat_run
from held_out_runs import hold_out_texts

from tfsft import models, training
from tfsft.errors import UserError
from tfsft.export import certifying_logits, export_language_model, language_model, load_predictor
from tfsft.export.certifying_logits import PYTHON, foreseen
from tfsft.export.held_out import find_held_out
from tfsft.export.replaying import Replay

FAMILIES = ["llama", "mistral", "qwen2", "gpt2", "qwen3", "gemma", "gemma2", "gemma3_text"]
in_transformers = pytest.mark.skipif(
    not os.environ.get(PYTHON), reason=f"{PYTHON} names no Python that has transformers"
)


@pytest.fixture
def untimed(monkeypatch):
    """Leaves out what only takes the time of Keras."""
    monkeypatch.setattr(certifying_logits, "replay_keras", lambda *_: Replay([], 0.1, 0.1, 1))


def check(run, folder, *, runtime, tokens):
    found = json.loads((folder / "certificate.json").read_text())
    assert found["examples"] == 4
    assert 0 <= found["difference"] < 5e-5
    assert (found["agreement"], found["tokens"]) == (1.0, tokens)
    assert found["figure"] == "perplexity"
    predictor = load_predictor(run)
    feed = predictor.feed(find_held_out(predictor)[0])
    scores = training.token_scores(predictor.model, feed.pipeline(2))
    assert found["keras"]["score"] == pytest.approx(scores["perplexity"], rel=1e-5)
    assert found["exported"]["score"] == pytest.approx(scores["perplexity"], rel=1e-5)
    assert found["exported"]["runtime"].startswith(runtime)
    assert abs(found["loss"]) < 1e-4 * scores["perplexity"]
    page = (folder / "certificate.html").read_text()
    assert "of the most likely tokens are those of the run" in page
    assert found["exported"]["runtime"].split(",")[0].replace("'", "&#39;") in page
    assert ("in another process without tfsft" in page) == (not runtime.startswith("tfsft"))
    return found


def test_hugging_face_without_transformers(writing_run, tmp_path, untimed, monkeypatch):
    monkeypatch.delenv(PYTHON, raising=False)
    run = writing_run("qwen2")
    exported = export_language_model(run, tmp_path / "out", "hf", certified=True)
    check(run, tmp_path / "out", runtime="tfsft's own reader", tokens=None)
    assert "tfsft itself has read the folder" in exported.notes[0]
    models.load_causal_lm(str(tmp_path / "out"))  # the certificate is in nobody's way


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_preset(writing_run, tmp_path, family):
    run = writing_run(family)
    export_language_model(run, tmp_path / "out", "keras", certified=True)
    found = check(run, tmp_path / "out", runtime="KerasHub", tokens=None)
    assert found["keras"]["runtime"].startswith("Keras ")
    assert found["keras"]["memory"] > 1e8


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bart", "t5", "untied t5"])
def test_a_preset_that_rewrites(writing_run, tmp_path, untimed, family):
    run = writing_run(family)
    exported = export_language_model(run, tmp_path / "out", "keras", certified=True)
    check(run, tmp_path / "out", runtime="KerasHub", tokens=None)
    found = {}
    exec(exported.usage, found)
    predictor = load_predictor(run)
    inputs = {
        f"{side}_{kind}": np.array([values], np.int32)
        for side in ("encoder", "decoder")
        for kind, values in (("token_ids", [0, 9, 7, 2]), ("padding_mask", [1] * 4))
    }
    np.testing.assert_array_equal(found["model"](inputs), predictor.model(inputs))
    again = models.load_seq2seq_lm(str(tmp_path / "out"))
    np.testing.assert_array_equal(again.model(inputs), predictor.model(inputs))


@pytest.mark.slow
def test_a_rewriter_of_hugging_face_without_transformers(
    writing_run, tmp_path, untimed, monkeypatch
):
    monkeypatch.delenv(PYTHON, raising=False)
    run = writing_run("bart")
    export_language_model(run, tmp_path / "out", "hf", certified=True)
    check(run, tmp_path / "out", runtime="tfsft's own reader", tokens=None)
    with pytest.raises(UserError, match=rf"T5(.|\n)*{PYTHON}(.|\n)*--format keras"):
        export_language_model(writing_run("t5"), tmp_path / "t5", "hf", certified=True)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


@pytest.mark.slow
@in_transformers
@pytest.mark.parametrize("family", ["bart", "t5", "untied t5"])
def test_a_rewriter_in_transformers(writing_run, tmp_path, untimed, family):
    """It also writes what the run writes."""
    run = writing_run(family)
    export_language_model(run, tmp_path / "out", "hf", certified=True)
    check(run, tmp_path / "out", runtime="transformers", tokens=1.0)
    predictor = load_predictor(run)
    texts = ["ada is jo?", "gil", "ada is bob. Ünd 你 cleo?"]
    answers, _ = predictor.answer(predictor.read(texts))
    code = (
        "import json, sys, transformers\n"
        "folder, texts = sys.argv[1], json.loads(sys.argv[2])\n"
        "model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)\n"
        "tokenizer = transformers.AutoTokenizer.from_pretrained(folder)\n"
        "for text in texts:\n"
        "    ids = model.generate(**tokenizer(text, return_tensors='pt'))[0]\n"
        "    print(json.dumps(tokenizer.decode(ids, skip_special_tokens=True)))\n"
    )
    done = subprocess.run(
        [os.environ[PYTHON], "-c", code, tmp_path / "out", json.dumps(texts)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said = [json.loads(line).strip() for line in done.stdout.splitlines()]
    assert said == [answer["prediction"] for answer in answers]


@pytest.mark.slow
@in_transformers
@pytest.mark.parametrize("family", FAMILIES)
def test_hugging_face_in_transformers(writing_run, tmp_path, untimed, family):
    run = writing_run(family)
    exported = export_language_model(run, tmp_path / "out", "hf", certified=True)
    found = check(run, tmp_path / "out", runtime="transformers", tokens=1.0)
    assert found["difference"] > 0
    assert exported.notes == ()


@pytest.mark.slow
@pytest.mark.parametrize("format", ["keras", "hf"])
def test_half_precision_is_compared_in_float32(tmp_path, untimed, format):
    folder = tiny_causal_lm(tmp_path / "lm", "qwen2")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        run = write_chat_run(tmp_path / "run", folder)
    finally:
        keras.config.set_dtype_policy(before)
    hold_out_texts(run, [[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]])
    exported = export_language_model(run, tmp_path / "out", format, certified=True)
    assert exported.certificate.difference < 5e-5
    assert exported.certificate.agreement == 1.0


def test_a_python_that_is_none(monkeypatch):
    monkeypatch.setenv(PYTHON, "/nowhere/python")
    with pytest.raises(UserError, match="/nowhere/python, which is no program"):
        certifying_logits.check_provable()


@pytest.mark.slow
@in_transformers
def test_tokens_that_are_others_elsewhere_are_counted(tmp_path, untimed):
    run = write_chat_run(tmp_path / "run", tiny_causal_lm(tmp_path / "lm", "qwen2"))
    asked = ["<|im_end|>", *(f"{i}?" for i in range(7))]
    answer = {"role": "assistant", "content": "No."}
    hold_out_texts(run, [[{"role": "user", "content": text}, answer] for text in asked])
    exported = export_language_model(run, tmp_path / "out", "hf", certified=True)
    assert exported.certificate.tokens == 0.75
    assert "other tokens of 25.0% of the texts" in exported.notes[0]


@pytest.mark.slow
def test_other_weights_are_refused_with_the_worst(
    writing_run, tmp_path, untimed, other_weights, monkeypatch
):
    monkeypatch.delenv(PYTHON, raising=False)
    monkeypatch.setattr(language_model, "_compare", lambda *_: 0.0)
    with pytest.raises(
        UserError, match=r"answers differently(.|\n)*The worst of 4(.|\n)*perplexity"
    ):
        export_language_model(writing_run("qwen2"), tmp_path / "out", "hf", certified=True)
    assert list(tmp_path.iterdir()) == []


def test_what_two_models_foresee():
    """By hand: of two tokens, one is foreseen with 1/2 and 1/4, the other with 1/4 and 1/2."""
    ours = np.log(np.array([[0.5, 0.25, 0.25], [0.6, 0.15, 0.25]], np.float32))
    theirs = np.log(np.array([[0.25, 0.5, 0.25], [0.3, 0.2, 0.5]], np.float32)) + 7
    found = foreseen(ours, theirs, [0, 2])
    assert found.same.tolist() == [False, False]
    np.testing.assert_allclose(found.losses, np.log([[2, 4], [4, 2]]), rtol=1e-6)
    assert found.difference == pytest.approx((7 + np.log(2)) / np.log(4))
    other = foreseen(ours, theirs[:, :2], [0, 1])
    assert other.difference == np.inf
