"""Which examples of a run's data are likely mislabelled, or there twice."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfsft.data.pipeline import Pipeline
from tfsft.evaluation.predictions import predictions
from tfsft.evaluation.suspects import (
    FILE,
    Suspect,
    likely_mislabelled,
    near_duplicates,
    neighbours,
    shares_of_neighbours,
    write_suspects,
)
from tfsft.training.features import above_frozen
from tfsft.training.forward import Forward, run_batches
from tfsft.training.scoring import texts_of

if TYPE_CHECKING:
    from tfsft.training.run import Run

MOST = 20_000  # examples; all are compared with all
LONGEST = 300  # characters of a text in the table


def find_suspects(
    run: "Run",
    model: keras.Model,
    pipelines: Mapping[str, Pipeline],
    sources: Mapping[str, Any],
    *,
    kind: str,
    class_names: tuple[str, ...] = (),
) -> list[Suspect]:
    """Looks for likely wrong labels and near-duplicates, and writes suspicious.csv.

    Both are judged by the model's own features. A model knows the labels it was trained on, so
    those of training examples are judged by their nearest neighbours, among which the example is
    not; the others by the model itself.

    Args:
        run: Whose folder and strategy are used.
        model: As trained, from pictures or tokens to the output.
        pipelines: Unaugmented examples by split, "train" and others.
        sources: The same, for their names.
        kind: "single", "multi" or "regression"; labels are judged where there is one class each.
        class_names: By class number.
    """
    total = sum(len(source) for source in sources.values())
    if not 2 <= total <= MOST:
        run.say(
            f"Not searched for wrong labels and near-duplicates: there are {total:,} examples, and "
            f"up to {MOST:,} are compared."
        )
        return []
    start = time.monotonic()
    rows = _Rows()
    for split, pipeline in pipelines.items():
        part, pipeline = above_frozen(run, model, pipeline, split)
        forward = run.forward(part, features=True)
        rows.add(split, sources[split], pipeline, forward, run, kind, class_names)
    found = rows.suspects(kind, class_names)
    write_suspects(run.dir / FILE, found)
    wrong = sum(suspect.why == "label" for suspect in found)
    run.say(
        f"Labels that are likely wrong: {wrong}; near-duplicates: {len(found) - wrong}, by the "
        f"model's features in {time.monotonic() - start:.0f} s. See {run.dir / FILE}."
    )
    return found


class _Rows:
    """All examples of a run with their features and outputs."""

    def __init__(self):
        self.names: list[tuple[str, str, str, str]] = []  # split, id, label, text
        self.features: list[np.ndarray] = []
        self.outputs: list[np.ndarray] = []
        self.labels: list[np.ndarray] = []

    def add(
        self,
        split: str,
        source: Any,
        pipeline: Pipeline,
        forward: Forward,
        run: "Run",
        kind: str,
        class_names: tuple[str, ...],
    ) -> None:
        size = len(source)
        features, outputs, good = [None] * size, [None] * size, np.zeros(size, bool)
        progress = run.console.quiet_reporter(f"Comparing {split} examples", "examples")
        done = 0
        for places, parts, readable in run_batches(forward, pipeline):
            for place, feature, output in zip(places, *parts, strict=True):
                features[place], outputs[place] = feature, output
            good[places] = readable
            done += len(places)
            progress(done, size)
        kept = np.flatnonzero(good)
        self.features.append(np.array([features[i] for i in kept], np.float32))
        self.outputs.append(np.array([outputs[i] for i in kept]))
        self.labels.append(np.asarray(source.labels)[kept])
        ids = [str(source.ids[int(i)]) for i in kept]
        rows = predictions(
            ids,
            self.labels[-1],
            self.outputs[-1],
            class_names,
            kind=kind,
            texts=texts_of(source, kept),
        )
        self.names += [(split, row.id, str(row.label), row.text[:LONGEST]) for row in rows]

    def suspects(self, kind: str, class_names: tuple[str, ...]) -> list[Suspect]:
        """Returns what is suspicious, the worst first."""
        places, distances = neighbours(np.concatenate(self.features))
        doubles = [self._twin(i, j) for i, j in near_duplicates(places, distances)]
        doubles.sort(key=lambda s: (s.label == s.twin_label, s.split == s.twin_split))
        if kind != "single":
            return doubles
        labels = np.concatenate(self.labels)
        by_neighbours = shares_of_neighbours(places, labels, len(class_names))
        split = np.array([name[0] for name in self.names])
        wrong = []
        for chances, mine in (
            (by_neighbours, split == "train"),
            (np.concatenate(self.outputs), split != "train"),
        ):
            if mine.any():
                suspicious = np.flatnonzero(mine)[likely_mislabelled(labels[mine], chances[mine])]
                for row in suspicious:
                    name, said, text = self.names[row][1:]
                    looks, chance = class_names[chances[row].argmax()], chances[row, labels[row]]
                    wrong.append(
                        Suspect("label", split[row], name, said, looks, float(chance), text=text)
                    )
        wrong.sort(key=lambda suspect: suspect.label_probability)
        return wrong + doubles

    def _twin(self, first: int, second: int) -> Suspect:
        split, name, label, text = self.names[first]
        twin_split, twin, twin_label, _ = self.names[second]
        return Suspect(
            why="near duplicate",
            split=split,
            id=name,
            label=label,
            twin=twin,
            twin_split=twin_split,
            twin_label=twin_label,
            text=text,
        )
