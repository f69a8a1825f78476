"""report.html: what a run learned, in one file that needs nothing else and anybody can read."""

import base64
import json
import shlex
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfsft.errors import UsageError
from tfsft.evaluation import plots
from tfsft.evaluation.atomic_write import atomic_write
from tfsft.evaluation.card import card
from tfsft.evaluation.figures import EXPLAINED, SMALLER_IS_BETTER, TILES, explained, figure_text
from tfsft.evaluation.finished_run import read_history
from tfsft.evaluation.metrics import wilson_interval
from tfsft.evaluation.pages import render, svg
from tfsft.evaluation.passages import passages
from tfsft.evaluation.predictions import Prediction, read_predictions
from tfsft.evaluation.samples import read_samples
from tfsft.evaluation.suspects import suspects_for_report
from tfsft.evaluation.wording import NOUNS, number, percent

WORST_SHOWN = 24  # thumbnails of more rows of predictions.csv are not looked at
PAIRS_SHOWN = 8
EXAMPLES_OF_PAIR, EXAMPLE_LETTERS = 3, 160
CARDS_SHOWN = 12  # the others are folded away
CLASSES_SHOWN = 20
FILES_SHOWN = 200


def write_report(
    run_dir: str | Path,
    *,
    thumbnails: Mapping[str, bytes] | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Writes report.html, and README.md as a model card, from what else is in the run folder.

    The page asks for nothing from outside, runs no script, and follows the light or dark of the
    reader's system.

    Args:
        run_dir: Holds config.json, task.json and metrics.json, and history.csv and predictions.csv
            where there are any.
        thumbnails: Small PNG of an example by its id, for the first `WORST_SHOWN` rows of
            predictions.csv.
        notes: Sentences a reader should know before the figures.

    Raises:
        UsageError: The folder is not one of a finished run.
    """
    run_dir = Path(run_dir)
    context = _context(run_dir, thumbnails or {}, notes)
    path = run_dir / "report.html"
    atomic_write(path, render("report.html", context))
    atomic_write(run_dir / "README.md", card(context))
    return path


def _context(
    run_dir: Path, thumbnails: Mapping[str, bytes], notes: Sequence[str]
) -> dict[str, Any]:
    config, task, metrics = (
        _read_json(run_dir, name) for name in ("config.json", "task.json", "metrics.json")
    )
    kind = task["labels"]
    metrics = {name: _flat(part) for name, part in metrics.items()}
    split = next((name for name in ("test", "validation") if metrics.get(name)), None)
    scores = metrics.get(split) or {}
    rows = _read_rows(run_dir / "predictions.csv", read_predictions)
    history = _read_rows(run_dir / "history.csv", read_history)
    singular, plural = NOUNS.get(str(task.get("task", "")).split("_")[0], ("example", "examples"))

    context = {
        "title": str(task.get("task", "model")).replace("_", " "),
        "run": run_dir.name or str(run_dir.resolve().name),
        "kind": kind,
        "one": singular,
        "many": plural,
        "split": split,
        "examples": scores.get("examples") or len(rows),
        "scores": scores,
        "class_names": task.get("class_names") or [],
        "tiles": [
            (*explained(key, kind), figure_text(key, scores[key]))
            for key in TILES[kind]
            if key in scores
        ],
        "all_figures": _all_figures(metrics, kind),
        "cards": _cards(rows, kind, thumbnails),
        "textual": any(row.text for row in rows),
        "mistakes": sum(not row.correct for row in rows),
        "curves": _curves(history),
        "epochs": len(history),
        "data": config.get("data") or {},
        "config": config,
        "task": task,
        "timing": metrics.get("timing") or {},
        "distillation": metrics.get("distillation"),
        "parameters": metrics.get("parameters") or {},
        "commands": _commands(run_dir, task, singular),
        "conflicts": _conflicts((config.get("data") or {}).get("conflicts") or ()),
        "tokens": _tokens((config.get("data") or {}).get("tokens") or {}),
        "files_shown": FILES_SHOWN,
        "cards_shown": CARDS_SHOWN,
        "classes_shown": CLASSES_SHOWN,
        "conflicts_shown": FILES_SHOWN,
        "earlier": _earlier(metrics.get("from"), kind),
        "suspects": suspects_for_report(run_dir, thumbnails),
    }
    if kind == "regression":
        context |= _regression(rows)
    elif kind == "tags" and scores:
        context |= _tags(scores)
        context |= _confidence(rows)
    elif kind == "chat":
        context |= _chat(run_dir, metrics)
    elif kind == "answers" and scores:
        context |= _share_right(scores["exact"], context["examples"])
        context |= _confidence(rows)
    elif scores:
        context |= _accuracy(scores, kind, context["examples"])
        for pair in context.get("pairs", ()):
            pair["examples"] = _confused(pair, rows, thumbnails)
        context |= _confidence(rows)
    context["remarks"] = [*notes, *_remarks(context, history)]
    return context


def _accuracy(scores: Mapping[str, Any], kind: str, examples: int) -> dict[str, Any]:
    per_class = scores["per_class"]
    context = {
        **_share_right(scores["accuracy"], examples),
        "classes": _weakest_first(per_class),
        "never_predicted": [r["class"] for r in per_class if r["support"] and not r["predicted"]],
        "absent": [row["class"] for row in per_class if not row["support"]],
    }
    if kind == "single":
        common = max(per_class, key=lambda row: row["support"])
        context["common"] = common["class"]
        context["baseline"] = common["support"] / examples
        matrix = np.array(scores["confusion_matrix"])
        context["pairs"] = pairs = _pairs(matrix, [row["class"] for row in per_class])
        context["taken_for"] = {pair["label"]: pair["prediction"] for pair in reversed(pairs)}
        context["pairs"] = pairs[:PAIRS_SHOWN]
        if len(per_class) > 1:
            figure = plots.confusion_matrix(matrix, [row["class"] for row in per_class])
            context["matrix"] = svg(figure, "Confusion matrix")
            context["matrix_shown"] = min(len(per_class), plots.MOST_CLASSES)
    else:
        context["slips"] = _slips(per_class)
    return context


def _chat(run_dir: Path, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what was answered before and after, and what was forgotten."""
    samples = read_samples(run_dir)
    moments = samples.get("answers") or []
    context: dict[str, Any] = {
        "change": metrics.get("change") or {},
        "moments": moments,
        "samples": [
            {"prompt": prompt, "answers": [row["answers"][i] for row in moments]}
            for i, prompt in enumerate(samples.get("prompts") or [])
        ],
    }
    retained = metrics.get("retained")
    if retained:
        before, after = (
            {key: retained[side][key] for key in ("perplexity", "token_accuracy")}
            for side in ("before", "after")
        )
        context["retained"] = {
            "name": retained["name"],
            "before": before,
            "after": after,
            "change": after["perplexity"] / before["perplexity"] - 1,
        }
    return context


def _tags(scores: Mapping[str, Any]) -> dict[str, Any]:
    per_class, found = scores["per_class"], scores["recall"]
    context: dict[str, Any] = {"classes": _weakest_first(per_class), "slips": _slips(per_class)}
    if scores["entities"]:
        context |= _share_right(found or 0.0, scores["entities"])
        # Entities of one text are not independent of each other, as the interval supposes.
        del context["interval"]
    return context


def _share_right(share: float, examples: int) -> dict[str, Any]:
    """Returns how many are right as the headline says it, and as dots of a hundred."""
    right, of_100 = round(share * examples), round(100 * share)
    hits, of = _out_of(right, examples)
    return {
        "hits": hits,
        "of": of,
        "range_of_dots": range(100),
        "dots": of_100 if right in (0, examples) else min(99, max(1, of_100)),
        "interval": wilson_interval(right, examples),
    }


def _weakest_first(per_class: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(per_class, key=lambda row: (row["f1"] is None, row["f1"] or 0, row["class"]))


def _slips(per_class: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns what is missed and what is added, the most frequent first."""
    rows = [
        {
            "class": row["class"],
            "support": row["support"],
            "missed": row["support"] - _hits(row),
            "added": row["predicted"] - _hits(row),
        }
        for row in per_class
    ]
    return sorted(rows, key=lambda row: -(row["missed"] + row["added"]))[:CLASSES_SHOWN]


def _hits(row: Mapping[str, Any]) -> int:
    return round((row["recall"] or 0) * row["support"])


def _pairs(matrix: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns what is taken for what, the most frequent first."""
    support = matrix.sum(axis=1)
    pairs = [
        {
            "label": names[i],
            "prediction": names[j],
            "count": int(matrix[i, j]),
            "support": int(support[i]),
            "share": float(matrix[i, j] / support[i]),
        }
        for i, j in np.argwhere(matrix - np.diag(matrix.diagonal()))
    ]
    return sorted(pairs, key=lambda pair: (-pair["count"], -pair["share"]))


def _confused(
    pair: Mapping[str, Any], rows: Sequence[Prediction], thumbnails: Mapping[str, bytes]
) -> list[dict[str, str]]:
    """Returns on what one class is taken for another, the surest mistakes first."""
    found = [r for r in rows if (r.label, r.prediction) == (pair["label"], pair["prediction"])]
    return [
        {
            "id": row.id,
            "picture": base64.b64encode(thumbnails.get(row.id, b"")).decode(),
            "text": " ".join(row.text[:EXAMPLE_LETTERS].split()),
        }
        for row in found[:EXAMPLES_OF_PAIR]
    ]


def _confidence(rows: Sequence[Prediction]) -> dict[str, Any]:
    rows = [row for row in rows if row.probability is not None]
    if not rows:
        return {}
    sure = np.array([row.probability for row in rows])
    correct = np.array([row.correct for row in rows])
    low, high = wilson_interval(int(correct.sum()), len(rows))
    mean = float(sure.mean())
    # What chance alone may explain is no reproach; nor are two points.
    if low <= mean <= high or abs(mean - correct.mean()) < 0.02:
        verdict = "fair"
    else:
        verdict = "too sure" if mean > correct.mean() else "too careful"
    thresholds = []
    for threshold in (0.0, 0.5, 0.8, 0.9, 0.95, 0.99):
        accepted = sure >= threshold
        if accepted.any():
            thresholds.append(
                {
                    "threshold": threshold,
                    "answered": float(accepted.mean()),
                    "right": float(correct[accepted].mean()),
                }
            )
    return {
        "sureness": mean,
        "rightness": float(correct.mean()),
        "verdict": verdict,
        "thresholds": thresholds,
        "reliability": svg(plots.reliability_diagram(sure, correct), "Reliability diagram"),
    }


def _regression(rows: Sequence[Prediction]) -> dict[str, Any]:
    rows = [row for row in rows if row.error is not None]
    if not rows:
        return {}
    labels = np.array([row.label for row in rows])
    errors = np.abs([row.error for row in rows])
    margin = 1.96 * errors.std(ddof=1) / np.sqrt(len(errors)) if len(errors) > 1 else None
    figure = plots.predicted_against_true(labels, np.array([row.prediction for row in rows]))
    return {
        "margin": None if margin is None else float(margin),
        "baseline": float(np.abs(labels - labels.mean()).mean()),
        "range": (float(labels.min()), float(labels.max())),
        "quantiles": [
            (words, float(np.quantile(errors, share)))
            for words, share in (("half", 0.5), ("9 of 10", 0.9), ("99 of 100", 0.99))
            if share < 1 - 1 / len(errors)
        ],
        "scatter": svg(figure, "Predicted against true"),
    }


def _remarks(context: Mapping[str, Any], history: Sequence[Mapping[str, str]]) -> list[str]:
    """Returns what a careful colleague would point out."""
    scores, many, remarks = context["scores"], context["many"], []
    if context["split"] == "validation":
        remarks.append(
            f"There is no test split: these are the validation {many}, which also chose the best "
            "epoch. On others the model may do a little worse."
        )
    if "interval" not in context:
        return remarks
    low, high = context["interval"]
    if context["kind"] == "answers":
        without = scores.get("no_answer_examples") or 0
        if without and scores["exact"] <= without / context["examples"] < 1:
            remarks.append(
                "It is no better than always saying that there is no answer. More epochs or "
                "another learning rate may help."
            )
        if (scores.get("best_exact") or 0) - scores["exact"] > 0.02:
            remarks.append(
                f"It would be right on {percent(scores['best_exact'])} of these with “no answer” "
                f"above a score of {number(scores['best_exact_threshold'])}: check that threshold "
                "on validation questions."
            )
    if high - low > 0.1:
        remarks.append(
            f"Only {context['examples']:,} {many} were tested, so the figures are rough: the truth "
            f"may lie anywhere from {percent(low)} to {percent(high)}."
        )
    if "baseline" in context and scores["accuracy"] <= context["baseline"] < 1:
        remarks.append(
            f"It is no better than always answering {_quoted([context['common']])}. More epochs, "
            "another learning rate or more of the backbone (--unfreeze) may help."
        )
    if scores.get("balanced_accuracy") and scores["accuracy"] - scores["balanced_accuracy"] > 0.05:
        remarks.append(
            "It does better on common classes than on rare ones: with every class counting "
            f"equally it is right on {percent(scores['balanced_accuracy'])}."
        )
    if context.get("never_predicted"):
        remarks.append(f"It never answers {_quoted(context['never_predicted'])}.")
    if context.get("absent"):
        remarks.append(
            f"There were no {many} of {_quoted(context['absent'])} to test on: how well it knows "
            "them is not measured."
        )
    if history:
        seen, unseen = (_finite(history[-1].get(key)) for key in ("accuracy", "val_accuracy"))
        if seen is not None and unseen is not None and seen - unseen > 0.1:
            help_ = ", augmentation" if many == "pictures" else ""
            remarks.append(
                f"It is right on {percent(seen)} of the {many} it was trained on but on "
                f"{percent(unseen)} of others: it has partly learned them by heart. More {many}"
                f"{help_} or dropout may help."
            )
    return remarks


def _cards(
    rows: Sequence[Prediction], kind: str, thumbnails: Mapping[str, bytes]
) -> list[dict[str, Any]]:
    """Returns the worst mistakes; where there are none, what the model was least sure of."""
    wrong = [row for row in rows if not row.correct]
    cards = []
    for row in (wrong or rows[:6])[:WORST_SHOWN]:
        picture = thumbnails.get(row.id)
        cards.append(
            {
                "id": row.id,
                "label": _answer(row.label, kind),
                "prediction": _answer(row.prediction, kind),
                "probability": row.probability,
                "error": row.error,
                "picture": base64.b64encode(picture).decode() if picture else None,
                # Tiny pictures are shown with their pixels rather than blurred.
                "tiny": bool(picture) and int.from_bytes(picture[16:20], "big") < 64,
                **(passages(row, kind) if row.text else {}),
            }
        )
    return cards


def _answer(value: str | float | None, kind: str) -> str:
    if kind == "regression":
        return number(value)
    if kind == "multi":
        value = str(value).replace("|", ", ")
    return str(value) or ("no answer" if kind == "answers" else "nothing")


def _curves(history: Sequence[Mapping[str, str]]) -> list[Any]:
    if not history:
        return []
    columns = list(history[0])
    known = [name for name in ("accuracy", "f1", "exact", "mae", "loss") if name in columns]
    others = [name for name in columns if f"val_{name}" in columns and name not in known]
    return [
        svg(plots.learning_curves(history, [name]), f"Learning curve: {name}")
        for name in (known + others)[:4]
    ]


def _all_figures(metrics: Mapping[str, Any], kind: str) -> dict[str, Any]:
    splits = [name for name in ("test", "validation") if metrics.get(name)]
    return {
        "splits": splits,
        "rows": [
            (*explained(key, kind), [figure_text(key, metrics[name].get(key)) for name in splits])
            for key in EXPLAINED
            if any(key in metrics[name] for name in splits)
        ],
    }


def _earlier(found: Mapping[str, Any] | None, kind: str) -> dict[str, Any] | None:
    """Returns what became of the run that this one goes on from, as the page shows it."""
    if not found:
        return None
    name = found["figure"]
    relative = name in SMALLER_IS_BETTER

    def row(part: str) -> tuple[str, ...]:
        values = found[part]
        change = values["change"]
        shown = "–" if change is None else f"{100 * change:+.1f}{'%' if relative else ' points'}"
        figures = (figure_text(name, values[when]) for when in ("before", "after"))
        return (f"{part.capitalize()} data", str(values["examples"]), *figures, shown)

    return {
        "run": Path(found["run"]).name,
        "title": explained(name, kind)[0],
        "rows": [row(part) for part in ("old", "new") if found[part]],
        "allowed": f"{found['max_forgetting']:g} {'percent' if relative else 'points'}",
        "refused": found["refused"],
    }


def _flat(part: Any) -> Any:
    """Returns the metrics of a split with those of its parts as `part_name`."""
    if not isinstance(part, Mapping):
        return part
    inner = {
        f"{name}_{key}": value
        for name in ("has_answer", "no_answer")
        for key, value in (part.get(name) or {}).items()
    }
    return {**part, **inner}


def _conflicts(found: Sequence[Any]) -> list[dict[str, str]]:
    """Returns what is said of each text that has different labels."""
    rows = []
    for conflict in found:
        conflict = conflict if isinstance(conflict, Mapping) else {"text": str(conflict)}
        labels, ids = (list(map(str, conflict.get(key) or ())) for key in ("labels", "ids"))
        said = zip(ids, labels, strict=True) if len(ids) == len(labels) else ((x, "") for x in ids)
        rows.append(
            {
                "text": plots.shorten(conflict.get("text") or "", 300),
                "labels": ", ".join(dict.fromkeys(labels)),
                "places": ", ".join(
                    f"{place} ({label})" if label else place for place, label in list(said)[:5]
                )
                + (f" and {len(ids) - 5:,} more" if len(ids) > 5 else ""),
            }
        )
    return rows


def _tokens(splits: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns what is said of the tokens of each split, and how long the texts are."""
    splits = {name: facts for name, facts in splits.items() if facts and facts.get("examples")}
    if not splits:
        return {}
    drawn = {name: facts for name, facts in splits.items() if facts.get("lengths")}
    first = next(iter(splits.values()))
    unknown = max(facts.get("unknown_share") or 0 for facts in splits.values())
    return {
        "rows": [{"split": name, **facts} for name, facts in splits.items()],
        "long": sum(f.get("truncated") or f.get("in_windows") or 0 for f in splits.values()),
        "cut": any("truncated" in facts for facts in splits.values()),
        "max_length": first.get("max_length"),
        "longest": max(facts.get("longest") or 0 for facts in splits.values()),
        "unknown": unknown,
        "lengths": svg(plots.length_histogram(drawn), "Lengths in tokens") if drawn else None,
    }


def _commands(run_dir: Path, task: Mapping[str, Any], one: str) -> list[tuple[str, str]]:
    run = shlex.quote(str(run_dir))
    model = repr(str(run_dir / "model.keras"))
    inputs, keras = task.get("inputs") or (), "import keras"
    if one == "picture":
        ask = (f"Ask it about a new {one}, or a folder of them", "picture.jpg folder/")
    elif one == "question":
        ask = ("Ask it new questions, a line each with question and context", "questions.jsonl")
    elif one == "text" and len(inputs) < 2:
        ask = ("Ask it about a new text, or several", '"a text"')
    else:
        ask = (f"Ask it about a new {one}", "INPUT")
    if one == "conversation":
        ask = ("Ask it", '"your question"')
    if one in ("text", "question", "conversation"):
        keras += "\nimport keras_hub  # its layers"
    other = "other/" if one == "picture" else "OTHER"
    talk = [("Talk to it", f"tfsft chat {run}")] if one == "conversation" else []
    return [
        *talk,
        (ask[0], f"tfsft predict {run} {ask[1]}"),
        ("Score it on other labelled data", f"tfsft evaluate {run} --data {other}"),
        ("See the training in every detail", f"tensorboard --logdir {run}/tensorboard"),
        ("Use it from Python", f"{keras}\nmodel = keras.models.load_model({model})"),
    ]


def _out_of(right: int, examples: int) -> tuple[str, str]:
    """Returns a count in words people can picture: of 100 where that does not hide a mistake."""
    of_100 = round(100 * right / examples)
    if examples <= 100 or of_100 in (0, 100):
        return f"{right:,}", f"{examples:,}"
    return str(of_100), "100"


def _quoted(names: Sequence[str], limit: int = 5) -> str:
    shown = ", ".join(f"“{_isolated(plots.shorten(name, 80))}”" for name in names[:limit])
    return shown + (f" and {len(names) - limit:,} more classes" if len(names) > limit else "")


def _isolated(name: str) -> str:
    """Returns a name that leaves the order of the words around it alone."""
    right_to_left = any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in name)
    return f"\u2068{name}\u2069" if right_to_left else name


def _read_json(run_dir: Path, name: str) -> dict[str, Any]:
    try:
        return json.loads((run_dir / name).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{run_dir / name} cannot be read ({error}).",
            "A report is made of the folder that a finished run leaves.",
            "Give the folder of a run, as in runs/image_cls-20261122-100500.",
        ) from None


def _read_rows(path: Path, read: Any) -> list[Any]:
    return read(path) if path.exists() else []


def _finite(value: Any) -> float | None:
    """Returns a finite number, or None for whatever else a cell may hold."""
    try:
        value = float(value)
    except (TypeError, ValueError):
        return None
    return value if np.isfinite(value) else None
