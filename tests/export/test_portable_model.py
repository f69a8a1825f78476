"""An ONNX or LiteRT file answers as its run does, where there is no TensorFlow."""

import importlib.util
import json
import shutil
import subprocess
import sys

import keras
import keras_hub
import numpy as np
import pytest

from tfsft.errors import UsageError, UserError
from tfsft.export import certifying, export_portable, judging, load_predictor, portable_model
from tfsft.export.precision import compute_in_float32
from tfsft.export.replaying import Replay

FORMATS = ("onnx", "litert")


def ask(folder, *inputs):
    """Runs example.py as a person does; returns what it says."""
    blocked = "import sys; sys.modules |= dict.fromkeys(['tensorflow', 'keras', 'tfsft']);"
    code = f"{blocked} import runpy; sys.path.insert(0, '.'); runpy.run_path('example.py')"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, *inputs],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(("name", "format"), [("pictures", "litert"), ("texts", "onnx")])
def test_answers_where_there_is_no_tensorflow(held_out_run, tmp_path, monkeypatch, name, format):
    if name == "pictures":  # once is enough for what only takes the time of Keras
        monkeypatch.setattr(certifying, "replay_keras", lambda *_: Replay([], 0.1, 0.1, 1))
    check(held_out_run(name), tmp_path / "out", name, format)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("pictures", "bert"),
        ("texts", "xlm_roberta"),
        ("pairs", "bert"),
        ("pairs", "albert"),
        ("numbers", "distil_bert"),
        ("tags", "bert"),
        ("tags", "roberta"),
        ("questions", "bert"),
        ("questions", "deberta_v3"),
    ],
)
def test_every_task(held_out_run, tmp_path, name, format, family):
    check(held_out_run(name, family), tmp_path / "out", name, format)


def check(run, out, name, format):
    exported = export_portable(run, out, format)
    certificate = json.loads((out / "certificate.json").read_text())
    assert exported.difference == certificate["difference"] < 1e-4
    assert certificate["agreement"] == 1.0
    # The process has neither Keras nor what the parent has.
    assert certificate["exported"]["memory"] < 300e6
    scores = certificate["keras"]["score"], certificate["exported"]["score"]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    predictor = load_predictor(run)
    if name == "pictures":
        inputs = sorted(map(str, (run.parent / "run-data").rglob("*.*")))[::9]
        expected, _ = predictor.answer(inputs)
        found = ask(out, *inputs)
    else:
        columns = {column: ["the quick fox", "Élodie, a dog? 😀"] for column in predictor.columns}
        expected, _ = predictor.answer(predictor.plain(columns, ["0", "1"]))
        words = [text for pair in zip(*columns.values(), strict=True) for text in pair]
        found = ask(out, *words)
    assert len(found) == len(expected)
    for ours, theirs in zip(expected, found, strict=True):
        same_answer(ours, theirs)


def same_answer(ours, theirs):
    if "probabilities" in ours:
        assert theirs["probabilities"] == pytest.approx(ours["probabilities"], abs=1e-4)
        assert theirs.get("label", ours["prediction"]) == ours["prediction"]
    elif "entities" in ours:
        sure = np.prod([probability for *_, probability in theirs["words"]])
        assert sure == pytest.approx(ours["probability"], abs=1e-4)
    elif "answer" in theirs:
        assert theirs["answer"] == ours["prediction"]
        assert theirs["probability"] == pytest.approx(ours["probability"], abs=1e-4)
    else:
        assert theirs["value"] == pytest.approx(ours["prediction"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_the_first_convolutions_stay_in_float(held_out_run, tmp_path, format):
    out = tmp_path / "out"
    export_portable(held_out_run("pictures"), out, format, quantize="int8", tolerance=1)
    if format == "onnx":
        import onnx

        graph = onnx.load(out / "model.onnx").graph
        rounded = {
            name for node in graph.node for name in node.output if "Dequantize" in node.op_type
        }
        whole = [not rounded & {*node.input[:2]} for node in graph.node if node.op_type == "Conv"]
    else:
        from ai_edge_litert.interpreter import Interpreter

        lite = Interpreter(str(out / "model.tflite"))
        kinds = {tensor["index"]: tensor["dtype"] for tensor in lite.get_tensor_details()}
        whole = [
            {kinds[place] for place in of["inputs"][:2]} == {np.float32}
            for of in lite._get_ops_details()
            if "CONV_2D" in of["op_name"]
        ]
    assert len(whole) > 4
    assert whole == [True] * 3 + [False] * (len(whole) - 3)


def test_what_answers_differently_is_refused_with_the_worst_and_removed(
    held_out_run, tmp_path, monkeypatch
):
    """The run itself is changed behind its back: one class is the likeliest whatever comes."""
    outputs = judging.run_outputs
    first = lambda predictor, source: [of[::-1] for of in outputs(predictor, source)]  # noqa: E731
    monkeypatch.setattr(judging, "run_outputs", first)
    monkeypatch.setattr(certifying, "replay_keras", lambda *_: Replay([], 0.1, 0.1, 1))
    with pytest.raises(
        UserError, match=r"answers differently from the run(.|\n)* became "
    ) as error:
        export_portable(held_out_run("pictures"), tmp_path / "out", "onnx")
    assert "The worst of 30 examples" in str(error.value)
    assert "--tolerance allows more" in error.value.fix
    assert list(tmp_path.iterdir()) == []


def test_data_that_is_gone_costs_one_message(held_out_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(held_out_run("texts"), run)
    config = json.loads((run / "config.json").read_text())
    config["settings"]["data"] = str(tmp_path / "gone.csv")
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"held-out examples(.|\n)*gone.csv(.|\n)*--data"):
        export_portable(run, tmp_path / "out", "onnx")
    (run / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"config\.json does not say"):
        export_portable(run, tmp_path / "out", "onnx")
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_pictures_to_measure_int8_with_are_needed(held_out_run, tmp_path):
    original = held_out_run("pictures")
    run = tmp_path / "run"
    shutil.copytree(original, run)
    settings = {"settings": {"data": str(tmp_path / "gone")}}
    (run / "config.json").write_text(json.dumps(settings))
    data = str(original.parent / "run-data")
    with pytest.raises(UserError, match=r"int8(.|\n)*gone(.|\n)*--quantize dynamic"):
        export_portable(run, tmp_path / "out", "onnx", quantize="int8", data=data)
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


@pytest.mark.slow
@pytest.mark.parametrize("quantize", [None, "int8"])
def test_other_held_out_data(held_out_run, tmp_path, quantize):
    """Of texts int8 needs nothing that the run was trained on."""
    run, other = tmp_path / "run", tmp_path / "other.csv"
    shutil.copytree(held_out_run("texts"), run)
    (run / "config.json").write_text("{}")
    other.write_text("text,label\nthe fox,weather\na lazy dog,天气\n")
    exported = export_portable(
        run, tmp_path / "out", "onnx", quantize=quantize, data=str(other), tolerance=1
    )
    assert exported.samples == 2
    assert json.loads((tmp_path / "out" / "certificate.json").read_text())["data"] == str(other)


@pytest.mark.parametrize(("format", "module"), [("onnx", "tf2onnx"), ("litert", "ai_edge_litert")])
def test_a_missing_package_is_named(held_out_run, tmp_path, monkeypatch, format, module):
    find = importlib.util.find_spec
    missing = lambda name, *rest: None if name == module else find(name, *rest)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", missing)
    with pytest.raises(UserError, match=f"pip install {module.replace('_', '-')}"):
        export_portable(held_out_run("pictures"), tmp_path / "out", format)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_runtime_is_one_message(held_out_run, tmp_path, monkeypatch):
    def write(model, path, *_, **__):
        path.write_bytes(b"no model")

    monkeypatch.setattr(portable_model, "convert", write)
    with pytest.raises(UserError, match=r"does not answer: .*(\n|.)*removed"):
        export_portable(held_out_run("pictures"), tmp_path / "out", "onnx")
    assert list(tmp_path.iterdir()) == []


def test_folders_that_are_no_runs_or_exist_are_refused(held_out_run, tmp_path):
    with pytest.raises(UsageError, match="is not the folder of a run"):
        export_portable(tmp_path / "nothing", tmp_path / "out", "onnx")
    half = tmp_path / "half"
    half.mkdir()
    (half / "config.json").write_text("{}")
    with pytest.raises(UsageError, match="is not finished"):
        export_portable(half, tmp_path / "out", "litert")
    with pytest.raises(UsageError, match="half exists already"):
        export_portable(held_out_run("texts"), half, "litert")


@pytest.mark.slow
def test_batches_of_any_size_and_length(held_out_run, tmp_path):
    export_portable(held_out_run("texts"), tmp_path / "onnx", "onnx")
    export_portable(held_out_run("texts"), tmp_path / "litert", "litert")
    from ai_edge_litert.interpreter import Interpreter
    from onnxruntime import InferenceSession

    session = InferenceSession(str(tmp_path / "onnx" / "model.onnx"))
    assert session.get_inputs()[0].shape == ["batch", "length"]
    assert session.get_outputs()[0].name == "probabilities"
    lite = Interpreter(str(tmp_path / "litert" / "model.tflite")).get_signature_runner()
    random = np.random.default_rng(0)
    model = load_predictor(held_out_run("texts")).model
    for shape in ((1, 5), (4, 9), (2, 24)):
        ids = random.integers(5, 30, shape, np.int32)
        inputs = {"token_ids": ids, "padding_mask": np.ones_like(ids)}
        inputs["segment_ids"] = np.zeros_like(ids)
        expected = model.predict(inputs, verbose=0)
        np.testing.assert_allclose(session.run(None, inputs)[0], expected, atol=1e-5)
        np.testing.assert_allclose(lite(**inputs)["probabilities"], expected, atol=1e-5)


def test_half_precision_becomes_whole():
    """Equal to the bit to a model that has computed in float32 from the start."""
    outputs = {}
    tokens = {name: np.ones((2, 5), "int32") for name in ("token_ids", "padding_mask")}
    tokens["segment_ids"] = np.zeros((2, 5), "int32")
    for policy in ("float32", "mixed_bfloat16"):
        keras.config.set_dtype_policy(policy)
        try:
            backbone = keras_hub.models.BertBackbone(
                vocabulary_size=20, num_layers=2, num_heads=2, hidden_dim=8, intermediate_dim=16
            )
            inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in tokens}
            x = keras.layers.Dropout(0.1)(backbone(inputs)["sequence_output"][:, 0])
            model = keras.Model(inputs, keras.layers.Dense(3, dtype="float32")(x))
        finally:
            keras.config.set_dtype_policy("float32")
        rng = np.random.default_rng(0)
        model.set_weights([rng.normal(0, 0.3, w.shape) for w in model.weights])
        outputs[policy, "before"] = np.asarray(model(tokens))
        compute_in_float32(model)
        outputs[policy, "after"] = np.asarray(model(tokens))
    whole = outputs["float32", "before"]
    assert np.abs(outputs["mixed_bfloat16", "before"] - whole).max() > 1e-4
    np.testing.assert_array_equal(outputs["mixed_bfloat16", "after"], whole)
    np.testing.assert_array_equal(outputs["float32", "after"], whole)
