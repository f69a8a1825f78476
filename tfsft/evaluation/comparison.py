"""Runs side by side on the same examples: what differs, and whether it is more than luck."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tfsft.errors import UsageError
from tfsft.evaluation.finished_run import FinishedRun, read_finished_run
from tfsft.evaluation.predictions import Prediction
from tfsft.evaluation.tallies import Tally, tally

SAMPLES = 2000
LUCK = 0.05  # a difference that luck alone brings more often is not called one
CHUNK = 2**23  # numbers drawn at a time
SMALLER_IS_BETTER = {"mae", "rmse"}
# What one run is said to be better in; right and wrong answers are counted by McNemar's test.
HEADLINE = {"regression": "mae", "tags": "f1", "chat": "chrf", "answers": "exact"}
COUNTED = ("single", "multi", "answers")


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Verdict:
    """Whether a run differs from the first one by more than luck.

    Args:
        metric: What is compared.
        difference: The run's minus the first one's, with its interval.
        test: `mcnemar` or `bootstrap`.
        p: How often luck alone brings such a difference or a larger one, after Holm's correction
            where several runs are compared with the first.
        gained, lost: Examples that this run alone, and that the first run alone, has right; None
            where answers are not right or wrong.
    """

    metric: str
    difference: Estimate
    test: str
    p: float
    gained: int | None = None
    lost: int | None = None

    @property
    def word(self) -> str:
        """`better`, `worse`, or `luck` where it may be that."""
        if self.p >= LUCK:
            return "luck"
        better = (self.difference.value > 0) != (self.metric in SMALLER_IS_BETTER)
        return "better" if better else "worse"


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Args:
        runs: The first is what the others are compared with.
        examples: Test examples that all of them answered.
        estimates: By metric, one a run.
        verdicts: One for each run but the first.
        settings: (name, values), where the runs differ.
        notes: What a reader should know before the figures.
    """

    runs: list[FinishedRun]
    examples: int
    estimates: dict[str, list[Estimate]]
    verdicts: list[Verdict]
    settings: list[tuple[str, list[Any]]]
    notes: list[str]


def compare(folders: Sequence[str | Path], samples: int = SAMPLES, seed: int = 0) -> Comparison:
    """Compares finished runs on the test examples that all of them answered.

    Intervals are by resampling the examples (bootstrap, percentiles); those of differences draw the
    same examples for both runs. Right and wrong answers are compared by McNemar's exact test, all
    else by the resampled differences.

    Args:
        folders: Of two runs or more about the same task.
        samples: How often examples are drawn.
        seed: Of what is drawn.

    Raises:
        UsageError: They are no finished runs, or have nothing in common to compare.
    """
    runs = _read(folders)
    first = runs[0]
    rows, notes = _common(runs)
    tallies = [tally(mine, first.kind, first.task.get("class_names") or ()) for mine in rows]
    drawn = _resampled(tallies, samples, seed)
    estimates = {
        name: [
            _estimate(tally.value(name), values)
            for tally, values in zip(tallies, drawn[name], strict=True)
        ]
        for name in tallies[0].metrics
    }
    metric = HEADLINE.get(first.kind, "accuracy")
    verdicts = [
        _verdict(first.kind, metric, rows[0], rows[i], estimates, drawn, i)
        for i in range(1, len(runs))
    ]
    corrected = holm([verdict.p for verdict in verdicts])
    return Comparison(
        runs=runs,
        examples=len(rows[0]),
        estimates=estimates,
        verdicts=[replace(v, p=p) for v, p in zip(verdicts, corrected, strict=True)],
        settings=_differences(runs),
        notes=notes,
    )


def mcnemar(gained: int, lost: int) -> float:
    """Returns the two-sided p-value of McNemar's exact test.

    Args:
        gained: Examples that only the second model has right.
        lost: Those that only the first has right.
    """
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def holm(values: Sequence[float]) -> list[float]:
    """Returns p-values of several tests such that 5% hold for all of them together (Holm 1979)."""
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected, largest = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = largest
    return corrected


def _read(folders: Sequence[str | Path]) -> list[FinishedRun]:
    if len(folders) < 2:
        raise UsageError(
            f"{len(folders)} run was given." if folders else "No run was given.",
            "Two runs or more; the first is what the others are compared with.",
            "tfsft compare runs/A runs/B",
        )
    places = [Path(folder).resolve() for folder in folders]
    twice = next((f for f, place in zip(folders, places, strict=True) if places.count(place) > 1),
                 None)  # fmt: skip
    if twice is not None:
        raise UsageError(f"The run {twice} was given twice.", "Different runs.", "Name it once.")
    names = [place.name for place in places]
    runs = [
        read_finished_run(folder, name if names.count(name) == 1 else str(folder))
        for folder, name in zip(folders, names, strict=True)
    ]
    for run in runs:
        about = [(r.task.get("task"), r.kind) for r in (runs[0], run)]
        if about[0] != about[1]:
            said = [f"{task} ({kind})".replace("_", " ") for task, kind in about]
            raise UsageError(
                f"{runs[0].dir} is about {said[0]}, {run.dir} about {said[1]}.",
                "Runs about the same task can be compared.",
                "Leave one of them out.",
            )
        if not run.predictions:
            raise UsageError(
                f"{run.dir} has no predictions.csv, or it is empty.",
                "What a run says of its test examples is what is compared.",
                "Train again with a test or validation split.",
            )
    return runs


def _common(runs: Sequence[FinishedRun]) -> tuple[list[list[Prediction]], list[str]]:
    """Returns the rows of the examples that are the same in all runs, in the same order."""

    def key(row: Prediction) -> tuple:
        return row.id, str(row.label), row.text

    found = [{key(row): row for row in run.predictions} for run in runs]
    shared = [k for k in found[0] if all(k in other for other in found[1:])]
    if not shared:
        raise UsageError(
            f"{runs[0].dir} and the others were tested on different examples.",
            "Runs are compared on the test examples that they have in common.",
            "Train them on the same --data, with the same --seed and fractions of the splits.",
        )
    notes = []
    if any(len(shared) < len(run.predictions) for run in runs):
        sizes = ", ".join(f"{len(run.predictions):,} ({run.name})" for run in runs)
        notes.append(
            f"Only the {len(shared):,} examples that all runs were tested on are compared, of "
            f"{sizes}. The others may have been seen in training by one and not by another."
        )
    prints = {(run.config.get("data") or {}).get("fingerprint") for run in runs}
    if len(prints) > 1:
        notes.append(
            "The runs were not trained on the same data and splits: a run that has trained on what "
            "another was tested on is not measured fairly by it."
        )
    if any(run.split == "validation" for run in runs):
        notes.append(
            "These are validation examples, which also chose the best epoch: the figures are a "
            "little too good."
        )
    return [[rows[k] for k in shared] for rows in found], notes


def _resampled(tallies: Sequence[Tally], samples: int, seed: int) -> dict[str, list[np.ndarray]]:
    """Returns the metrics of each run on drawn examples, the same ones for all, `[samples]`."""
    values: dict[str, list[list[np.ndarray]]] = {
        name: [[] for _ in tallies] for name in tallies[0].metrics
    }
    for counts in _draws(tallies[0].columns.shape[0], samples, seed):
        for place, one in enumerate(tallies):
            sums = (one.columns.T @ counts.T).T
            for name, metric in one.metrics.items():
                values[name][place].append(metric(sums))
    return {name: [np.concatenate(v) for v in parts] for name, parts in values.items()}


def _draws(size: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    """Yields how often each example is drawn, `[some samples, size]`."""
    random = np.random.default_rng(seed)
    step = max(1, CHUNK // size)
    for start in range(0, samples, step):
        rows = min(step, samples - start)
        drawn = random.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size).astype(float)


def _estimate(value: float, drawn: np.ndarray) -> Estimate:
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return Estimate(value, np.nan, np.nan)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(value, float(low), float(high))


def _verdict(
    kind: str,
    metric: str,
    first: Sequence[Prediction],
    other: Sequence[Prediction],
    estimates: Mapping[str, Sequence[Estimate]],
    drawn: Mapping[str, Sequence[np.ndarray]],
    place: int,
) -> Verdict:
    values = drawn[metric][place] - drawn[metric][0]
    value = estimates[metric][place].value - estimates[metric][0].value
    difference = _estimate(value, values)
    pairs = [(a.correct, b.correct) for a, b in zip(first, other, strict=True)]
    gained, lost = pairs.count((False, True)), pairs.count((True, False))
    if kind in COUNTED:
        return Verdict(metric, difference, "mcnemar", mcnemar(gained, lost), gained, lost)
    # The draw that was measured is one of those that might have been (Davison and Hinkley 1997).
    tail = min((values <= 0).sum(), (values >= 0).sum())
    p = float(min(1.0, 2 * (tail + 1) / (len(values) + 1)))
    return Verdict(metric, difference, "bootstrap", p)


def _differences(runs: Sequence[FinishedRun]) -> list[tuple[str, list[Any]]]:
    """Returns what is not the same in all runs: settings, then seed, devices, versions and data."""

    def facts(run: FinishedRun) -> dict[str, Any]:
        config = run.config
        data, device = config.get("data") or {}, config.get("device") or {}
        return {
            **(config.get("settings") or {}),
            "recipe": config.get("recipe"),
            "recipe's text": (config.get("recipe_sha256") or "")[:8],
            "backbone taken": (run.task.get("backbone") or {}).get("name"),
            **{f"device: {k}": v for k, v in device.items() if k in ("replicas", "precision")},
            **{f"version of {k}": v for k, v in (config.get("versions") or {}).items()},
            **{f"{k} examples": data.get(k) for k in ("train", "validation", "test")},
            "fingerprint of the data": str(data.get("fingerprint") or "")[:8],
        }

    found = [facts(run) for run in runs]
    names = dict.fromkeys(itertools.chain.from_iterable(found))
    rows = [(name, [facts.get(name) for facts in found]) for name in names]
    return [(name, values) for name, values in rows if any(v != values[0] for v in values)]
