"""A search: trials one after another, and the folder of what came of them."""

import json
import math
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tfsft.config import to_options
from tfsft.errors import Stopped, UsageError, UserError
from tfsft.evaluation.atomic_write import atomic_write
from tfsft.evaluation.search_page import TrialRow, write_search_page
from tfsft.evaluation.wording import duration, number
from tfsft.search.space import CHANGES_LOSS, Dimension, combinations
from tfsft.search.study import Study, import_optuna
from tfsft.search.trial import TFSFT, TrialProcess, hold, kept_row

FORMAT = 1
TRIALS = 20
PAUSE = 0.2  # seconds between two looks at a trial


class Search:
    """Looks for the settings with the best figure on validation data.

    In its folder are `search.json`, what is searched; `study.db`, what Optuna knows; a run folder
    `trial-000` for each trial; and `report.html`, written anew after each.

    Args:
        folder: Where a search has begun, it goes on.
        recipe: Name of the recipe.
        command: The words of `run RECIPE` with all that the trials have in common.
        again: Those with which a trial goes on that has begun.
        settings: The recipe's settings that the trials have in common.
        space: What is tried.
        trials: How many in all; None for 20, or as many as before.
        metric: A column of history.csv; None for what a run keeps its best epoch by.
        prune: End trials that are worse than the median of those before.
        resume_command: What a person types to go on.
        program: What the words are given to.

    Raises:
        UsageError: Optuna is missing, or the folder has another search, or one that is running.
    """

    def __init__(
        self,
        folder: Path,
        *,
        recipe: str,
        command: Sequence[str],
        again: Sequence[str],
        settings: Mapping[str, Any],
        space: Sequence[Dimension],
        trials: int | None = None,
        metric: str | None = None,
        prune: bool = True,
        resume_command: str = "",
        program: Sequence[str] = TFSFT,
    ):
        import_optuna()
        _refuse_losses(space, metric)
        self.folder, self.recipe, self.space, self.metric = folder, recipe, space, metric
        self.command, self.again, self.program = command, again, program
        self.resume_command = resume_command
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = hold(folder / ".lock")
        if self._lock is None:
            raise UsageError(
                f"A search is running in {folder}, or a trial of one that was killed.",
                "One search at a time goes on in a folder.",
                "Wait until it has ended, or end it.",
            )
        try:
            self.trials = self._planned(trials, settings)
            self.study = Study(
                folder / "study.db",
                space,
                seed=int(settings.get("seed", 0)),
                trials=self.trials,
                prune=prune,
            )
        except UserError:
            os.close(self._lock)
            raise
        self._signals: list[int] = []
        self._went_well = any(row.state in ("finished", "pruned") for row in self.study.rows())

    def __enter__(self) -> "Search":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def run(self) -> None:
        """Runs what is left of the trials.

        Raises:
            UserError: The first trial has failed because of the data, or nothing can be judged.
            Stopped: By Ctrl-C or SIGTERM; what was done is kept.
        """
        with self._catching_signals():
            while self._left():
                trial = self.study.next()
                self._run(trial)
                self._write_page()
                if self._signals:
                    raise Stopped(self._signals[0], self.resume_command)

    @property
    def best_command(self) -> str | None:
        """What trains as the best trial did; None if none was finished."""
        best = self.study.best()
        return best and shlex.join(["tfsft", *self._words(best.values)])

    @property
    def best_folder(self) -> Path | None:
        """The run of the best trial."""
        best = self.study.best()
        return best and self.folder / best.folder

    # The folder

    def _planned(self, trials: int | None, settings: Mapping[str, Any]) -> int:
        """Compares the search with the one of before, and returns how many trials are meant."""
        facts = {
            "format": FORMAT,
            "recipe": self.recipe,
            "settings": dict(settings),
            "space": {d.name: d.distribution()._asdict() for d in self.space},
            "metric": self.metric,
        }
        facts = json.loads(json.dumps(facts))
        path = self.folder / "search.json"
        before = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        differ = _differences(before, facts) if before else []
        if differ:
            raise UsageError(
                f"The search in {self.folder} has another {', '.join(differ)}.",
                "A search goes on with what it began with; --trials may change.",
                "Give the same command, or begin a new search.",
            )
        trials = trials or before.get("trials", TRIALS)
        if trials > combinations(self.space):
            trials = int(combinations(self.space))
            print(f"There are {trials} combinations, so there will be {trials} trials.")
        atomic_write(path, json.dumps(facts | {"trials": trials}, indent=1) + "\n")
        return trials

    def _write_page(self) -> None:
        best = self.study.best()
        write_search_page(
            self.folder / "report.html",
            self.study.rows(),
            recipe=self.recipe,
            metric=self.study.metric,
            logarithmic=[d.name for d in self.space if d.log],
            planned=self.trials,
            best=best and best.number,
            command=self.best_command,
        )

    def _drop_checkpoints(self) -> None:
        """Keeps those of the best trial alone."""
        best = self.study.best()
        for row in self.study.rows():
            if row.state != "running" and row != best:
                TrialProcess.drop_checkpoints(self.folder / row.folder)

    # One trial

    def _words(self, values: Mapping[str, Any]) -> list[str]:
        return [*self.command, *to_options([d.field for d in self.space], values)]

    def _run(self, trial: Any) -> None:
        """Runs a trial to its end, or until it is pruned or the search is stopped."""
        folder = self.folder / TrialRow.folder_of(trial.number)
        earlier, start = trial.user_attrs.get("seconds", 0.0), time.monotonic()
        words = self._words(trial.params)
        process = TrialProcess(folder, words, self.again, self._lock, self.program)
        seen, asked, pruned = 0, 0, False
        while True:
            ended = process.code is not None  # before its last epochs are read
            rows = process.rows()
            for epoch, row in enumerate(rows[seen:], seen + 1):
                pruned = self._judge(trial, epoch, row, process) or pruned
            seen = len(rows)
            seconds = earlier + time.monotonic() - start
            if ended:
                trial.set_user_attr("seconds", round(seconds, 1))
                break
            if len(self._signals) > asked or (pruned and not asked):
                asked += 1
                process.stop(at_once=asked > 1)
            if sys.stdout.isatty():
                self._show(self._line(trial, f"epoch {seen + 1}", seconds))
            time.sleep(PAUSE)
        if self._signals and not process.finished:
            raise Stopped(self._signals[0], self.resume_command)
        self._conclude(trial, process, rows, pruned)

    def _judge(self, trial: Any, epoch: int, row: Mapping[str, str], process: TrialProcess) -> bool:
        """Notes an epoch; returns whether the trial is to be pruned."""
        metric = self.study.metric or self.metric or process.monitored()
        if not row.get(metric):
            process.stop()
            process.wait()
            there = ", ".join(name for name in row if name.startswith("val_"))
            raise UserError(
                f"Trials cannot be judged by {metric}: there is no such column in history.csv.",
                f"There are: {there}." if there else "The data has no validation examples.",
                "Name one by --metric." if there else "Add some, or leave the splits to tfsft.",
            )
        self.study.judge_by(metric)
        return self.study.report(trial, epoch, float(row[metric]))

    def _conclude(
        self, trial: Any, process: TrialProcess, rows: Sequence[Mapping[str, str]], pruned: bool
    ) -> None:
        """Writes down and says how a trial has ended."""
        figure = math.nan
        if process.finished:
            figure = float(kept_row(rows, process.monitored())[self.study.metric])
        if math.isfinite(figure):
            self.study.finish(trial, figure)
            said = f"{self.study.metric} {figure:.4g}"
        elif pruned:
            self.study.prune(trial)
            said = f"pruned after epoch {len(rows)}"
        else:
            message = process.message()
            self.study.fail(trial, message)
            if not self._went_well and process.would_always_fail:
                raise UserError(f"The first trial failed, and so would the others: {message}")
            said = f"failed: {message.splitlines()[0]}"
        self._went_well |= math.isfinite(figure) or pruned
        self._drop_checkpoints()
        self._show("")
        row = self.study.rows()[trial.number]
        print(self._line(trial, said, row.seconds), flush=True)

    # On screen

    def _left(self) -> int:
        """How many trials are still to be ended."""
        return self.trials - sum(row.state != "running" for row in self.study.rows())

    def _line(self, trial: Any, said: str, seconds: float) -> str:
        """Says of a trial which it is, what it tries, how it goes and how long all will take."""
        rows = self.study.rows()
        values = (f"{n}={_short(v)}" for n, v in rows[trial.number].values.items())
        name = f"{TrialRow.folder_of(trial.number)} ({trial.number + 1}/{self.trials})"
        parts = [name, " ".join(values), said, duration(seconds)]
        best = self.study.best()
        if best is not None and best.number != trial.number:
            parts.append(f"best {best.figure:.4g} of {best.folder}")
        took = [row.seconds for row in rows if row.state in ("finished", "pruned")]
        if took and self._left():
            running = seconds if rows[trial.number].state == "running" else 0.0
            left = max(self._left() * sum(took) / len(took) - running, 0.0)
            parts.append(f"about {duration(left)} left")
        return " · ".join(parts)

    def _show(self, line: str) -> None:
        """Draws a line that the next one replaces, where somebody watches."""
        if sys.stdout.isatty():
            columns = os.get_terminal_size().columns
            print(f"\r\x1b[K{line[: columns - 1]}", end="", flush=True)

    @contextmanager
    def _catching_signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end the trial after a step with its state saved, a second at once."""

        def handle(number: int, frame: object) -> None:
            self._signals.append(number)
            os.write(2, b"\nStopping after this step (once more to stop at once) ...\n")

        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, handle) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _refuse_losses(space: Sequence[Dimension], metric: str | None) -> None:
    changing = [d.name for d in space if d.name in CHANGES_LOSS]
    if changing and (metric or "loss").endswith("loss"):
        raise UsageError(
            f"--space {changing[0]} changes the loss itself.",
            "Trials are judged by a figure that means the same in all of them.",
            "Name one: --metric val_accuracy, or another column of history.csv.",
        )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names what is not the same in two descriptions of a search."""
    parts = [name for name in now if name != "settings" and before.get(name) != now[name]]
    old, new = before.get("settings", {}), now["settings"]
    return parts + sorted(n for n in old.keys() | new.keys() if old.get(n) != new.get(n))


def _short(value: Any) -> str:
    return number(value) if isinstance(value, float) else str(value)
