"""The assistant recipe on a small real language model: training, files, resuming, talking."""

import csv
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from answers import likeliest
from chat_families import tiny_causal_lm

from tfsft import models, training
from tfsft.errors import UsageError, UserError
from tfsft.export import load_predictor
from tfsft.recipes import chat_sft

NAMES = ["Ada", "Bob", "Cleo", "Dan", "Eve", "Finn", "Gil", "Hal", "Ida", "Jo"]


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory):
    """A folder with a Llama of two blocks, random weights and a tokenizer of its own."""
    return str(tiny_causal_lm(tmp_path_factory.mktemp("tiny_llama")))


@pytest.fixture(scope="session")
def chats(tmp_path_factory):
    """Forty short conversations, of one turn and of two."""
    path = tmp_path_factory.mktemp("chats") / "chats.jsonl"
    with open(path, "w") as file:
        for i, name in enumerate(NAMES):
            for question in ("Who is", "What is", "How is", "Where is"):
                messages = [
                    {"role": "user", "content": f"{question} {name}?"},
                    {"role": "assistant", "content": f"{name} is number {i}."},
                ]
                if question == "How is":
                    messages += [
                        {"role": "user", "content": "Are you sure?"},
                        {"role": "assistant", "content": "Yes."},
                    ]
                file.write(json.dumps({"messages": messages}) + "\n")
    return str(path)


def options(chats, tiny_llama, **changes):
    return chat_sft.Config(
        **{
            "data": chats,
            "backbone": tiny_llama,
            "epochs": 2,
            "learning_rate": 1e-2,
            "answers": 4,
            "max_new_tokens": 8,
            **changes,
        }
    )


def train(config, folder, **where):
    keras.utils.clear_session()
    where = where or {"run_dir": folder}
    with training.Run("chat_sft", config, **where) as run:
        chat_sft.main(config, run)
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def run(chats, tiny_llama, tmp_path_factory):
    """A finished run with a system prompt and general conversations mixed in."""
    folder = tmp_path_factory.mktemp("run") / "run"
    config = options(
        chats, tiny_llama, system_prompt="Be brief.", replay="general-replay", epochs=3
    )
    train(config, folder)
    return folder


def test_a_run_leaves_what_it_promises(run):
    metrics = json.loads((run / "metrics.json").read_text())
    test = metrics["test"]
    assert test["perplexity"] == pytest.approx(np.exp(test["loss"]))
    assert test["perplexity"] < metrics["before"]["test"]["perplexity"]
    assert test["answers"] == 4
    for name in ("chrf", "bleu", "rougeL", "exact_match", "stopped_share", "token_accuracy"):
        assert name in test
    assert set(metrics["change"]) == {"chrf", "chrf_low", "chrf_high"}
    assert metrics["retained"]["name"] == "general"
    assert metrics["parameters"]["trained"] < metrics["parameters"]["total"] / 10

    history = list(csv.DictReader((run / "history.csv").read_text().splitlines()))
    assert len(history) == 3
    assert float(history[2]["val_loss"]) < float(history[0]["val_loss"])
    assert "val_chrf" in history[0]
    samples = json.loads((run / "samples.json").read_text())
    assert next(row["step"] for row in samples["answers"]) == 0
    assert len(samples["answers"]) == 4
    assert all(len(row["answers"]) == len(samples["prompts"]) for row in samples["answers"])
    rows = list(csv.DictReader((run / "predictions.csv").read_text().splitlines()))
    assert len(rows) == 4
    report = (run / "report.html").read_text()
    for words in ("Before and after", "What was forgotten", "Its worst answers"):
        assert words in report
    assert (run / "adapter" / "adapter_config.json").is_file()
    # Frozen weights are in no checkpoint.
    newest = sorted((run / "checkpoints").glob("0*"))[-1] / "state.safetensors"
    assert newest.stat().st_size < (run / "model.keras").stat().st_size


def test_the_saved_model_needs_keras_hub_alone_and_answers_as_the_run(run, tiny_llama):
    predictor = load_predictor(run)
    examples = predictor.read(["Who is Ada?", "Where is Bob?"])
    assert examples["chats"][0][0] == {"role": "system", "content": "Be brief."}
    answers, bad = predictor.answer(examples)
    assert not bad
    assert [answer["id"] for answer in answers] == ["Who is Ada?", "Where is Bob?"]
    prompt = predictor.encoder.prompt(examples["chats"][0])
    expected = predictor.tokenizer.decode(likeliest(predictor, prompt, 8))
    assert answers[0]["prediction"] == expected.strip()
    # The adapter is merged: the pretrained model says something else.
    base = models.load_causal_lm(tiny_llama).model
    batch = np.array([prompt], np.int32)
    inputs = {"token_ids": batch, "padding_mask": np.ones_like(batch)}
    assert np.abs(np.asarray(base(inputs)) - np.asarray(predictor.model(inputs))).max() > 0.1


def test_a_chat_of_many_turns_is_what_whole_prompts_give(run):
    predictor = load_predictor(run)
    chat = predictor.chat()
    for text in ("Who is Ada?", "Are you sure?"):
        said = "".join(chat.say(text, max_new_tokens=8))
        answer, _ = predictor.answer({"chats": [chat.messages[:-1]], "ids": ["x"]})
        assert said.strip() == answer[0]["prediction"]
    assert [m["role"] for m in chat.messages] == ["system", *["user", "assistant"] * 2]
    chat.system("Be long.")
    assert chat.messages == [{"role": "system", "content": "Be long."}]
    chat.reset()
    assert chat.messages == [{"role": "system", "content": "Be brief."}]


def test_the_commands_answer_talk_and_score(run, chats, tfsft, tmp_path):
    (tmp_path / "prompts.csv").write_text("prompt\nWho is Ada?\nWho is Bob?\n")
    done = tfsft("predict", run, "--csv", tmp_path / "prompts.csv", "--out", tmp_path / "a.csv")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert [row["id"] for row in rows] == ["prompts.csv:2", "prompts.csv:3"]
    done = tfsft(
        "chat", run, "--max-new-tokens", "6", stdin=f"Who is Ada?\n/save {tmp_path}/c.jsonl\n/no\n"
    )
    assert done.returncode == 0, done.stderr
    assert "There is no /no" in done.stderr
    saved = json.loads((tmp_path / "c.jsonl").read_text())
    assert saved["messages"][-1]["role"] == "assistant"
    assert saved["messages"][-1]["content"].strip() in done.stdout


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_to_the_same_weights(chats, tiny_llama, tmp_path):
    from tfsft.errors import Stopped

    config = options(chats, tiny_llama, retain="", dropout=0.1)
    train(config, tmp_path / "whole")

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations.numpy()) == 6:
                import signal

                signal.raise_signal(signal.SIGTERM)

    fit = training.FineTuner.fit

    def stopped(self, *args, callbacks=(), **kwargs):
        return fit(self, *args, callbacks=[*callbacks, Stop()], **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.FineTuner, "fit", stopped)
        with pytest.raises(Stopped):
            train(config, tmp_path / "parts")
    train(config, tmp_path / "parts", resume=tmp_path / "parts")
    for name in ("history.csv", "samples.json", "predictions.csv"):
        assert (tmp_path / "parts" / name).read_text() == (tmp_path / "whole" / name).read_text()
    first, second = (
        keras.saving.load_model(tmp_path / name / "model.keras").weights
        for name in ("whole", "parts")
    )
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b, a.path)


@pytest.mark.slow
def test_a_run_of_dora_learns_the_lengths_of_weights(chats, tiny_llama, tmp_path):
    from safetensors.numpy import load_file

    config = options(chats, tiny_llama, lora_variant="dora", epochs=1, answers=1, retain="")
    metrics = train(config, tmp_path / "run")
    assert metrics["test"]["perplexity"] < metrics["before"]["test"]["perplexity"]
    tensors = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    weights = load_file(Path(tiny_llama) / "model.safetensors")
    lengths = {key: x for key, x in tensors.items() if key.endswith(".lora_magnitude_vector")}
    assert len(lengths) == 4
    for key, length in lengths.items():
        module = key.removeprefix("base_model.model.").removesuffix(".lora_magnitude_vector")
        start = np.sqrt((weights[f"{module}.weight"] ** 2).sum(1))
        assert 1e-3 < np.abs(length - start).max() < 1
    keras.models.load_model(tmp_path / "run" / "model.keras")


@pytest.mark.slow
def test_every_weight_trains_and_packed_rows_learn_as_well(chats, tiny_llama, tmp_path):
    config = options(
        chats, tiny_llama, lora_rank=0, packing=True, max_length=128, batch_size=2, retain=""
    )
    metrics = train(config, tmp_path / "run")
    assert metrics["test"]["perplexity"] < metrics["before"]["test"]["perplexity"]
    assert metrics["parameters"]["trained"] == metrics["parameters"]["total"]
    before = models.load_causal_lm(tiny_llama).model.weights
    after = keras.saving.load_model(tmp_path / "run" / "model.keras").weights
    for a, b in zip(before, after, strict=True):
        assert np.abs(np.asarray(a) - np.asarray(b)).max() > 0, a.path


def test_settings_that_contradict_each_other_are_refused(chats, tiny_llama, tmp_path):
    contradictions = (
        ({"unfreeze": "auto"}, "--unfreeze auto was given with --lora-rank 8"),
        ({"packing": True, "batch_tokens": 100}, "--packing was given with --batch-tokens"),
        ({"lora_targets": "quary"}, "Did you mean 'query'"),
        ({"template": "chatlm"}, "Did you mean 'chatml'"),
    )
    for number, (changes, words) in enumerate(contradictions):
        config = options(chats, tiny_llama, **changes)
        with pytest.raises(UsageError, match=words):
            train(config, tmp_path / str(number))


def test_an_answer_beyond_the_limit_stops_the_run_before_its_first_step(
    chats, tiny_llama, tmp_path
):
    config = options(chats, tiny_llama, max_length=20)
    with pytest.raises(UserError, match="have no answer to learn from"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "history.csv").exists()
