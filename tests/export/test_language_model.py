"""Exported chat runs are the same models, tokenizers and templates wherever they are loaded."""

import json
import shutil

import jinja2.sandbox
import keras
import keras_hub
import numpy as np
import pytest
from chat_families import CONTROL, TEMPLATE, tiny_causal_lm
from chat_runs import write_chat_run

from tfsft import data, models
from tfsft.errors import UsageError, UserError
from tfsft.export import export_language_model, export_saved_model, load_predictor

FAMILIES = ["llama", "mistral", "qwen2", "gpt2", "qwen3", "gemma", "gemma2", "gemma3_text"]


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
    # KerasHub saves of Llama's tokenizer no names of control tokens; others' are of SentencePiece.
    assert bool(exported.notes) == family.startswith(("llama", "mistral", "gemma"))
    found = {}
    exec(exported.usage, found)
    expected = load_predictor(run).model(inputs)
    np.testing.assert_array_equal(found["model"](inputs), expected)
    if not exported.notes:
        text = "Hello there, how are you?<|im_end|>"
        tokens = np.asarray(found["model"].preprocessor.tokenizer(text))
        ours = load_predictor(run).tokenizer
        assert tokens.tolist() == [*ours.encode([text[:-10]])[0], ours.control["<|im_end|>"]]


@pytest.mark.parametrize("family", ["gemma", "mistral"])
def test_a_model_of_sentence_pieces_travels(tmp_path, family):
    folder = tiny_causal_lm(tmp_path / "lm", family, pieces=True)
    run = write_chat_run(tmp_path / "run", folder)
    export_language_model(run, tmp_path / "hf", "hf")
    written = (tmp_path / "hf" / "tokenizer.model").read_bytes()
    assert written == (folder / "tokenizer.model").read_bytes()
    options = json.loads((tmp_path / "hf" / "tokenizer_config.json").read_text())
    assert options["tokenizer_class"] == {"gemma": "GemmaTokenizer"}.get(family, "LlamaTokenizer")
    check_loads_equal(run, tmp_path / "hf")


@pytest.mark.parametrize("template", ["plain", "alpaca", "gemma"])
def test_what_is_put_around_a_template_goes_into_it(make_run, tmp_path, template):
    """Elsewhere nobody adds the token that ends an answer, or finds a place for the system."""
    folder = make_run("qwen2").parent
    run = write_chat_run(tmp_path / "run", folder / "lm", template=template)
    exported = export_language_model(run, tmp_path / "hf", "hf")
    assert exported.notes == ()
    source = json.loads((tmp_path / "hf" / "tokenizer_config.json").read_text())["chat_template"]
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    roles = ("system", "user", "assistant", "user", "assistant")
    chat = [{"role": role, "content": f"This is {i}."} for i, role in enumerate(roles)]
    own = load_predictor(run).encoder.template
    for messages, generate in ((chat, False), (chat[:-1], True), (chat[1:2], True)):
        text = environment.from_string(source).render(
            messages=messages,
            add_generation_prompt=generate,
            bos_token=own.begin,
            eos_token=own.end,
        )
        assert text == "".join(piece.text for piece in own.pieces(messages, generate=generate))
    check_loads_equal(run, tmp_path / "hf")


def test_scaled_positions_and_epsilon_travel(tmp_path):
    folder = tiny_causal_lm(tmp_path / "lm")
    config = json.loads((folder / "config.json").read_text())
    scaled = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaled |= {"original_max_position_embeddings": 32, "rope_type": "llama3"}
    config |= {"rope_scaling": scaled, "rope_theta": 500.0, "rms_norm_eps": 1e-3}
    (folder / "config.json").write_text(json.dumps(config))
    run = write_chat_run(tmp_path / "run", folder)
    export_language_model(run, tmp_path / "hf", "hf")
    written = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert {name: written[name] for name in config} == config
    check_loads_equal(run, tmp_path / "hf")


def test_weights_of_mistral_are_not_rounded(tmp_path):
    """KerasHub's converter makes float16 of them."""
    from safetensors.numpy import load_file

    folder = tiny_causal_lm(tmp_path / "lm", "mistral")
    tensors = load_file(folder / "model.safetensors")
    embedding = models.load_causal_lm(str(folder)).model.get_layer("backbone").token_embedding
    np.testing.assert_array_equal(embedding.embeddings, tensors["model.embed_tokens.weight"])
    np.testing.assert_array_equal(embedding.reverse_embeddings, tensors["lm_head.weight"].T)


def test_half_precision_travels(tmp_path):
    folder = tiny_causal_lm(tmp_path / "lm", "qwen2")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        run = write_chat_run(tmp_path / "run", folder)
    finally:
        keras.config.set_dtype_policy(before)
    for form in ("hf", "keras"):
        assert export_language_model(run, tmp_path / form, form).difference == 0
    assert keras.config.dtype_policy() == before


def test_what_does_not_fit_is_refused_and_leaves_nothing(make_run, tmp_path):
    run = make_run("llama")
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="mine exists already"):
        export_language_model(run, tmp_path / "mine", "hf")
    with pytest.raises(UsageError, match=r"is about conversations(.|\n)*--format keras"):
        export_saved_model(run, tmp_path / "out")
    with pytest.raises(UsageError, match="is not the folder of a run"):
        export_language_model(tmp_path / "nothing", tmp_path / "out", "hf")
    pictures = tmp_path / "pictures"
    shutil.copytree(run, pictures)
    (pictures / "task.json").write_text('{"task": "image_classification"}')
    with pytest.raises(UsageError, match=r"about image classification(.|\n)*saved_model"):
        export_language_model(pictures, tmp_path / "out", "keras")
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "pictures"}


def test_a_family_that_hugging_face_does_not_get_is_refused(make_run, tmp_path):
    predictor = load_predictor(make_run("qwen2"))
    model = keras.Sequential(name="causal_lm")
    model.add(keras_hub.models.BloomBackbone(50, 1, 2, 8, 16, name="backbone"))
    with pytest.raises(UserError, match=r"BloomBackbone(.|\n)*Llama, Mistral(.|\n)*keras"):
        models.save_hugging_face(model, predictor.tokenizer, tmp_path, template=TEMPLATE, stop=(2,))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_weights_is_removed(make_run, tmp_path, other_weights):
    with pytest.raises(UserError, match="answers differently"):
        export_language_model(make_run("llama"), tmp_path / "out", "hf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_command(writing_run, tfsft, tmp_path):
    run = writing_run("llama")
    done = tfsft("export", run, "--format", "hf", "--out", tmp_path / "hf")
    assert done.returncode == 0, done.stderr
    assert "On 4 held-out examples 100% of its most likely tokens are those" in done.stderr
    assert "(Perplexity " in done.stderr
    assert "AutoModelForCausalLM" in done.stdout
    assert (tmp_path / "hf" / "certificate.html").exists()
    done = tfsft("export", run)
    assert done.returncode == 2
    assert "--format keras" in done.stderr
    (tmp_path / "gone").mkdir()
    for name in ("model.keras", "task.json"):
        shutil.copy(run / name, tmp_path / "gone" / name)
    shutil.copytree(run / "tokenizer", tmp_path / "gone" / "tokenizer")
    (tmp_path / "gone" / "config.json").write_text("{}")
    done = tfsft("export", tmp_path / "gone", "--format", "hf")
    assert done.returncode == 1
    assert "--data" in done.stderr
