"""When checkpoints are written, what stops a run, and which changes are refused."""

import json
import shutil
import signal
import time
import types

import keras
import pytest
from run_folders import differences
from small_run import STEPS, Config, after, build, stop_after, train

from tfsft import training
from tfsft.errors import Stopped, UsageError, UserError
from tfsft.training.callbacks import Checkpointer
from tfsft.training.checkpoints import Checkpoints

CONFIG = Config(epochs=2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("going_on") / "whole"
    train(folder, config=CONFIG)
    return folder


@pytest.fixture
def run(whole, tmp_path):
    """A copy of a finished run."""
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def change(run, group, **values):
    config = json.loads((run / "config.json").read_text())
    config[group] |= values
    (run / "config.json").write_text(json.dumps(config))


def test_how_often_a_checkpoint_is_written(tmp_path, monkeypatch):
    saved = []
    save = Checkpoints.save

    def noted(self, arrays, facts, best):
        saved.append((facts["phase"], facts.get("epoch"), facts.get("step")))
        return save(self, arrays, facts, best)

    monkeypatch.setattr(Checkpoints, "save", noted)
    slow = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: time.sleep(0.2))
    train(tmp_path / "run", slow, config=Config(epochs=1), checkpoint_steps=2, keep_checkpoints=3)
    places = [("head", 0, 2), ("head", 1, 0), (None, None, None)]
    places += [("unfrozen", 0, 2), ("unfrozen", 1, 0), (None, None, None)]
    assert saved == places
    assert len(list((tmp_path / "run" / "checkpoints").glob("0*"))) == 3

    saved.clear()
    now = [0.0]  # a clock of its own: steps take longer where more is going on
    clock = types.SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr("tfsft.training.callbacks.checkpointer.time", clock)

    def wait(batch, logs):
        time.sleep(0.2)
        now[0] += 0.2

    slow = keras.callbacks.LambdaCallback(on_train_batch_begin=wait)
    minutes = 0.5 / 60  # two and a half steps
    train(tmp_path / "other", slow, config=Config(epochs=4), checkpoint_minutes=minutes)
    assert 4 <= len([place for place in saved if place[0] == "unfrozen"]) <= 7


def test_a_slow_disk_does_not_hold_up_training(tmp_path, monkeypatch):
    save = Checkpoints.save

    def slowly(self, *args):
        time.sleep(1.5)
        return save(self, *args)

    monkeypatch.setattr(Checkpoints, "save", slowly)
    times = []
    tick = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: times.append(time.monotonic())
    )
    with pytest.raises(Stopped):
        train(tmp_path / "run", tick, stop_after(7), checkpoint_steps=2)
    assert len(times) == 7
    assert times[5] - times[4] < 1.0  # the sixth step, while a checkpoint is written
    facts = Checkpoints(tmp_path / "run" / "checkpoints").newest().facts
    assert (facts["phase"], facts["epoch"], facts["step"]) == ("unfrozen", 1, 1)


def test_copies_do_not_change_when_training_goes_on(tmp_path, monkeypatch):
    copies = []
    save = Checkpoints.save

    def noted(self, arrays, facts, best):
        copies.append((arrays, {key: value.tobytes() for key, value in arrays.items()}))
        return save(self, arrays, facts, best)

    monkeypatch.setattr(Checkpoints, "save", noted)
    train(tmp_path / "run", config=Config(epochs=1), checkpoint_steps=1)
    for arrays, before in copies:
        assert {key: value.tobytes() for key, value in arrays.items()} == before
    assert copies[0][1] != copies[1][1]


def test_a_file_stop_ends_a_run_and_goes_away(whole, tmp_path, capsys):
    folder = tmp_path / "run"
    with pytest.raises(Stopped) as stopped:
        train(folder, after(2, (folder / "STOP").touch), config=CONFIG)
    assert stopped.value.exit_code == 0
    assert f"--resume {folder}" in stopped.value.resume_command
    assert not (folder / "STOP").exists()
    facts = Checkpoints(folder / "checkpoints").newest().facts
    assert (facts["phase"], facts["epoch"], facts["step"]) == ("head", 0, 2)
    (folder / "STOP").touch()
    train(folder, config=CONFIG, resume=True)
    assert "The file STOP" in capsys.readouterr().out
    assert differences(whole, folder) == []


def test_a_signal_while_a_phase_ends_is_not_forgotten(whole, tmp_path):
    """It comes too late for the last step, and must not wait for the next phase."""

    class Late(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Stopped) as stopped:
        train(tmp_path / "run", Late(), config=CONFIG)
    assert stopped.value.exit_code == 130
    assert Checkpoints(tmp_path / "run" / "checkpoints").newest().facts["phase"] is None
    train(tmp_path / "run", config=CONFIG, resume=True)
    assert differences(whole, tmp_path / "run") == []


@pytest.mark.parametrize("limit", [STEPS + 1, STEPS])
def test_a_limit_of_steps_holds_over_a_resume(tmp_path, monkeypatch, limit):
    """Killed after the last step of a phase, before its end is written down."""
    config = Config(epochs=3, max_steps=limit)
    train(tmp_path / "whole", config=config)

    class Killed(Exception):
        pass

    end = Checkpointer.on_train_end

    def killed(self, logs=None):
        if self.phase.name == "unfrozen":
            raise Killed
        end(self, logs)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "on_train_end", killed)
        with pytest.raises(Killed):
            train(tmp_path / "run", config=config, checkpoint_steps=1)
    train(tmp_path / "run", config=config, resume=True)
    assert differences(tmp_path / "whole", tmp_path / "run") == []


def test_killed_before_the_first_checkpoint(whole, tmp_path, capsys):
    class Killed(Exception):
        pass

    def killed():
        raise Killed

    with pytest.raises(Killed):
        train(tmp_path / "run", after(2, killed), config=CONFIG)
    train(tmp_path / "run", config=CONFIG, resume=True)
    assert "starting from the beginning" in capsys.readouterr().out
    assert differences(whole, tmp_path / "run") == []


def test_changed_settings_can_be_allowed(run, capsys):
    config = Config(epochs=2, seed=4)
    with pytest.raises(UsageError, match="seed was 3, now 4"):
        training.Run("small", config, resume=run)
    training.Run("small", config, resume=run, allow_changed=True)
    assert "seed was 3, now 4" in capsys.readouterr().out


def test_a_changed_recipe_is_shown(tmp_path):
    recipe = tmp_path / "mine.py"
    recipe.write_text("one = 1\ntwo = 2\nthree = 3\n")
    where = {"recipe_file": recipe, "resume": tmp_path / "run"}
    training.Run("small", Config(), run_dir=tmp_path / "run", recipe_file=recipe)
    recipe.write_text("one = 1\ntwo = 22\nthree = 3\n")
    with pytest.raises(UsageError) as refused:
        training.Run("small", Config(), **where)
    assert "\n   one = 1\n  -two = 2\n  +two = 22\n   three = 3\n" in str(refused.value)
    assert f"Go on with {tmp_path / 'run' / 'recipe.py'}, start" in str(refused.value)
    training.Run("small", Config(), **where, allow_changed=True)
    training.Run("small", Config(), **where)


def test_changed_data_is_shown(tmp_path):
    def begin(size, names, fingerprint, **where):
        with training.Run("small", Config(), **where) as run:
            facts = {"fingerprint": fingerprint, "train": size, "validation": 5}
            run.begin(build(), task={"class_names": names}, data=facts)

    folder = tmp_path / "run"
    begin(45, ["a", "b"], "f", run_dir=folder)
    with pytest.raises(UserError) as refused:
        begin(44, ["b", "c"], "g", resume=folder)
    assert refused.value.came.splitlines()[1:] == [
        "  train was 45, now 44",
        "  new classes: c",
        "  missing classes: a",
        "  fingerprint was 'f', now 'g'",
    ]
    assert json.loads((folder / "task.json").read_text())["class_names"] == ["a", "b"]
    begin(44, ["b", "c"], "g", resume=folder, allow_changed=True)
    begin(44, ["b", "c"], "g", resume=folder)


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({"replicas": 8}, "replicas was 8, now 1"),
        ({"strategy": "MirroredStrategy"}, "strategy was 'MirroredStrategy', now"),
    ],
)
def test_other_devices_are_refused(run, values, shown):
    change(run, "device", **values)
    with pytest.raises(UsageError, match=shown):
        training.Run("small", CONFIG, resume=run)
    training.Run("small", CONFIG, resume=run, allow_changed=True)


def test_the_number_format_is_that_of_the_run(run):
    change(run, "device", precision="mixed_bfloat16")
    try:
        with pytest.raises(UsageError, match="precision was 'mixed_bfloat16', now 'float32'"):
            training.Run("small", CONFIG, resume=run, precision="float32")
        assert training.Run("small", CONFIG, resume=run).precision == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")


def test_determinism_is_that_of_the_run(run):
    assert json.loads((run / "config.json").read_text())["device"]["deterministic"] is True
    with pytest.raises(UsageError, match="deterministic was True, now False"):
        training.Run("small", CONFIG, resume=run, deterministic=False)
    change(run, "device", deterministic=False)
    assert training.Run("small", CONFIG, resume=run).deterministic is False


def test_other_versions_are_said(run, capsys):
    change(run, "versions", keras="3.99")
    training.Run("small", CONFIG, resume=run)
    assert f"Note: keras was '3.99', now '{keras.__version__}'" in capsys.readouterr().out


def test_a_task_that_is_cut_off_is_named(run):
    (run / "task.json").write_text('{"format": 1, "ta')
    with pytest.raises(UserError, match=r"task\.json cannot be read(.|\n)*Expected a JSON file"):
        training.Run("small", CONFIG, resume=run)
