"""predictions.csv: one row an example, the worst mistakes first."""

import contextlib
import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfsft.evaluation.atomic_write import atomic_write
from tfsft.evaluation.metrics import whole_probability
from tfsft.evaluation.questions import exact_match

LONGEST_CELL = 2**31 - 1  # the csv module refuses to read more than 131,072 characters by itself

Span = tuple[int, int, str]


@dataclass(frozen=True)
class Prediction:
    """What the model said of one example.

    Args:
        id: How a person finds the example.
        label: The right answer, or None where nobody knows; several labels are joined with `|`,
            entities written as `TYPE: words | TYPE: words`.
        prediction: The answer, written in the same way.
        probability: How sure the model is of this answer, 0..1; of all labels at once where there
            are several. None for regression.
        error: Prediction minus label, for regression; None otherwise and where there is no label.
        index: Place of the example in the arrays that were handed in; place of the row when read
            from a file.
        text: What the model was given, as people read it; of a pair each on lines of its own.
        right: Whether the answer is right, where that is more than being equal to `label`.
        label_spans: (first character, character after the last, type) of the right entities or
            answer in `text`.
        prediction_spans: The same of the model's.
        score: How good a generated answer is, 0 to 100; None for all else.
    """

    id: str
    label: str | float | None
    prediction: str | float
    probability: float | None = None
    error: float | None = None
    index: int = 0
    text: str = ""
    right: bool | None = None
    label_spans: tuple[Span, ...] = ()
    prediction_spans: tuple[Span, ...] = ()
    score: float | None = None

    @property
    def correct(self) -> bool:
        """Whether the answer is right: the label, or one of several right ones."""
        return self.label == self.prediction if self.right is None else self.right


def write_predictions(
    path: str | Path,
    ids: Sequence[str],
    labels: np.ndarray | None,
    outputs: np.ndarray,
    class_names: Sequence[str] = (),
    *,
    kind: str = "single",
    texts: Sequence[str | Sequence[str]] | None = None,
) -> list[Prediction]:
    """Writes predictions.csv and returns its rows in their order.

    Mistakes come first, the most confident before the others; then what is right, the least sure
    first. For regression the largest error comes first. Without labels the order stays as it is.

    Args:
        path: The file; it is replaced as a whole.
        ids: [n].
        labels: int [n], 0/1 [n, classes] or float [n] by `kind`; None where there are none.
        outputs: Probabilities [n, classes], or numbers [n] or [n, 1].
        class_names: [classes]; unused for regression.
        kind: `single`, `multi` or `regression`.
        texts: What each example says, if it is one text or a pair of texts.
    """
    rows = order(predictions(ids, labels, outputs, class_names, kind=kind, texts=texts))
    write_rows(path, rows, kind=kind)
    return rows


def write_rows(path: str | Path, rows: Sequence[Prediction], *, kind: str = "single") -> None:
    """Writes predictions.csv with these rows in their order.

    The columns of texts are there only if a row has something to write in them.

    Args:
        path: The file; it is replaced as a whole.
        rows: Those of `predictions`, `tag_predictions`, `answer_predictions` or
            `generation_predictions`.
        kind: As in task.json: `single`, `multi`, `regression`, `tags`, `answers` or `chat`.
    """
    columns = ["id", "label", "prediction", "error" if kind == "regression" else "probability"]
    columns += ["correct"] if any(row.right is not None for row in rows) else []
    columns += [
        column
        for column in ("label_spans", "prediction_spans", "text", "score")
        if any(getattr(row, column) not in (None, "", ()) for row in rows)
    ]
    text = io.StringIO()
    plain = csv.writer(text, lineterminator="\n")
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    plain.writerow(columns)
    for row in rows:
        cells = [_cell(row, column) for column in columns]
        # The csv module leaves a bare carriage return unquoted and then cannot read it back.
        (quoted if any("\r" in cell for cell in cells) else plain).writerow(cells)
    atomic_write(Path(path), text.getvalue())


def read_predictions(path: str | Path) -> list[Prediction]:
    """Returns the rows of a predictions.csv, numbers as numbers; no label is an empty text."""
    with open(path, encoding="utf-8", newline="") as file, _cells_of_any_length():
        reader = csv.DictReader(file)
        columns = reader.fieldnames or ()
        regression = "error" in columns
        value = (lambda cell: float(cell) if cell else None) if regression else str
        return [
            Prediction(
                id=row["id"],
                label=value(row["label"]),
                prediction=value(row["prediction"]),
                probability=float(row["probability"]) if row.get("probability") else None,
                error=float(row["error"]) if regression and row["error"] else None,
                index=index,
                text=row.get("text") or "",
                right={"yes": True, "no": False}.get(row.get("correct")),
                label_spans=_read_spans(row.get("label_spans")),
                prediction_spans=_read_spans(row.get("prediction_spans")),
                score=float(row["score"]) if row.get("score") else None,
            )
            for index, row in enumerate(reader)
        ]


def predictions(
    ids: Sequence[str],
    labels: np.ndarray | None,
    outputs: np.ndarray,
    class_names: Sequence[str] = (),
    *,
    kind: str = "single",
    texts: Sequence[str | Sequence[str]] | None = None,
) -> list[Prediction]:
    """Returns one `Prediction` an example, in the order of the examples.

    The arguments are those of `write_predictions`.
    """
    _check_lengths(ids=ids, labels=labels, outputs=outputs, texts=texts)
    outputs = np.asarray(outputs)
    names = [str(name) for name in class_names]
    if kind == "single":
        best = outputs.argmax(axis=1) if len(outputs) else []
        said = [names[i] for i in best]
        sure = outputs.max(axis=1) if len(outputs) else []
        truth = None if labels is None else [names[i] for i in np.asarray(labels)]
    elif kind == "multi":
        said = [_joined(names, row >= 0.5) for row in outputs]
        sure = whole_probability(outputs)
        truth = None if labels is None else [_joined(names, row > 0.5) for row in labels]
    elif kind == "regression":
        said = [float(number) for number in outputs.reshape(len(ids))]
        sure = [None] * len(ids)
        truth = None if labels is None else [float(label) for label in labels]
    else:
        raise ValueError(f"kind is {kind!r}; expected single, multi or regression")
    return [
        Prediction(
            id=str(ids[i]),
            label=truth[i] if truth else None,
            prediction=said[i],
            probability=None if sure[i] is None else float(sure[i]),
            error=said[i] - truth[i] if kind == "regression" and truth else None,
            index=i,
            text="" if texts is None else _readable(texts[i]),
        )
        for i in range(len(ids))
    ]


def tag_predictions(
    ids: Sequence[str],
    texts: Sequence[str],
    true_spans: Sequence[Sequence[Span]] | None,
    predicted_spans: Sequence[Sequence[Span]],
    probabilities: Sequence[float],
) -> list[Prediction]:
    """Returns one `Prediction` a text whose entities were looked for, in the order of the texts.

    Args:
        ids: [n].
        texts: [n], what the spans point into.
        true_spans: (first character, character after the last, type) of the entities of each text;
            None where nobody knows them.
        predicted_spans: The same from the model.
        probabilities: How sure the model is of all it says of a text.
    """
    _check_lengths(ids=ids, texts=texts, true_spans=true_spans, predicted_spans=predicted_spans)
    rows = []
    for i, text in enumerate(texts):
        said = _in_order(predicted_spans[i])
        truth = None if true_spans is None else _in_order(true_spans[i])
        rows.append(
            Prediction(
                id=str(ids[i]),
                label=None if truth is None else _entities(text, truth),
                prediction=_entities(text, said),
                probability=float(probabilities[i]),
                index=i,
                text=text,
                # The same words elsewhere in the text would be another entity.
                right=None if truth is None else truth == said,
                label_spans=truth or (),
                prediction_spans=said,
            )
        )
    return rows


def answer_predictions(
    ids: Sequence[str],
    texts: Sequence[str | Sequence[str]],
    answers: Sequence[Sequence[str]] | None,
    predictions: Sequence[str],
    probabilities: Sequence[float],
    *,
    starts: Sequence[int | None] | None = None,
    predicted_starts: Sequence[int | None] | None = None,
) -> list[Prediction]:
    """Returns one `Prediction` a question, in the order of the questions.

    Args:
        ids: [n].
        texts: [n], each a pair of question and context, or one text whose first line is the
            question.
        answers: The right answers of each question, none where it has no answer; the first is the
            label, and giving any of them is right. None where nobody knows them.
        predictions: What the model answers, empty for "no answer".
        probabilities: How sure the model is.
        starts: Where the first right answer begins in the context, if known; else it is marked in
            the report where its words are first found.
        predicted_starts: The same of the model's answer.
    """
    _check_lengths(ids=ids, texts=texts, answers=answers, predictions=predictions)
    rows = []
    for i, said in enumerate(predictions):
        right = None if answers is None else list(answers[i])
        label = None if right is None else (right or [""])[0]
        question, context = texts[i].split("\n", 1) if isinstance(texts[i], str) else texts[i]
        question = " ".join(question.split())  # one line, so that it is known where it ends
        text, context = f"{question}\n{context}", len(question) + 1
        rows.append(
            Prediction(
                id=str(ids[i]),
                label=label,
                prediction=said,
                probability=float(probabilities[i]),
                index=i,
                text=text,
                right=None if right is None else bool(exact_match(right, said)),
                label_spans=_place(text, context, label, starts and starts[i]),
                prediction_spans=_place(
                    text, context, said, predicted_starts and predicted_starts[i]
                ),
            )
        )
    return rows


def order(rows: Sequence[Prediction]) -> list[Prediction]:
    """Returns the rows, worst mistakes first; equally bad and unlabelled ones keep order."""

    def badness(row: Prediction) -> tuple[bool, float]:
        if row.label is None:
            return True, 0.0
        if row.error is not None:
            return False, -abs(row.error)
        if row.score is not None:
            return False, row.score
        return row.correct, row.probability if row.correct else -row.probability

    return sorted(rows, key=badness)


def _joined(names: Sequence[str], chosen: np.ndarray) -> str:
    return "|".join(name for name, yes in zip(names, chosen, strict=True) if yes)


def _check_lengths(**columns: Sequence | None) -> None:
    lengths = {name: len(column) for name, column in columns.items() if column is not None}
    if len(set(lengths.values())) > 1:
        raise ValueError(", ".join(f"{count} {name}" for name, count in lengths.items()))


def _readable(text: str | Sequence[str]) -> str:
    """Returns a text as it is, or a pair of texts one below the other."""
    return text if isinstance(text, str) else "\n".join(text)


def _in_order(spans: Sequence[Span]) -> tuple[Span, ...]:
    return tuple(sorted((int(start), int(end), str(type_)) for start, end, type_ in spans))


def _entities(text: str, spans: Sequence[Span]) -> str:
    return " | ".join(
        f"{type_}: {' '.join(text[start:end].split())}" for start, end, type_ in spans
    )


def _place(text: str, context: int, answer: str | None, start: int | None) -> tuple[Span, ...]:
    """Returns where an answer stands in a text whose context begins at that character."""
    if not answer:
        return ()
    start = text.find(answer, context) if start is None else context + start
    return ((start, start + len(answer), ""),) if start >= 0 else ()


@contextlib.contextmanager
def _cells_of_any_length() -> Iterator[None]:
    before = csv.field_size_limit(LONGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _read_spans(cell: str | None) -> tuple[Span, ...]:
    return tuple(tuple(span) for span in json.loads(cell or "[]"))


def _cell(row: Prediction, column: str) -> str:
    if column == "correct":
        return "" if row.right is None else "yes" if row.right else "no"
    value = getattr(row, column)
    if column.endswith("_spans"):
        return json.dumps(value, ensure_ascii=False) if value else ""
    if value is None:
        return ""
    return f"{value:.7g}" if isinstance(value, float) else value
