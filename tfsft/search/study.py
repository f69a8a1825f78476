"""What is known of a search: which trials there were, and what to try next. Optuna does it."""

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfsft.errors import UsageError
from tfsft.evaluation.metrics import falls
from tfsft.evaluation.search_page import TrialRow
from tfsft.search.space import Dimension, combinations

STARTERS = 5  # trials before any is pruned
WORDS = {"COMPLETE": "finished", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}


class Study:
    """Optuna's study in a file.

    It is told figures with the sign that makes the smallest the best, because what is judged is
    only known once the first trial runs.

    Args:
        path: The SQLite file; where it exists, the study goes on.
        space: What is tried.
        seed: Of what is drawn.
        trials: How many there will be: where they suffice for every combination, all are tried.
        prune: Whether trials worse than the median are said to be.

    Raises:
        UsageError: Optuna is missing or broken, or the file is.
    """

    def __init__(
        self, path: Path, space: Sequence[Dimension], *, seed: int, trials: int, prune: bool
    ):
        self._optuna = optuna = import_optuna()
        self.space = {dimension.name: dimension.distribution() for dimension in space}
        self.seed = seed
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            self._study = optuna.create_study(
                study_name="search",
                storage=f"sqlite:///{path}",
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(STARTERS)
                if prune
                else optuna.pruners.NopPruner(),
            )
            begun = self._study.get_trials()
        except Exception as error:
            raise UsageError(
                f"{path} cannot be read: {str(error).splitlines()[0]}.",
                "It is what Optuna knows of a search.",
                "Begin another search.",
            ) from error
        self.metric = self._study.user_attrs.get("metric", "")  # empty until it is known
        if not begun and trials >= combinations(space):
            for values in itertools.product(*(d.choices for d in space)):
                self._study.enqueue_trial(dict(zip(self.space, values, strict=True)))

    def judge_by(self, metric: str) -> None:
        """Sets what trials are judged by, a column of history.csv."""
        if metric != self.metric:
            self.metric = metric
            self._study.set_user_attr("metric", metric)

    def next(self) -> Any:
        """Returns a trial to run: one that was interrupted, else a new one."""
        running = self._frozen("RUNNING")
        if running:
            return self._optuna.trial.Trial(self._study, running[0]._trial_id)
        # A sampler of its own for each trial, so that a search that goes on draws what it would
        # have drawn anyway.
        place = len(self._frozen(*WORDS))
        self._study.sampler = self._optuna.samplers.TPESampler(seed=self.seed + place)
        return self._study.ask(self.space)

    def report(self, trial: Any, epoch: int, figure: float) -> bool:
        """Notes the figure of an epoch; returns whether the trial is not worth going on with."""
        if epoch in self._study.get_trials()[trial.number].intermediate_values:
            return False  # from before it was interrupted
        trial.report(figure * self._sign, epoch)
        return trial.should_prune()

    def finish(self, trial: Any, figure: float) -> None:
        """Notes the figure of what a trial has left."""
        self._study.tell(trial, figure * self._sign)

    def prune(self, trial: Any) -> None:
        """Notes that a trial was ended because others are better."""
        self._study.tell(trial, state=self._optuna.trial.TrialState.PRUNED)

    def fail(self, trial: Any, message: str) -> None:
        """Notes why a trial has failed."""
        trial.set_user_attr("message", message)
        self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)

    def rows(self) -> list[TrialRow]:
        """Returns the trials there are."""
        return [
            TrialRow(
                number=trial.number,
                state=WORDS[trial.state.name],
                values={name: trial.params[name] for name in self.space},
                figure=None if trial.value is None else trial.value * self._sign,
                curve={step: v * self._sign for step, v in trial.intermediate_values.items()},
                seconds=trial.user_attrs.get("seconds", 0.0),
                message=trial.user_attrs.get("message", ""),
            )
            for trial in self._frozen(*WORDS)
        ]

    def best(self) -> TrialRow | None:
        """Returns the finished trial with the best figure, the first of several."""
        done = [row for row in self.rows() if row.figure is not None]
        return min(done, key=lambda row: row.figure * self._sign, default=None)

    @property
    def _sign(self) -> int:
        return 1 if falls(self.metric) else -1

    def _frozen(self, *states: str) -> list[Any]:
        wanted = [self._optuna.trial.TrialState[name] for name in states]
        return self._study.get_trials(states=wanted)


def import_optuna() -> Any:
    """Returns Optuna.

    Raises:
        UsageError: It is missing or broken.
    """
    try:
        import optuna
        import sqlalchemy  # noqa: F401  with which Optuna writes its file
    except Exception as error:
        raise UsageError(
            f"Optuna, which chooses what to try, cannot be used: {error}.",
            "It is an extra of tfsft.",
            f'{sys.executable} -m pip install "tfsft[tune]"',
        ) from error
    return optuna
