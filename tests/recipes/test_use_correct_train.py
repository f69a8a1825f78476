"""A run is trained, served, corrected by people, and trained further, all by the command line."""

import hashlib
import itertools
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from chat_families import tiny_causal_lm
from killed import kill_and_compare
from killed import run as run_command
from running_server import Running
from said_of_answers import OPTIONS, use, write

from tfsft import models
from tfsft.errors import UsageError
from tfsft.export import load_predictor

pytestmark = pytest.mark.slow

FIGURE = {"image_cls": "accuracy", "text_cls": "accuracy", "token_cls": "f1",
          "extractive_qa": "exact", "chat_sft": "perplexity"}  # fmt: skip
ALL = {"max-forgetting": 1e9}


def words(options):
    return [str(word) for name, value in options.items() for word in (f"--{name}", value)]


def hashes(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read(folder, name):
    return json.loads((folder / name).read_text())


@pytest.fixture(scope="module")
def old(tmp_path_factory, flowers, tiny_backbone, tiny_encoder, cache):
    """Trains a run of a recipe by the command, each once; returns its folder."""
    made = {}

    def make(recipe, **more):
        place = (recipe, *more.items())
        if place not in made:
            folder = tmp_path_factory.mktemp(recipe)
            data, backbone = flowers, tiny_backbone
            if recipe != "image_cls":
                data = write(folder / "old.jsonl", recipe, range(40))
                backbone = tiny_encoder
            if recipe == "chat_sft":
                backbone = tiny_causal_lm(folder / "llama")
            options = OPTIONS[recipe] | more | {"data": data, "backbone": backbone}
            command = ["-m", "tfsft", "run", recipe, *words(options), "--run-dir", "old"]
            done = subprocess.run(
                [sys.executable, *command], cwd=folder, env=os.environ | {"TFSFT_CACHE": cache},
                capture_output=True, text=True, timeout=300,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            made[place] = folder / "old"
        return made[place]

    return make


@pytest.mark.parametrize("recipe", FIGURE)
def test_the_loop_is_closed(old, recipe, tmp_path, tfsft, cache):
    run, path = old(recipe), tmp_path / "feedback.jsonl"
    before = hashes(run)
    running = Running(run, feedback=path).wait()
    kept, wrong = use(running.url, recipe, 30)
    running.stop()
    assert len(path.read_text().splitlines()) == kept
    given = {"data": path.name, "run-dir": "new", "replay-share": 0.5} | ALL
    done = tfsft("run", recipe, "--from", run, *words(given), TFSFT_CACHE=cache)
    assert done.returncode == 0, done.stderr
    assert hashes(run) == before

    new = tmp_path / "new"
    metrics, found = read(new, "metrics.json"), read(new, "metrics.json")["from"]
    assert f"{wrong} answers were called wrong without a right one" in done.stdout
    assert (found["figure"], found["refused"]) == (FIGURE[recipe], False)
    assert found["run"] == str(run)
    scored = read(run, "metrics.json")["test"][found["figure"]]
    assert found["old"]["before"] == pytest.approx(scored, rel=1e-4)
    for part in ("old", "new"):
        values = found[part]
        assert values["examples"] > 0
        assert None not in (values["before"], values["after"], values["change"])
        assert f"on {part} data ({values['examples']})" in done.stdout
    if found["figure"] in ("accuracy", "exact"):  # a mean over examples: of both parts, it is
        parts = [(found[part]["examples"], found[part]["after"]) for part in ("old", "new")]
        both = sum(count * value for count, value in parts) / sum(count for count, _ in parts)
        assert metrics["test"][found["figure"]] == pytest.approx(both)
    one, other = read(run, "task.json"), read(new, "task.json")
    assert {name for name in one if one[name] != other[name]} == set()
    page = (new / "report.html").read_text()
    assert "What it learned, and what it forgot" in page
    assert not (new / "REFUSED").exists()
    assert read(new, "config.json")["settings"]["data"] == path.name


def test_a_model_that_forgot_ends_the_command_with_3(old, tmp_path, tfsft, cache):
    run = old("chat_sft")
    before, data = hashes(run), write(tmp_path / "new.jsonl", "chat_sft", range(100, 130))
    harmful = {"data": data, "run-dir": "new", "replay-share": 0, "learning-rate": 1}
    done = tfsft("run", "chat_sft", "--from", run, *words(harmful), TFSFT_CACHE=cache)
    assert done.returncode == 3, done.stderr
    assert "The new model is refused. Perplexity on the old data got worse by" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Use it:" not in done.stdout
    assert hashes(run) == before
    assert "got worse by" in (tmp_path / "new" / "REFUSED").read_text()
    assert read(tmp_path / "new", "metrics.json")["from"]["refused"] is True
    for command in (["chat", "new"], ["serve", "new"], ["run", "chat_sft", "--from", "new",
                                                        "--data", data]):  # fmt: skip
        done = tfsft(*command, TFSFT_CACHE=cache)
        assert done.returncode == 2
        assert "was refused" in done.stderr


@pytest.mark.parametrize("recipe", ["text_cls", "chat_sft"])
def test_killed_and_resumed_it_ends_as_if_it_was_not(old, tmp_path, recipe):
    """Of chat_sft with low-rank updates, on a run with such: on the merged weights."""
    lora = {"lora-rank": 2, "lora-targets": "all", "learning-rate": 1e-2}
    more = lora if recipe == "chat_sft" else {}
    run = old(recipe, **more)
    write(tmp_path / "new.jsonl", recipe, range(100, 140))
    given = {"from": run, "data": tmp_path / "new.jsonl", "batch-size": 4} | ALL
    moments = [("step", 3, 0.01), ("write", 2, 0.5), ("evaluation", 1, 0.9)]
    said = kill_and_compare(tmp_path, recipe, words(given), moments)
    shares = [line for line in said[-1].splitlines() if "new training examples" in line]
    assert len(shares) == 1
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert read(whole, "metrics.json")["from"] == read(killed, "metrics.json")["from"]
    assert None not in read(whole, "metrics.json")["from"]["old"].values()
    prints = [read(folder, "config.json")["data"]["fingerprint"] for folder in (whole, killed)]
    assert prints[0] == prints[1]
    weights = [keras.models.load_model(f / "model.keras").get_weights() for f in (whole, killed)]
    assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))


def test_a_model_that_was_not_judged_cannot_be_used(old, tmp_path):
    data = write(tmp_path / "new.jsonl", "text_cls", range(100, 130))
    given = {"from": old("text_cls"), "data": data, "run-dir": "new"} | ALL
    done = run_command(tmp_path, "text_cls", *words(given), moment=("judgement", 1, 0))
    assert done.returncode == -9, done.stderr
    assert (tmp_path / "new" / "model.keras").exists()
    with pytest.raises(UsageError, match="What it forgot is not measured yet"):
        load_predictor(tmp_path / "new")
    done = run_command(tmp_path, "text_cls", "--resume", "new")
    assert done.returncode == 0, done.stderr
    assert load_predictor(tmp_path / "new")


@pytest.mark.parametrize("recipe", ["text_cls", "chat_sft"])
def test_low_rank_updates_go_on_from_the_merged_weights_again_and_again(
    old, tmp_path, tfsft, cache, recipe
):
    """Three runs, each from the one before: the updates of each are on the model before it."""
    chain = [old(recipe, **{"lora-rank": 2, "lora-targets": "all", "learning-rate": 1e-2})]
    for i in (1, 2):
        data = write(tmp_path / f"{i}.jsonl", recipe, range(100 * i, 100 * i + 30))
        given = {"data": data, "run-dir": str(i)} | ALL
        done = tfsft("run", recipe, "--from", chain[-1], *words(given), TFSFT_CACHE=cache)
        assert done.returncode == 0, done.stderr
        chain.append(tmp_path / str(i))
    tokens = np.random.default_rng(0).integers(5, 30, (2, 8))
    inputs = {"token_ids": tokens, "padding_mask": np.ones_like(tokens)}
    for before, after in itertools.pairwise(chain):
        model, trained = (keras.models.load_model(f / "model.keras") for f in (before, after))
        if "segment_ids" in {tensor.name for tensor in model.inputs}:
            inputs = inputs | {"segment_ids": np.zeros_like(tokens)}
        named = read(after / "adapter", "adapter_config.json")["base_model_name_or_path"]
        assert named == str(before / "model.keras")
        started = np.asarray(model(inputs))
        models.load_adapter(model, after / "adapter")
        expected, found = np.asarray(model(inputs)), np.asarray(trained(inputs))
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
        assert np.abs(found - started).max() > 1e-2 * np.abs(expected).max(), "it learned nothing"
    # What the last one is measured by is all that was held out before.
    counts = [read(folder, "metrics.json")["from"] for folder in chain[1:]]
    assert counts[1]["old"]["examples"] == sum(counts[0][p]["examples"] for p in ("old", "new"))
