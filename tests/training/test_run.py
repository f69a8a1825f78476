"""A run leaves what it promises, and one that was stopped and resumed leaves the same."""

import csv
import dataclasses
import functools
import json
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
from run_folders import events

from tfsft import training
from tfsft.data.pipeline import Pipeline
from tfsft.data.plan import BatchPlan
from tfsft.errors import Stopped, UsageError, UserError
from tfsft.training.callbacks.tensorboard import cut_events, event_lengths, write_texts

SIZE, WIDTH, CLASSES, BATCH = 45, 6, 3, 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    data: str = "numbers"
    epochs: int = 3
    seed: int = 3
    ema: float = 0.9
    patience: int = 0


def pipeline(shuffle):
    random = np.random.default_rng(0)
    inputs = random.normal(size=(SIZE, WIDTH)).astype("float32")
    labels = (inputs[:, 0] > 0).astype(int) + (inputs[:, 1] > 0)

    def fetch(rows, seeds):
        noise = seeds[..., :1].astype("float32") / 2**31 * 0.01  # augmentation of a sort
        return tf.data.Dataset.from_tensor_slices((inputs[rows] + noise, np.ones(rows.shape, bool)))

    return Pipeline(
        BatchPlan(SIZE, BATCH, seed=3, shuffle=shuffle), labels, fetch, num_classes=CLASSES
    )


class StopAt(keras.callbacks.Callback):
    """Sends this process a signal after a number of steps."""

    def __init__(self, steps):
        super().__init__()
        self.left = steps

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGTERM)


def build():
    penalty = keras.regularizers.L2(1e-3)
    return keras.Sequential(
        [
            keras.Input((WIDTH,)),
            keras.layers.Dense(8, activation="relu", kernel_regularizer=penalty, name="hidden"),
            keras.layers.Dropout(0.3, name="dropout"),
            keras.layers.Dense(CLASSES, activation="softmax", name="predictions"),
        ],
        name="network",
    )


def main(config, run, stop_at=None):
    """A recipe in small: two phases with dropout, a schedule, a moving average, accumulation."""
    train, validation = pipeline(shuffle=True), pipeline(shuffle=False)
    with run.strategy.scope():
        model = build()
    names = ("none", "one", "both")
    task = {"task": "test", "labels": "single", "class_names": list(names)}
    run.begin(model, task=task, data={"fingerprint": "f", "train": SIZE, "warnings": []})
    stop = StopAt(stop_at) if stop_at else None
    for name, trainable in (("head", False), ("unfrozen", True)):
        model.get_layer("hidden").trainable = trainable
        with run.strategy.scope():
            tuner = training.FineTuner(model, accumulate=2, clip_norm=1.0)
            schedule = training.make_schedule("cosine", 0.05, config.epochs * train.steps)
            optimizer = training.make_optimizer("adamw", schedule, ema=config.ema)
            metrics = ["accuracy", training.ConfusionMatrix(CLASSES)]
            tuner.compile(optimizer, "categorical_crossentropy", weighted_metrics=metrics)
        tuner.fit(
            train,
            validation_data=validation,
            epochs=config.epochs,
            callbacks=[stop] if stop else [],
            phase=run.phase(name, patience=config.patience or None, class_names=names),
        )
    score = functools.partial(training.score_labels, kind="single", class_names=names)
    run.evaluate(model, {"validation": validation, "test": None}, score)
    run.save(model)
    run.report()
    return model


def train(folder, config=None, stop_at=None, resume=False):
    config = config or Config()
    keras.utils.clear_session()
    options = {"resume": folder} if resume else {"run_dir": folder}
    with training.Run("small", config, **options) as run:
        return main(config, run, stop_at)


def weights(model):
    return {v.path: np.asarray(v) for v in model.variables}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, weights(train(folder))


def test_run_folder(whole):
    folder, _ = whole
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.json", "model.keras", "task.json", "metrics.json", "history.csv",
        "predictions.csv", "report.html", "README.md", "tensorboard", "checkpoints", "log.txt",
    }  # fmt: skip
    for name in ("config.json", "task.json", "metrics.json"):
        assert json.loads((folder / name).read_text())["format"] == 1
    with open(folder / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["phase"], row["epoch"]) for row in rows] == [
        (phase, str(epoch)) for phase in ("head", "unfrozen") for epoch in (1, 2, 3)
    ]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["parameters"] == {"total": 83, "trained": 83}
    assert metrics["test"] is None
    assert set(metrics["timing"]["phases"]) == {"head", "unfrozen"}
    assert all(metrics["timing"]["learned_per_second"].values())
    for phase, seconds in metrics["timing"]["update_seconds"].items():
        assert 0 < seconds < metrics["timing"]["phases"][phase]
    assert 0 < metrics["timing"]["first_step_seconds"] < metrics["timing"]["total_seconds"]
    assert metrics["timing"]["peak_memory_bytes"] > 1e8


def test_saved_model_is_the_trained_one_and_carries_its_task(whole):
    folder, expected = whole
    loaded = keras.models.load_model(folder / "model.keras")
    for v in loaded.trainable_variables:
        np.testing.assert_array_equal(np.asarray(v), expected[f"network/{v.path}"])
    import zipfile

    task = json.loads(zipfile.ZipFile(folder / "model.keras").read("task.json"))
    assert task["class_names"] == ["none", "one", "both"]


def test_tensorboard_has_curves_pictures_and_hyperparameters(whole):
    folder, _ = whole
    train_events = events(folder / "tensorboard" / "train")
    validation = events(folder / "tensorboard" / "validation")
    steps = -(-SIZE // BATCH)
    for tag in ("loss", "accuracy", "learning_rate", "examples_per_second"):
        assert {s for t, s in train_events if t == f"step/{tag}"} == set(range(1, 6 * steps + 1))
    assert {s for t, s in validation if t == "epoch/loss"} == {steps * i for i in range(1, 7)}
    assert ("confusion matrix", steps) in validation
    tags = {tag for tag, _ in events(folder / "tensorboard")}
    assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= tags
    assert "validation/accuracy" in tags


def test_step_curve_is_the_loss_of_each_batch(whole):
    """The epoch's loss is the mean of its batches' losses, weighted by examples."""
    folder, _ = whole
    found = events(folder / "tensorboard" / "train")
    steps = -(-SIZE // BATCH)
    sizes = np.array([BATCH] * (SIZE // BATCH) + [SIZE % BATCH])
    losses = np.array([found["step/loss", s] for s in range(1, steps + 1)])
    assert found["epoch/loss", steps] == pytest.approx((losses * sizes).sum() / SIZE, rel=1e-4)
    assert len(set(losses)) == steps


# 18 steps a phase, 6 an epoch: in an epoch, at its end, after a phase, in the second phase.
@pytest.mark.parametrize(
    "stop_at", [6, 23, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 4, 9, 18, 36))]
)
def test_resumed_run_equals_uninterrupted_run(whole, tmp_path, stop_at):
    folder, expected = whole
    with pytest.raises(Stopped) as stopped:
        train(tmp_path / "run", stop_at=stop_at)
    assert stopped.value.exit_code == 143
    assert f"--resume {tmp_path / 'run'}" in stopped.value.resume_command
    actual = weights(train(tmp_path / "run", resume=True))
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)
    for name in ("history.csv", "predictions.csv"):
        assert (tmp_path / "run" / name).read_text() == (folder / name).read_text()
    for part in ("train", "validation"):
        curves = events(tmp_path / "run" / "tensorboard" / part)
        assert curves == pytest.approx(events(folder / "tensorboard" / part))


@pytest.mark.slow
def test_stopped_three_times(whole, tmp_path):
    _, expected = whole
    for stop_at in (5, 8, 11):
        with pytest.raises(Stopped):
            train(tmp_path / "run", stop_at=stop_at, resume=stop_at != 5)
    actual = weights(train(tmp_path / "run", resume=True))
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


def test_more_epochs_on_a_finished_run(tmp_path, capsys):
    config = Config(epochs=2)
    train(tmp_path / "run", config)
    train(tmp_path / "run", Config(epochs=4), resume=True)
    assert "--epochs grows from 2 to 4" in capsys.readouterr().out
    with open(tmp_path / "run" / "history.csv") as file:
        rows = [(row["phase"], row["epoch"]) for row in csv.DictReader(file)]
    assert rows == [("head", "1"), ("head", "2"), *(("unfrozen", str(i)) for i in range(1, 5))]


def test_early_stopping_keeps_the_best_weights(tmp_path):
    config = Config(epochs=30, patience=2, ema=0.0)
    model = train(tmp_path / "run", config)
    with open(tmp_path / "run" / "history.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["phase"] == "unfrozen"]
    losses = [float(row["val_loss"]) for row in rows]
    assert len(rows) < 30
    assert losses.index(min(losses)) == len(rows) - 3
    tuner = training.FineTuner(model)
    tuner.compile("sgd", "categorical_crossentropy")
    score = tuner.evaluate(pipeline(shuffle=False), return_dict=True, verbose=0)["loss"]
    assert score == pytest.approx(min(losses), rel=1e-5)


def test_a_damaged_checkpoint_is_passed_over(whole, tmp_path, capsys):
    _, expected = whole
    for _ in range(2):
        with pytest.raises(Stopped):
            train(tmp_path / "run", stop_at=4, resume=_ == 1)
    newest = max((tmp_path / "run" / "checkpoints").glob("0*"))
    content = bytearray((newest / "state.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (newest / "state.safetensors").write_bytes(content)
    actual = weights(train(tmp_path / "run", resume=True))
    assert "damaged" in capsys.readouterr().out
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


def test_nan_loss_stops_and_says_where(tmp_path):
    class Break(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                weight = self.model.trainable_variables[0]
                weight.assign(np.full(weight.shape, np.nan))

    config = Config()
    with training.Run("small", config, run_dir=tmp_path / "run") as run:
        train_data = pipeline(shuffle=True)
        model = build()
        task = {"task": "test", "labels": "single", "class_names": ["a", "b", "c"]}
        run.begin(model, task=task, data={"fingerprint": "f"})
        tuner = training.FineTuner(model)
        tuner.compile(training.make_optimizer("adamw", 0.01), "categorical_crossentropy")
        with pytest.raises(UserError, match="loss became nan in phase 'only', epoch 2, step 1"):
            tuner.fit(
                train_data,
                validation_data=pipeline(shuffle=False),
                epochs=3,
                callbacks=[Break()],
                phase=run.phase("only"),
            )
    kept = keras.models.load_model(tmp_path / "run" / "model.keras")
    assert all(np.isfinite(np.asarray(v)).all() for v in kept.variables)


def test_changed_settings_are_refused(whole):
    folder, _ = whole
    with pytest.raises(UsageError, match=r"ema was 0\.9, now 0\.5"):
        training.Run("small", Config(ema=0.5), resume=folder)


def test_folders_that_are_no_place_for_a_run(whole, tmp_path):
    folder, _ = whole
    with pytest.raises(UsageError, match="exists already"):
        training.Run("small", Config(), run_dir=folder)
    with pytest.raises(UsageError, match="is not the folder of a run"):
        training.Run("small", Config(), resume=tmp_path)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    with pytest.raises(Stopped):
        train(tmp_path / "run", stop_at=4)
    with training.Run("small", Config(), resume=tmp_path / "run") as run:
        other = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Dense(2, name="else")])
        with pytest.raises(UserError, match="The checkpoint does not fit"):
            run.begin(other, task={}, data={"fingerprint": "f"})


def test_cutting_events(tmp_path):
    writer = tf.summary.create_file_writer(str(tmp_path / "train"))
    with writer.as_default():
        for step in range(5):
            if step == 3:
                writer.flush()
                lengths = event_lengths(tmp_path)
            tf.summary.scalar("x", step, step=step)
    writer.close()
    write_texts(tmp_path / "train", 7, {"a page": "later"})
    cut_events(tmp_path, lengths)
    assert {step for _, step in events(tmp_path / "train")} == {0, 1, 2}


def test_a_page_takes_the_place_of_the_same_page(tmp_path):
    for text in ("first", "second"):
        write_texts(tmp_path, 3, {"a page": text, "another": text})
    assert events(tmp_path).keys() == {("a page", 3), ("another", 3)}


def test_a_checkpoint_holds_what_was_trained_and_refuses_other_pretrained_weights(tmp_path):
    def begin(run, model):
        task = {"task": "test", "labels": "single", "class_names": ["none", "one", "both"]}
        run.begin(model, task=task, data={"fingerprint": "f"})

    def fit(run, model, names):
        for name in names:
            model.get_layer("hidden").trainable = name != "head"
            tuner = training.FineTuner(model)
            tuner.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy")
            tuner.fit(pipeline(shuffle=True), epochs=1, phase=run.phase(name))

    def saved(run):
        return set(run.checkpoints.newest().arrays)

    config = Config(epochs=1, ema=0.0)
    with training.Run("small", config, run_dir=tmp_path / "run") as run:
        model = build()
        begin(run, model)
        fit(run, model, ["head"])
        assert not {name for name in saved(run) if "hidden" in name}
        assert {name for name in saved(run) if "predictions" in name}

    keras.utils.clear_session()
    with training.Run("small", config, resume=tmp_path / "run") as run:
        other = build()
        other.get_layer("hidden").bias.assign(np.ones(8))
        with pytest.raises(UserError, match="pretrained weights are not those"):
            begin(run, other)

    keras.utils.clear_session()
    with training.Run("small", config, resume=tmp_path / "run") as run:
        again = build()
        begin(run, again)
        for name, value in weights(model).items():
            if not name.startswith("seed"):
                np.testing.assert_array_equal(weights(again)[name], value, name)
        fit(run, again, ["head", "unfrozen"])
        assert {name for name in saved(run) if "hidden" in name}


def test_a_run_that_is_refused_before_it_has_begun_leaves_no_folder(tmp_path):
    def fails(error, begin=False, **place):
        with training.Run("small", Config(), **place) as run:
            if begin:
                run.begin(build(), task={"class_names": []}, data={"fingerprint": "f"})
            raise error

    with pytest.raises(UserError, match="no such data"):
        fails(UserError("no such data"), run_dir=tmp_path / "data")
    assert not (tmp_path / "data").exists()
    with pytest.raises(ValueError, match="a fault"):
        fails(ValueError("a fault"), run_dir=tmp_path / "fault")
    assert (tmp_path / "fault" / "log.txt").exists()
    with pytest.raises(UserError, match="no such data"):
        fails(UserError("no such data"), resume=tmp_path / "fault")
    assert (tmp_path / "fault" / "config.json").exists()
    with pytest.raises(UserError, match="the loss"):
        fails(UserError("the loss"), begin=True, run_dir=tmp_path / "begun")
    assert (tmp_path / "begun" / "task.json").exists()
