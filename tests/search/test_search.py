"""Searches with real processes that only pretend to train; tests/cli/test_tune.py trains."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import fake_run
import pytest

from tfsft.config import Field
from tfsft.errors import Stopped, UsageError, UserError
from tfsft.evaluation.search_page import TrialRow, write_search_page
from tfsft.search import study
from tfsft.search.search import Search
from tfsft.search.space import Dimension
from tfsft.search.trial import hold, kept_row

pytest.importorskip("optuna")
X = Field("x", float, default=0.25)


def search(folder, *dimensions, **options):
    options = {"settings": {"seed": 3}, "trials": None} | options
    return Search(
        folder,
        recipe="fake",
        command=["run", "fake"],
        again=["run", "fake"],
        space=dimensions or [Dimension(X, low=0.0, high=9.0)],
        resume_command="tfsft tune fake --resume",
        program=(sys.executable, fake_run.__file__),
        **options,
    )


def choices(*values):
    return Dimension(X, choices=values)


@pytest.fixture
def trouble(monkeypatch):
    return lambda **kinds: monkeypatch.setenv(
        "FAKE_TROUBLE", json.dumps({name.removeprefix("x"): kind for name, kind in kinds.items()})
    )


def test_the_best_is_found_and_alone_keeps_its_checkpoints(tmp_path, capsys):
    with search(tmp_path / "s", choices(2.0, 0.5, 1.0)) as found:
        found.run()
    rows = found.study.rows()
    assert [row.values["x"] for row in rows] == [2.0, 0.5, 1.0]  # every combination once
    assert [row.figure for row in rows] == pytest.approx([2 + 1 / 3, 0.5 + 1 / 3, 1 + 1 / 3])
    assert rows[1].curve == pytest.approx({1: 1.5, 2: 1.0, 3: 0.5 + 1 / 3})
    assert found.best_folder == tmp_path / "s" / "trial-001"
    assert found.best_command == "tfsft run fake --x=0.5"
    assert [p.parent.name for p in (tmp_path / "s").glob("*/checkpoints")] == ["trial-001"]
    page = (tmp_path / "s" / "report.html").read_text()
    assert "tfsft run fake --x=0.5" in page
    assert page.index('<th scope="row" class="whole">trial-001') < page.index(
        '<th scope="row" class="whole">trial-002'
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "There are 3 combinations, so there will be 3 trials."
    assert lines[3].startswith("trial-002 (3/3) · x=1 · val_loss 1.333 · ")
    assert lines[3].endswith(" · best 0.8333 of trial-001")
    assert "about" in lines[2]
    assert "left" in lines[2]


def test_what_is_worse_than_the_median_is_pruned(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_PAUSE", "0.4")
    monkeypatch.setattr(study, "STARTERS", 2)
    with search(tmp_path / "s", choices(1.0, 9.0, 7.0, 0.0)) as found:
        found.run()
    states = [row.state for row in found.study.rows()]
    assert states == ["finished", "finished", "pruned", "finished"]
    assert not (tmp_path / "s" / "trial-002" / "report.html").exists()
    assert found.best_folder.name == "trial-003"


@pytest.mark.slow
def test_without_pruning_all_are_finished(tmp_path):
    with search(tmp_path / "s", choices(1.0, 2.0, 3.0, 4.0, 5.0, 9.0), prune=False) as found:
        found.run()
    assert {row.state for row in found.study.rows()} == {"finished"}


def test_a_trial_that_fails_by_its_settings_ends_no_search(tmp_path, trouble):
    trouble(**{"x1.0": "memory", "x2.0": "nan", "x3.0": "killed", "x5.0": "data"})
    with search(tmp_path / "s", choices(1.0, 2.0, 3.0, 4.0, 5.0)) as found:
        found.run()
    rows = found.study.rows()
    assert [row.state for row in rows] == ["failed"] * 3 + ["finished", "failed"]
    assert rows[0].message == "Out of memory with --batch-size 8.\nDo something about it."
    assert rows[1].message.startswith("The loss became nan.")
    assert rows[2].message == ("It was killed by SIGKILL (if nobody did, memory may have run out).")
    assert "Out of memory" in (tmp_path / "s" / "report.html").read_text()


def test_wrong_data_ends_the_search_at_the_first_trial(tmp_path, trouble):
    trouble(**{"x1.0": "data"})
    with search(tmp_path / "s", choices(1.0, 2.0)) as found:
        with pytest.raises(UserError, match=r"The first trial failed.*flowers/ is not there"):
            found.run()
    assert [row.state for row in found.study.rows()] == ["failed"]


def test_without_validation_nothing_can_be_chosen(tmp_path, trouble):
    trouble(**{"x1.0": "blind"})
    with search(tmp_path / "s", choices(1.0, 2.0)) as found:
        with pytest.raises(UserError, match=r"val_loss.*\nThe data has no validation examples"):
            found.run()


def test_a_figure_that_is_not_there_is_named(tmp_path):
    with search(tmp_path / "t", choices(3.0, 4.0), metric="val_accuracy") as found:
        with pytest.raises(UserError, match=r"val_accuracy.*\nThere are: val_loss"):
            found.run()


@pytest.mark.parametrize("trials", [3, pytest.param(12, marks=pytest.mark.slow)])
def test_a_stopped_search_goes_on_as_if_nothing_had_happened(tmp_path, trouble, trials):
    """With 12 trials the sampler has begun to learn."""
    with search(tmp_path / "whole", trials=trials) as whole:
        whole.run()
    expected = [(row.values, row.figure) for row in whole.study.rows()]
    assert len({values["x"] for values, _ in expected}) == trials

    trouble(**{str(expected[-2][0]["x"]): "slow"})
    slow = tmp_path / "stopped" / f"trial-{trials - 2:03}"

    def stop():
        while not (slow / "history.csv").exists():
            time.sleep(0.05)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=stop, daemon=True).start()
    with search(tmp_path / "stopped", trials=trials) as found, pytest.raises(Stopped) as stopped:
        found.run()
    assert stopped.value.exit_code == 130
    assert stopped.value.resume_command == "tfsft tune fake --resume"
    with search(tmp_path / "stopped") as found:  # as many trials as before
        found.run()
    assert [(row.values, row.figure) for row in found.study.rows()] == expected
    assert (slow / "starts.txt").read_text() == "--run-dir\n--resume\n"


def test_only_the_number_of_trials_may_change(tmp_path):
    with search(tmp_path, trials=1) as found:
        found.run()
    with search(tmp_path, trials=2) as found:
        found.run()
    assert len(found.study.rows()) == 2
    with pytest.raises(UsageError, match="has another space"):
        search(tmp_path, Dimension(X, low=0.0, high=8.0))
    with pytest.raises(UsageError, match="has another epochs"):
        search(tmp_path, settings={"seed": 3, "epochs": 4})


def test_a_folder_has_one_search_at_a_time(tmp_path):
    held = hold(tmp_path / ".lock")
    child = subprocess.Popen(["sleep", "60"], pass_fds=[held])  # a trial that outlives its search
    os.close(held)
    try:
        with pytest.raises(UsageError, match="A search is running in"):
            search(tmp_path)
    finally:
        child.kill()
        child.wait()
    with search(tmp_path):
        pass


def test_losses_that_mean_different_things_are_not_compared(tmp_path):
    smoothing = Dimension(Field("label_smoothing", float, default=0.0), choices=(0.0, 0.1))
    with pytest.raises(UsageError, match="label_smoothing changes the loss itself"):
        search(tmp_path / "a", smoothing)
    with pytest.raises(UsageError, match="label_smoothing changes the loss itself"):
        search(tmp_path / "a", smoothing, metric="val_loss")
    assert not (tmp_path / "a").exists()
    with search(tmp_path / "b", smoothing, metric="val_accuracy"):
        pass


def test_a_damaged_study_costs_one_message(tmp_path):
    Path(tmp_path, "study.db").write_text("no database " * 100)
    with pytest.raises(UsageError, match=r"study\.db cannot be read"):
        search(tmp_path)


def test_a_run_is_judged_by_the_epoch_whose_weights_it_keeps():
    def row(phase, loss, accuracy):
        return {"phase": phase, "val_loss": loss, "val_accuracy": accuracy}

    rows = [row("head", "0.1", "0.9"), row("all", "0.3", "0.5"), row("all", "0.2", "0.4"),
            row("all", "nan", "0.9")]  # fmt: skip
    assert kept_row(rows, "val_loss") is rows[2]
    assert kept_row(rows, "val_accuracy") is rows[3]


def test_a_page_of_larger_is_better_with_choices_of_all_kinds(tmp_path):
    rows = [
        TrialRow(0, "finished", {"limit": None, "augment": "flip,crop"}, 0.5, {1: 0.5}, 3.0),
        TrialRow(1, "finished", {"limit": 10, "augment": "<none>"}, 0.75, {1: 0.75}, 3.0),
        TrialRow(2, "failed", {"limit": 10, "augment": "flip,crop"}, None, {}, 3.0, "<memory>"),
    ]  # fmt: skip
    page = write_search_page(
        tmp_path / "report.html", rows, recipe="r", metric="val_accuracy", planned=4, best=1,
        command="tfsft run r",
    ).read_text()  # fmt: skip
    places = [page.index(f'class="whole">trial-00{number}') for number in (1, 0, 2)]
    assert places == sorted(places)
    assert "2 finished, 1 failed of 4 trials" in page
    assert "Best accuracy: <b>0.750</b>" in page
    assert "&lt;memory&gt;" in page
    assert "<none>" not in page
