"""Every part of what a checkpoint holds is needed: left out, the resumed run is another one."""

import dataclasses
import re
import shutil

import pytest
from run_folders import differences
from small_run import STEPS, Config, stop_after, train

from tfsft.errors import Stopped
from tfsft.training import checkpoints

KEYS = checkpoints._keyed


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts") / "whole"
    train(folder)
    return folder


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory, whole):
    """Stopped in the last epoch, before the last step: early stopping has waited for one epoch."""
    folder = tmp_path_factory.mktemp("parts") / "interrupted"
    epochs = len((whole / "history.csv").read_text().splitlines()) - 1
    with pytest.raises(Stopped):
        train(folder, stop_after(epochs * STEPS - 1))
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

    from tfsft.training import phase, run
    from tfsft.training.callbacks import best, checkpointer

    for module in (run, phase, checkpointer, best):
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
    assert len(rows) < 1 + 1 + Config().epochs  # early stopping had a say


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
        ({"step": STEPS - 2}, "weights"),  # where it was in the data
        ({"epoch": 1}, "weights"),
        ({"phase": "head"}, "weights"),
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
    assert seen in differences(whole, resumed())
