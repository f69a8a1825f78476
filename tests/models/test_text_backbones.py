import json
import re

import keras
import keras_hub
import numpy as np
import pytest
from safetensors.numpy import load_file
from text_families import BLOCKS, FAMILIES, hugging_face_bert, save_tiny

from tfsft import models
from tfsft.errors import UsageError, UserError
from tfsft.models import load_text_backbone, resolve, text_backbones

TEXTS = ["the quick fox is new", "a word, and another", "fox"]


@pytest.fixture(params=FAMILIES)
def backbone(request, load_text):
    return load_text(request.param)


@pytest.fixture(params=["albert", "bert", "deberta_v3", "roberta"])
def structure(request, load_text):
    """One of each structure: shared blocks, a pooler, relative positions, the plain row."""
    return load_text(request.param)


@pytest.fixture
def no_kaggle(monkeypatch, tmp_path):
    """An empty cache of kagglehub, and a hub that answers with what the test wants."""
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    answers = []

    def download(handle, path, **_):
        if not answers:
            raise ConnectionError("no network")
        file = tmp_path / path
        file.write_text(answers[0])
        return str(file)

    monkeypatch.setattr("kagglehub.model_download", download)
    return tmp_path, answers


def test_auto_is_bert_base_where_it_is_cached_or_offered_and_else_minilm(no_kaggle):
    cache, answers = no_kaggle
    name, reason = resolve("auto", "text")
    assert name == "minilm"
    assert reason.startswith("minilm: the weights of bert_base_en_uncased are not in")
    answers.append("<html>Welcome to the Hotel</html>")
    assert resolve("auto", "text")[0] == "minilm"
    answers[0] = '{"class_name": "BertBackbone"}'
    assert resolve("auto", "text")[0] == "bert_base_en_uncased"
    answers.clear()
    folder = cache / "models/keras/bert/keras/bert_base_en_uncased/3"
    folder.mkdir(parents=True)
    (folder / "model.weights.h5").write_bytes(b"weights")
    name, reason = resolve("auto", "text")
    assert (name, str(folder) in reason) == ("bert_base_en_uncased", True)


def test_auto_does_not_wait_long(no_kaggle, monkeypatch):
    import threading

    monkeypatch.setattr("kagglehub.model_download", lambda *_, **__: threading.Event().wait(60))
    monkeypatch.setattr(text_backbones, "_ANSWER_SECONDS", 0.1)
    assert resolve("auto", "text")[0] == "minilm"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bert_base_en_uncase", "Did you mean 'bert_base_en_uncased'"),
        ("minilmm", "Did you mean 'minilm'"),
        ("efficientnet_lite0", "There is no backbone"),
        ("vit_base_patch16_224_imagenet", "There is no backbone"),
        ("./models/mine", "There is no folder"),
        ("s3://bucket/model", "Known handles"),
    ],
)
def test_an_unknown_name_is_a_wrong_option(name, message):
    for function in (lambda name: resolve(name, "text"), load_text_backbone):
        with pytest.raises(UsageError, match=message):
            function(name)


def test_every_encoder_that_keras_hub_classifies_with_is_known_or_refused():
    """A new family in KerasHub has to be tried before it is offered."""
    known = {"Albert", "Bert", "DebertaV3", "DistilBert", "Electra", "Roberta", "XLMRoberta"}
    assert {name.removesuffix("Backbone") for name in text_backbones.families()} == known


def test_every_encoder_has_one_tokenizer():
    """Of two for the same backbone, KerasHub would take any."""
    import keras_hub
    from keras_hub.src.utils.preset_utils import list_subclasses

    kinds = [kind.backbone_cls for kind in list_subclasses(keras_hub.models.Tokenizer)]
    assert {kinds.count(family) for family in text_backbones.families().values()} == {1}


def test_what_comes_back(backbone):
    assert backbone.model.name == "backbone"
    assert backbone.max_length == 64
    assert backbone.tokenizer.vocabulary_size <= backbone.model.count_params()
    assert set(backbone.model.input) == set(backbone.inputs)


def test_vectors_and_gradients_do_not_depend_on_the_padding(backbone, text_classifier, pack):
    import tensorflow as tf

    model = text_classifier(backbone)
    models.unfreeze(model, "all")
    labels = np.array([0, 1, 2])
    results = []
    for width in (20, 48):
        batch = pack(backbone.tokenizer, TEXTS, width)
        real = batch["padding_mask"] == 1
        inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in batch}
        tokens = np.asarray(keras.Model(inputs, backbone.sequence(inputs))(batch))[real]
        with tf.GradientTape() as tape:
            loss = keras.losses.SparseCategoricalCrossentropy()(labels, model(batch))
        gradients = tape.gradient(loss, [w.value for w in model.trainable_weights])
        assert None not in gradients
        gradients = [np.asarray(tf.convert_to_tensor(g)) for g in gradients]
        # Positions that only the wider batch has come last, and get none.
        results.append([tokens, np.asarray(loss), *gradients])
    assert np.abs(results[0][0]).max() > 0.5
    for narrow, wide in zip(*results, strict=True):
        np.testing.assert_allclose(wide, narrow, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_masked_mean_is_exact_under_mixed_precision(dtype):
    """The pool works in float32: bfloat16 cannot count to 257, float16 not to 65,520."""
    keras.config.set_dtype_policy(f"mixed_{dtype}")
    try:
        inputs = {
            "x": keras.Input((None, 4), dtype=dtype, name="x"),
            "padding_mask": keras.Input((None,), dtype="int32", name="padding_mask"),
        }
        pool = keras.layers.GlobalAveragePooling1D(dtype="float32", name="pool")
        model = keras.Model(inputs, pool(inputs["x"], mask=inputs["padding_mask"]))
    finally:
        keras.config.set_dtype_policy("float32")
    lengths = np.array([257, 599])
    mask = (np.arange(600) < lengths[:, None]).astype("int32")
    values = np.where(np.arange(600) % 2, 250.0, 150.0)[None, :, None]  # exact in either type
    x = np.where(mask[..., None] == 1, values, 7.0) * np.ones(4)
    odd = lengths // 2
    expected = (odd * 250 + (lengths - odd) * 150) / lengths
    mean = model({"x": x, "padding_mask": mask})
    assert mean.dtype == "float32"
    np.testing.assert_allclose(mean, expected[:, None] * np.ones(4), rtol=1e-6)


def test_a_saved_model_loads_with_keras_alone(load_text, text_classifier, pack, tmp_path):
    backbone = load_text("bert")
    model = text_classifier(backbone)
    batch = pack(backbone.tokenizer, TEXTS, 16)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(batch), model(batch), atol=1e-6)


def test_layer_names_do_not_depend_on_what_was_built_before(tiny_text):
    keras.layers.Dense(2)(np.zeros((1, 2)))
    first, second = (load_text_backbone(str(tiny_text("deberta_v3"))).model for _ in range(2))
    assert [w.path for w in first.weights] == [w.path for w in second.weights]
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]


def test_random_weights_are_not_those_of_the_folder(tiny_text, load_text):
    folder = tiny_text("bert")
    stored = load_text("bert").model.get_layer("token_embedding").embeddings
    random = load_text_backbone(f"{folder}:random")
    assert random.source == f"folder {folder}, random weights"
    assert np.abs(random.model.get_layer("token_embedding").embeddings - stored).max() > 0.1
    assert random.tokenizer.fingerprint == load_text("bert").tokenizer.fingerprint


def test_a_hugging_face_folder_computes_what_bert_computes(tmp_path, pack):
    """Against BERT in NumPy, from the same file."""
    folder = hugging_face_bert(tmp_path)
    backbone = load_text_backbone(str(folder))
    assert backbone.max_length == 24
    check_against_numpy(backbone, load_file(folder / "model.safetensors"), 2, pack, TEXTS)


@pytest.mark.slow
def test_minilm_computes_what_bert_computes(pack):
    backbone = load_text_backbone("minilm")
    assert (backbone.max_length, backbone.tokenizer.vocabulary_size) == (512, 30522)
    tensors = load_file(models.starter_path("minilm") / "model.safetensors")
    texts = ["A man is eating food.", "Someone eats a meal.", "The stock market fell today."]
    pooled = check_against_numpy(backbone, tensors, 12, pack, texts)
    pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
    near, far = pooled[0] @ pooled[1], pooled[0] @ pooled[2]
    assert near > 0.6 > 0.2 > far  # it was trained to tell these apart


def check_against_numpy(backbone, tensors, heads, pack, texts):
    batch = pack(backbone.tokenizer, texts, 20)
    expected = numpy_bert(tensors, batch["token_ids"], batch["padding_mask"], heads)
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in batch}
    actual = np.asarray(keras.Model(inputs, backbone.sequence(inputs))(batch))
    mask = batch["padding_mask"][..., None]
    np.testing.assert_allclose(actual * mask, expected * mask, atol=2e-5)
    return (actual * mask).sum(1) / mask.sum(1)


def numpy_bert(tensors, token_ids, mask, heads):
    from scipy.special import softmax

    def dense(x, name):
        return x @ tensors[f"{name}.weight"].T.astype("float64") + tensors[f"{name}.bias"]

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * tensors[f"{name}.LayerNorm.weight"] + tensors[f"{name}.LayerNorm.bias"]

    def split(x):
        return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)

    x = tensors["embeddings.word_embeddings.weight"][token_ids].astype("float64")
    x += tensors["embeddings.position_embeddings.weight"][: token_ids.shape[1]]
    x += tensors["embeddings.token_type_embeddings.weight"][0]
    x = norm(x, "embeddings")
    blocks = {name.split(".")[2] for name in tensors if name.startswith("encoder.layer.")}
    for block in sorted(blocks, key=int):
        at = f"encoder.layer.{block}"
        q, k, v = (split(dense(x, f"{at}.attention.self.{n}")) for n in ("query", "key", "value"))
        scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1])
        scores += np.where(mask[:, None, None] == 1, 0, -1e9)
        y = (softmax(scores, -1) @ v).transpose(0, 2, 1, 3).reshape(x.shape)
        x = norm(x + dense(y, f"{at}.attention.output.dense"), f"{at}.attention.output")
        y = dense(x, f"{at}.intermediate.dense")
        # KerasHub computes Google's approximate gelu, Hugging Face the exact one; that moves
        # MiniLM's vectors by up to 0.006.
        y *= (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3))) / 2
        y = dense(y, f"{at}.output.dense")
        x = norm(x + y, f"{at}.output")
    return x


def test_a_hugging_face_folder_of_another_family_is_named(tmp_path):
    folder = hugging_face_bert(tmp_path, model_type="electra")
    with pytest.raises(UserError, match="of type 'electra', which KerasHub does not") as caught:
        load_text_backbone(str(folder))
    assert "distilbert" in caught.value.expected


def test_a_folder_without_its_tokenizer_says_which_files(tmp_path, tiny_text):
    folder = hugging_face_bert(tmp_path)
    (folder / "vocab.txt").unlink()
    with pytest.raises(UserError, match="has weights but no tokenizer") as caught:
        load_text_backbone(str(folder))
    assert "vocab.txt" in caught.value.expected


def test_a_folder_without_weights_or_with_an_image_model_is_refused(tmp_path, tiny_vit):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="could not be loaded"):
        load_text_backbone(str(tmp_path))
    with pytest.raises(UserError, match="ViTBackbone, which is not a text encoder"):
        load_text_backbone(str(tiny_vit))


def test_families_that_cannot_leave_padding_out_are_refused(tmp_path):
    size = {"num_layers": 1, "hidden_dim": 8, "intermediate_dim": 8, "vocabulary_size": 9}
    keras_hub.models.FNetBackbone(**size).save_to_preset(str(tmp_path))
    with pytest.raises(UserError, match="FNetBackbone, which cannot leave padding out"):
        load_text_backbone(str(tmp_path))


def test_roformer_still_sees_padding(tmp_path):
    """KerasHub masks rows of its attention instead of columns; once it does not, it is welcome."""
    backbone = keras_hub.models.RoformerV2Backbone(
        vocabulary_size=9, num_layers=1, num_heads=1, hidden_dim=8, intermediate_dim=8, head_size=8
    )
    for weight in backbone.weights:
        weight.assign(keras.random.normal(weight.shape))
    narrow, wide = (
        np.asarray(backbone({"token_ids": x, "segment_ids": np.zeros_like(x)}))[0, :3]
        for x in (np.array([[2, 5, 3]]), np.array([[2, 5, 3, 0, 0, 0]]))
    )
    assert np.abs(narrow - wide).max() > 1e-3
    assert "RoformerV2Backbone" in text_backbones._WITHOUT_MASK


def test_stages_and_depths(backbone, text_classifier):
    grouped = models.stages(backbone.model)
    model = text_classifier(backbone)
    models.unfreeze(model, "all")
    depths = models.weight_depths(model)
    assert set(depths) == {weight.path for weight in model.trainable_weights}
    assert depths["probabilities/kernel"] == 0
    blocks = {name for names in grouped[1:] for name in names if name != "pooled_dense"}
    shared = "Albert" in type(backbone.model).__name__  # one block, run three times
    assert len(blocks) == (1 if shared else BLOCKS)
    for path, depth in depths.items():
        if found := re.search(r"layer_(\d+)/", path):
            assert depth == (1 if shared else BLOCKS - int(found[1])), path
        elif "embedding" in path:
            assert depth == (2 if shared else BLOCKS + 1), path


@pytest.mark.parametrize("which", ["none", "auto", "all"])
def test_a_step_moves_exactly_what_is_open(which, structure, text_classifier, pack):
    """BERT's pooler is behind nothing that is used: it does not count as trainable."""
    model = text_classifier(structure)
    counts = models.unfreeze(model, which, dropout=0.1)
    assert not any(weight.path.startswith("pooled_dense") for weight in model.trainable_weights)
    assert counts.trainable == sum(np.prod(w.shape) for w in model.trainable_weights)
    before = model.get_weights()
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", run_eagerly=True)
    model.train_on_batch(pack(structure.tokenizer, TEXTS, 64), np.array([0, 1, 2]))
    after = model.get_weights()
    model.set_weights(before)
    open_paths = {weight.path for weight in model.trainable_weights}
    assert bool(open_paths - {"probabilities/kernel", "probabilities/bias"}) == (which != "none")
    for weight, old, new in zip(model.weights, before, after, strict=True):
        assert np.array_equal(old, new) == (weight.path not in open_paths), weight.path


def test_dropout_acts_in_what_trains_and_nowhere_else(tiny_text, text_classifier, pack):
    backbone = load_text_backbone(str(tiny_text("bert")))
    model = text_classifier(backbone)
    batch = pack(backbone.tokenizer, TEXTS, 16)

    def spread():
        runs = [np.asarray(model(batch, training=True)) for _ in range(2)]
        return np.abs(runs[0] - runs[1]).max()

    def rates():
        return {
            layer.name: {inner.rate for inner in layer._flatten_layers() if hasattr(inner, "rate")}
            for layer in backbone.model.layers
        }

    assert spread() == 0  # as it comes
    models.unfreeze(model, "none", dropout=0.5)
    assert spread() == 0
    models.unfreeze(model, "auto", dropout=0.5)
    assert spread() > 1e-3
    assert rates()["transformer_layer_2"] == {0.5}
    assert rates()["transformer_layer_1"] == rates()["embeddings_dropout"] == {0.0}
    models.unfreeze(model, "all", dropout=0.25)
    assert rates()["embeddings_dropout"] == rates()["transformer_layer_0"] == {0.25}
    np.testing.assert_array_equal(model(batch, training=False), model(batch, training=False))
    models.unfreeze(model, "all")
    assert spread() == 0


def test_dropout_works_in_a_backbone_that_was_saved_without(tmp_path, text_classifier, pack):
    save_tiny("bert", tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["config"]["dropout"] = 0.0
    path.write_text(json.dumps(config))
    backbone = load_text_backbone(str(tmp_path))
    model = text_classifier(backbone)
    models.unfreeze(model, "all", dropout=0.5)
    batch = pack(backbone.tokenizer, TEXTS, 16)
    assert np.abs(model(batch, training=True) - model(batch, training=True)).max() > 1e-3


@pytest.mark.parametrize("head", ["mean", "first", "tokens"])
@pytest.mark.parametrize("which", ["none", "auto", "all"])
def test_split_where_the_frozen_part_ends(which, head, structure, text_classifier, pack):
    model = text_classifier(structure, head, dropout=0.1)
    models.unfreeze(model, which, dropout=0.1)
    trunk, top = models.split_frozen(model)
    assert set(trunk.input) == set(structure.inputs)
    batch = pack(structure.tokenizer, TEXTS, 20)
    np.testing.assert_allclose(top(trunk(batch)), model(batch), atol=1e-6)
    assert {id(w) for w in top.trainable_weights} == {id(w) for w in model.trainable_weights}
    assert not trunk.trainable_weights
    fixed = all(None not in x.shape[1:] for x in trunk.outputs)
    if which == "none" and head != "tokens":
        assert [x.shape for x in trunk.outputs] == [(None, 16)]
    assert (fixed and bool(trunk.weights)) == (which == "none" and head != "tokens")
    assert models.from_resized(model) is model
