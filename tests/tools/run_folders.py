"""Reads what runs left, and says what two of them differ in."""

import csv
import json

FILES = ("history.csv", "predictions.csv", "samples.json")


def events(folder):
    """(tag, step) -> value or None, without wall times and rates."""
    import tensorflow as tf

    found = {}
    for path in sorted(folder.glob("events.*")):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                key = (value.tag, event.step)
                assert key not in found, f"{key} was written twice"
                is_scalar = value.metadata.plugin_data.plugin_name == "scalars"
                found[key] = float(tf.make_ndarray(value.tensor)) if is_scalar else None
                if "examples_per_second" in value.tag:
                    found[key] = None
    return found


def states(folder):
    """What the two newest checkpoints say the hashes of their files are: at the end of a run, that
    of the last epoch, with the optimizer's state, and that of the last phase.
    """
    newest = sorted((folder / "checkpoints").glob("0*"))[-2:]
    return [
        {name: file["sha256"] for name, file in json.loads(path.read_text())["files"].items()}
        for path in (checkpoint / "manifest.json" for checkpoint in newest)
    ]


def figures(folder):
    """metrics.json without times and memory."""
    metrics = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in metrics.items() if name != "timing"}


def differences(one, other):
    """Names what differs between two finished runs; an empty list for the same bits."""
    found = []
    if states(one) != states(other):
        found.append("weights")
    if (one / "metrics.json").exists() and figures(one) != figures(other):
        found.append("metrics.json")
    for name in FILES:
        contents = [
            (run / name).read_bytes() if (run / name).exists() else None for run in (one, other)
        ]
        if contents[0] != contents[1]:
            found.append(name)
    for part in ("train", "validation"):
        try:
            same = events(one / "tensorboard" / part) == events(other / "tensorboard" / part)
        except AssertionError:  # something twice
            same = False
        if not same:
            found.append(f"curves of {part}")
    return found


def differences_beyond_rounding(one, other, most=1e-6):
    """Names what differs, but for figures of an epoch that differ by rounding alone.

    What replicas have counted so far is saved as one sum, and shared out among them anew.
    """
    import pytest

    found = differences(one, other)
    if figures_of_epochs(one) == pytest.approx(figures_of_epochs(other), rel=most):
        found = [name for name in found if name != "history.csv"]
    for part in ("train", "validation"):
        curves, others = (
            {key: value or 0.0 for key, value in events(run / "tensorboard" / part).items()}
            for run in (one, other)
        )
        if curves == pytest.approx(others, rel=most):
            found = [name for name in found if name != f"curves of {part}"]
    return found


def figures_of_epochs(folder):
    """(phase, epoch, name) -> number, of history.csv."""
    with open(folder / "history.csv", newline="") as file:
        return {
            (row["phase"], row["epoch"], name): float(row[name])
            for row in csv.DictReader(file)
            for name in row.keys() - {"phase"}
        }
