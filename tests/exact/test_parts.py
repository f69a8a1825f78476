"""Every part of what a checkpoint holds is needed: left out, the resumed run is another one."""

import dataclasses
import re
import shutil
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
from run_folders import differences

from tfsft import training
from tfsft.data.pipeline import Pipeline
from tfsft.data.plan import BatchPlan
from tfsft.errors import Stopped, UserError
from tfsft.training import checkpoints

SIZE, WIDTH, CLASSES, BATCH = 30, 5, 3, 8
STEPS = -(-SIZE // BATCH)
STOP_AT = 2 * STEPS + 3 * STEPS + 2  # in the fourth epoch of the second phase
KEYS = checkpoints._keyed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    data: str = "numbers"
    seed: int = 3


def pipeline(shuffle):
    random = np.random.default_rng(0)
    inputs = random.normal(size=(SIZE, WIDTH)).astype("float32")
    labels = (inputs[:, 0] > 0).astype(int) + (inputs[:, 1] > 0)

    def fetch(rows, seeds):
        noise = seeds[..., :1].astype("float32") / 2**31 * shuffle  # augmentation of a sort
        return tf.data.Dataset.from_tensor_slices((inputs[rows] + noise, np.ones(rows.shape, bool)))

    plan = BatchPlan(SIZE, BATCH, seed=3, shuffle=shuffle)
    return Pipeline(plan, labels, fetch, num_classes=CLASSES)


class StopAt(keras.callbacks.Callback):
    def __init__(self, steps):
        super().__init__()
        self.left = steps

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGTERM)


def train(folder, stop_at=0, resume=False):
    """Two phases with shuffling, dropout, a schedule, accumulation, a moving average and early
    stopping; eagerly, because building a graph would take longer than training.
    """
    keras.utils.clear_session()
    stop = StopAt(stop_at)
    with training.Run("parts", Config(), **{"resume" if resume else "run_dir": folder}) as run:
        train_data, validation = pipeline(True), pipeline(False)
        model = keras.Sequential(
            [
                keras.Input((WIDTH,)),
                keras.layers.Dense(8, activation="tanh", name="hidden"),
                keras.layers.Dropout(0.3, name="dropout"),
                keras.layers.Dense(CLASSES, activation="softmax", name="predictions"),
            ]
        )
        run.begin(model, task={"class_names": []}, data={"fingerprint": "f"})
        for name, epochs in (("head", 2), ("unfrozen", 8)):
            model.get_layer("hidden").trainable = name != "head"
            tuner = training.FineTuner(model, accumulate=2, clip_norm=1.0)
            schedule = training.make_schedule("cosine", 0.2, epochs * STEPS)
            tuner.compile(
                training.make_optimizer("adamw", schedule, ema=0.8),
                "categorical_crossentropy",
                weighted_metrics=["accuracy"],
                run_eagerly=True,
            )
            phase = run.phase(name, patience=2)
            tuner.fit(
                train_data,
                validation_data=validation,
                epochs=epochs,
                callbacks=[stop],
                phase=phase,
            )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts") / "whole"
    train(folder)
    return folder


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts") / "interrupted"
    with pytest.raises(Stopped):
        train(folder, stop_at=STOP_AT)
    return folder


@pytest.fixture
def resumed(interrupted, tmp_path):
    """Goes on with the interrupted run in a copy of its folder."""

    def resume():
        shutil.copytree(interrupted, tmp_path / "run")
        train(tmp_path / "run", resume=True)
        return tmp_path / "run"

    return resume


def leave_out_variables(monkeypatch, pattern):
    """Keeps the checkpoint from restoring the variables whose keys match."""

    def keyed(group, variables, leave_out):
        pairs = KEYS(group, variables, leave_out)
        return [pair for pair in pairs if not re.search(pattern, pair[0])]

    def restore(group, variables, arrays, leave_out=()):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoints, "_keyed", keyed)
            kept = {key: v for key, v in arrays.items() if not re.search(pattern, key)}
            assert group != pattern.partition("/")[0] or len(kept) < len(arrays)
            checkpoints.restore(group, variables, kept, leave_out)

    from tfsft.training import run
    from tfsft.training.callbacks import best, checkpointer

    for module in (run, checkpointer, best):
        monkeypatch.setattr(module, "restore", restore)


def leave_out_fact(monkeypatch, **instead):
    """Puts something else in the place of what a checkpoint says."""
    read = checkpoints.Checkpoints._read

    def changed(self, path):
        found = read(self, path)
        assert all(found.facts[name] != value for name, value in instead.items())
        return dataclasses.replace(found, facts=found.facts | instead)

    monkeypatch.setattr(checkpoints.Checkpoints, "_read", changed)


def test_with_all_parts_it_is_the_same_run(whole, resumed):
    run = resumed()
    assert differences(whole, run) == []
    rows = (run / "history.csv").read_text().splitlines()
    assert len(rows) < 1 + 2 + 8  # early stopping had a say


@pytest.mark.parametrize(
    ("pattern", "seen"),
    [
        ("model/.*hidden/kernel", "weights"),
        ("model/.*seed_generator_state", "weights"),
        ("optimizer/.*momentum", "weights"),
        ("optimizer/.*velocity", "weights"),
        ("optimizer/.*/average|optimizer/.*_average", "weights"),
        ("optimizer/.*iteration", "history.csv"),
        ("metrics/.*total", "history.csv"),
        ("best/", "weights"),
    ],
)
def test_variables_left_out(whole, resumed, monkeypatch, pattern, seen):
    leave_out_variables(monkeypatch, pattern)
    if pattern == "best/":
        from tfsft.training.callbacks import KeepBest

        monkeypatch.setattr(KeepBest, "put_back", lambda self, model: None)
    assert seen in differences(whole, resumed())


@pytest.mark.parametrize(
    ("fact", "seen"),
    [
        ({"step": 1}, "weights"),  # where it was in the data
        ({"epoch": 1}, "weights"),
        ({"phase": "head"}, None),
        ({"finished": {}}, "history.csv"),
        (
            {"best": {"best": None, "best_epoch": None, "waited": 0, "stopped": False}},
            "history.csv",
        ),
        ({"history": []}, "history.csv"),
        ({"updates": 0}, "curves of train"),
        ({"tensorboard": {}}, "curves of train"),
        ({"events": {}}, "curves of train"),
    ],
)
def test_facts_left_out(whole, resumed, monkeypatch, fact, seen):
    leave_out_fact(monkeypatch, **fact)
    if seen is None:
        with pytest.raises(UserError, match="does not fit"):
            resumed()
    else:
        assert seen in differences(whole, resumed())
