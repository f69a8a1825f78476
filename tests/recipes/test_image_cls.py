"""The recipe trains what it says, freezes the rest, and leaves a model that needs no tfsft."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from tfsft import data, models, training
from tfsft.errors import UsageError
from tfsft.evaluation.predictions import read_predictions
from tfsft.recipes import image_cls
from tfsft.training.forward import Forward

SMALL = {"image_size": 32, "epochs": 2, "batch_size": 16, "hidden_units": 8, "patience": 0}

LEARNING = {"epochs": 15, "batch_size": 8, "hidden_units": 32, "learning_rate": 0.03}


def run_recipe(folder, **settings):
    config = image_cls.Config(**SMALL | settings)
    with training.Run("image_cls", config, run_dir=folder) as run:
        image_cls.main(config, run)
        return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory, flowers, tiny_backbone):
    folder = tmp_path_factory.mktemp("runs") / "flowers"
    return run_recipe(folder, data=str(flowers), backbone=tiny_backbone, **LEARNING)


def pretrained(tiny_backbone):
    backbone = models.load_image_backbone(tiny_backbone, 32).model
    return [np.asarray(v) for v in backbone.variables]


def test_the_intended_weights_move_and_the_others_do_not(finished, tiny_backbone):
    before = pretrained(tiny_backbone)
    backbone = finished.model.get_layer("backbone")
    last = set(models.stages(backbone)[-1])
    owner = {v.path: layer.name for layer in backbone.layers for v in layer.variables}
    moved, frozen = set(), set()
    for v, old in zip(backbone.variables, before, strict=True):
        same = np.array_equal(np.asarray(v), old)
        (frozen if same else moved).add((owner[v.path], v.name))
    norms = {layer.name for layer in backbone.layers if "bn" in layer.name}
    assert norms
    assert moved
    assert {name for name, _ in moved} <= last - norms
    assert all((name, "kernel") in moved for name, v in moved | frozen
               if v == "kernel" and name in last)  # fmt: skip


def test_it_learns_the_colours(finished):
    metrics = json.loads((finished.dir / "metrics.json").read_text())
    assert metrics["test"]["accuracy"] == 1.0
    counts = models.unfreeze(finished.model, "auto")
    assert metrics["parameters"] == {"total": counts.total, "trained": counts.trainable}


def test_the_model_needs_keras_alone(finished, tmp_path):
    """Safe mode, no tfsft, pictures of any size: the probabilities are those of predict."""
    picture = np.asarray(Image.new("RGB", (70, 30), (200, 60, 50)))
    code = """
import sys
sys.modules["tfsft"] = None
import keras, keras_hub, numpy as np
model = keras.models.load_model(sys.argv[1])
picture = np.load(sys.argv[2])
np.save(sys.argv[3], np.asarray(model(picture[None])))
"""
    np.save(tmp_path / "picture.npy", picture)
    subprocess.run(
        [sys.executable, "-c", code, finished.dir / "model.keras", tmp_path / "picture.npy",
         tmp_path / "out.npy"],
        check=True,
    )  # fmt: skip
    probabilities = np.load(tmp_path / "out.npy")[0]
    assert probabilities.shape == (3,)
    assert probabilities.sum() == pytest.approx(1, abs=1e-6)
    assert probabilities.argmax() == 2

    from tfsft.export import load_predictor

    Image.fromarray(picture).save(tmp_path / "red.png")
    rows, outputs, bad = load_predictor(finished.dir).predict([str(tmp_path / "red.png")])
    assert (rows[0].prediction, bad) == ("red", [])
    np.testing.assert_allclose(outputs[0], probabilities, atol=1e-6)


def test_predictions_are_of_the_test_pictures(finished, flowers):
    splits = image_cls.load_data(image_cls.Config(data=str(flowers)))
    lines = (finished.dir / "predictions.csv").read_text().splitlines()
    assert lines[0] == "id,label,prediction,probability"
    assert {line.split(",")[0] for line in lines[1:]} == set(splits.test.ids)


@pytest.mark.parametrize("unfreeze", ["none", "auto"])
def test_cached_features_give_the_same_weights(flowers, tiny_backbone, tmp_path, unfreeze):
    """Training above the cached trunk, against training the whole network on pictures."""
    splits = image_cls.load_data(image_cls.Config(data=str(flowers)))
    trained = {}
    for way in ("cached", "long", "on disk"):
        keras.utils.set_random_seed(1)
        model = image_cls.build_model(3, tiny_backbone, 32, hidden_units=8, dropout=0.0)
        models.unfreeze(model, unfreeze)
        train = data.ImageFeed(splits.train, 32).pipeline(16, seed=1, shuffle=True)
        if way == "long":
            network = models.from_resized(model)
        else:
            trunk, network = models.split_frozen(model)
            memory = 0 if way == "on disk" else 1 << 30
            features = training.FrozenFeatures(trunk, train, memory=memory, folder=tmp_path)
            train = features.pipeline()
        tuner = training.FineTuner(network)
        tuner.compile(training.make_optimizer("sgd", 0.05), "categorical_crossentropy")
        tuner.fit(train, epochs=3)
        trained[way] = [np.asarray(v) for v in model.variables]
        assert way == "long" or features.on_disk == (way == "on disk")
    for cached, long, on_disk in zip(*trained.values(), strict=True):
        np.testing.assert_allclose(cached, long, atol=2e-5)
        np.testing.assert_array_equal(cached, on_disk)


@pytest.mark.parametrize(("unfreeze", "trunks"), [("none", 1), ("auto", 2)])
def test_the_frozen_network_sees_each_picture_once(
    unfreeze, trunks, flowers, tiny_backbone, tmp_path, monkeypatch
):
    """In training, in scoring and in the search for wrong labels together, with each trunk."""
    seen = []
    original = Forward.step

    def counted(self, batches):
        (inputs, targets, weights), outputs = original(self, batches)
        if any(isinstance(layer, keras.layers.Conv2D) for layer in self.model._flatten_layers()):
            seen.append((self.model.name, int((weights > 0).numpy().sum())))
        return (inputs, targets, weights), outputs

    monkeypatch.setattr(Forward, "step", counted)
    run = run_recipe(
        tmp_path / "run", data=str(flowers), backbone=tiny_backbone, unfreeze=unfreeze, epochs=1
    )
    train, validation, test = (len(s) for s in splits_of(flowers).sources().values())
    assert sum(size for name, size in seen if name == "trunk") == (
        (train + validation) * trunks + test
    )
    if unfreeze == "none":
        assert {name for name, _ in seen} == {"trunk"}
        before = pretrained(tiny_backbone)
        after = run.model.get_layer("backbone").variables
        for v, old in zip(after, before, strict=True):
            np.testing.assert_array_equal(np.asarray(v), old)
    check_suspects(run, splits_of(flowers))


def splits_of(flowers):
    return image_cls.load_data(image_cls.Config(data=str(flowers)))


def check_suspects(run, splits):
    """The scores and suspicious.csv are those of the whole network on pictures."""
    feeds = {name: data.ImageFeed(source, 32) for name, source in splits.sources().items()}
    pipelines = {name: feed.pipeline(16) for name, feed in feeds.items()}
    found = (run.dir / "suspicious.csv").read_text()
    rows = {row.id: row.probability for row in read_predictions(run.dir / "predictions.csv")}
    run.frozen = None
    outputs, _ = training.predict(models.from_resized(run.model), pipelines["test"])
    np.testing.assert_allclose(
        [rows[str(name)] for name in splits.test.ids], outputs.max(axis=1), atol=1e-5
    )
    training.find_suspects(
        run,
        run.model,
        pipelines,
        splits.sources(),
        kind="single",
        class_names=splits.class_names,
    )
    again = (run.dir / "suspicious.csv").read_text()
    assert [line.split(",")[:4] for line in again.splitlines()] == [
        line.split(",")[:4] for line in found.splitlines()
    ]


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"augment": "flip,rotation,crop,color,mixup"}, marks=pytest.mark.slow),
        {"augment": "randaugment,cutmix", "ema": 0.9, "accumulate": 2},
        {"gradual": 2, "layer_decay": 0.5, "schedule": "linear", "l1": 1e-4, "l2": 1e-4},
        {"class_weight": "balanced", "schedule": "inverse_time", "optimizer": "lion"},
        {"sampling": "balanced", "schedule": "step", "decay_unit": "steps", "optimizer": "muon"},
        {"label_smoothing": 0.1, "max_steps": 2, "clip_norm": 1.0, "unfreeze": "all"},
    ],
    ids=lambda settings: ",".join(settings),
)
def test_options(settings, flowers, tiny_backbone, tmp_path):
    run = run_recipe(
        tmp_path / "run", data=str(flowers), backbone=tiny_backbone, **{"epochs": 1} | settings
    )
    assert (run.dir / "report.html").stat().st_size > 10_000
    phases = list(run.metrics["timing"]["phases"])
    expected = ["head", "stage 1", "stage 2"] if "gradual" in settings else ["head", "unfrozen"]
    assert phases == expected
    assert np.isfinite(run.metrics["test"]["log_loss"])


@pytest.mark.parametrize(("head_epochs", "rows"), [(0, ["unfrozen"]), (1, ["head", "unfrozen"])])
def test_how_long_the_head_is_trained_alone(head_epochs, rows, flowers, tiny_backbone, tmp_path):
    settings = {"data": str(flowers), "backbone": tiny_backbone, "epochs": 1, "limit": 24}
    run = run_recipe(tmp_path / "run", head_epochs=head_epochs, **settings)
    lines = (run.dir / "history.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == rows


def test_several_labels(flowers, tiny_backbone, tmp_path):
    lines = ["path,labels"]
    for name in ("blue", "green", "red"):
        for path in sorted((flowers / name).iterdir()):
            second = "|warm" if name == "red" else ""
            lines.append(f"{path},{name}{second}")
    table = flowers / "labels.csv"
    table.write_text("\n".join(lines))
    run = run_recipe(
        tmp_path / "run", data=str(table), backbone=tiny_backbone, multi_label=True, **LEARNING,
    )  # fmt: skip
    table.unlink()
    assert run.task["class_names"] == ["blue", "green", "red", "warm"]
    assert run.metrics["test"]["label_accuracy"] > 0.9


def test_a_number(tmp_path, tiny_backbone):
    """How bright a grey picture is, in units far from those a network starts with."""
    random = np.random.default_rng(0)
    lines = ["file,brightness"]
    for i in range(80):
        level = int(random.integers(20, 235))
        Image.new("L", (32, 32), level).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{1000 + 10 * level}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    run = run_recipe(
        tmp_path / "run", data=str(tmp_path / "labels.csv"), backbone=tiny_backbone,
        regression=True, epochs=15, learning_rate=0.01,
    )  # fmt: skip
    assert run.metrics["test"]["r2"] > 0.8
    header = (run.dir / "predictions.csv").read_text().splitlines()[0]
    assert header == "id,label,prediction,error"


def test_contradictory_settings(tmp_path, flowers):
    for settings, named in (
        ({"multi_label": True, "regression": True}, "--multi-label and --regression"),
        ({"regression": True, "class_weight": "balanced"}, "--class-weight balanced"),
        ({"batch_size": 10, "accumulate": 4}, "--batch-size 10 cannot be cut"),
        ({"augment": "flop"}, "flip"),
        ({"backbone": "resnet51"}, "resnet50"),
    ):
        with pytest.raises(UsageError, match=named):
            run_recipe(tmp_path / named[:8], data=str(flowers), **settings)


def test_build_model_is_a_plain_model(tiny_backbone):
    model = image_cls.build_model(5, tiny_backbone, image_size=32)
    assert type(model) is keras.Model or type(model).__name__ == "Functional"
    assert model.output_shape == (None, 5)
    assert model.input_shape == (None, None, None, 3)
    assert not model.compiled
    assert not any("random" in type(layer).__name__.lower() for layer in model.layers)
