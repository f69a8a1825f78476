"""Exported chat runs are the same models, tokenizers and templates wherever they are loaded."""

import json

import keras_hub
import numpy as np
import pytest
from chat_families import CONTROL, TEMPLATE, tiny_causal_lm
from chat_runs import write_chat_run

from tfsft import data, models
from tfsft.export import export_language_model, load_predictor

FAMILIES = ["llama", "mistral", "qwen2", "gpt2", "qwen3"]


@pytest.fixture(scope="module")
def make_run(tmp_path_factory):
    """Makes the run of a tiny model of some family, once."""
    runs = {}

    def make(family):
        if family not in runs:
            folder = tmp_path_factory.mktemp(family)
            runs[family] = write_chat_run(folder / "run", tiny_causal_lm(folder / "lm", family))
        return runs[family]

    return make


def logits(model, ids):
    batch = np.array([ids], np.int32)
    return np.asarray(model({"token_ids": batch, "padding_mask": np.ones_like(batch)}))


def check_loads_equal(run, folder):
    """Asserts that a folder is the model of a run, with tokenizer, template and stop tokens."""
    predictor = load_predictor(run)
    again = models.load_causal_lm(str(folder))
    ids = np.random.default_rng(0).integers(0, 290, 100).tolist()
    np.testing.assert_array_equal(logits(again.model, ids), logits(predictor.model, ids))
    template = data.choose_template("auto", again.template, again.tokenizer)
    encoder = data.ChatEncoder(again.tokenizer, template, 64)
    assert encoder.stop == predictor.encoder.stop
    chat = [{"role": role, "content": f"I am {role}."} for role in ("system", "user", "assistant")]
    np.testing.assert_array_equal(encoder.tokens([chat])[0], predictor.encoder.tokens([chat])[0])
    return again


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_of_hugging_face_has_equal_logits(make_run, tmp_path, family):
    run = make_run(family)
    exported = export_language_model(run, tmp_path / "hf", "hf")
    assert exported.difference == 0
    assert exported.notes == ()
    again = check_loads_equal(run, tmp_path / "hf")
    assert again.template == TEMPLATE
    assert again.tokenizer.fingerprint == load_predictor(run).tokenizer.fingerprint
    assert again.max_length == (128 if family == "gpt2" else 256)
    read = {path.name: path for path in (tmp_path / "hf").iterdir()}
    generation, config, options = (
        json.loads(read[f"{name}.json"].read_text())
        for name in ("generation_config", "config", "tokenizer_config")
    )
    assert generation["eos_token_id"] == config["eos_token_id"] == CONTROL.index("<|im_end|>")
    assert options["eos_token"] == "<|im_end|>"
    assert options["chat_template"] == TEMPLATE
    assert {path.name for path in tmp_path.iterdir()} == {"hf"}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_preset_has_equal_logits(make_run, tmp_path, family):
    run = make_run(family)
    exported = export_language_model(run, tmp_path / "keras", "keras")
    assert exported.difference == 0
    again = check_loads_equal(run, tmp_path / "keras")
    assert again.template == TEMPLATE
    backbone = keras_hub.models.Backbone.from_preset(str(tmp_path / "keras"))
    ids = np.array([[5, 9, 100, 7]], np.int32)
    inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
    expected = load_predictor(run).model.get_layer("backbone")(inputs)
    np.testing.assert_array_equal(backbone(inputs), expected)
    print(family, exported.notes)
