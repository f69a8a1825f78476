"""Questions about texts that hold the answer: SQuAD JSON and flat tables."""

import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute as pc

from tfsft.data import tables
from tfsft.data.json_text import HALF, has_half, load_json
from tfsft.data.splits import Splits
from tfsft.data.tagged import sample_path
from tfsft.data.text_encodings import first_letter, shortened
from tfsft.data.text_labels import label_texts
from tfsft.data.text_loading import (
    Rows,
    bad_examples,
    file_name,
    find_files,
    groups_of,
    limit_and_split,
    text_plan,
)
from tfsft.data.text_source import BATCH_ROWS, TextSource, content_keys, file_identity, stored
from tfsft.data.text_tables import TEXT_TABLES, TextTable, open_text_table
from tfsft.data.tfds_source import PREFIX
from tfsft.data.tfds_texts import open_tfds
from tfsft.errors import UserError

NEAR = 20  # characters that an answer may lie off the place it is said to have
SQUAD = (
    'As SQuAD: {"data": [{"paragraphs": [{"context": "...", "qas": [{"question": "...", "answers": '
    '[{"text": "...", "answer_start": 0}]}]}]}]}'
)
CLASSES = ("no answer", "answer")
COLUMNS = {
    "question": ["question", "query"],
    "context": ["context", "passage", "paragraph", "document", "text"],
    "answers": ["answers", "answer", "answer_text"],
}
ANSWERS = pyarrow.list_(
    pyarrow.struct([("text", pyarrow.large_string()), ("start", pyarrow.int64())])
)


def load_questions(
    data: str,
    *,
    group_column: str | None = None,
    validation_fraction: float = 0.15,
    test_fraction: float = 0.15,
    seed: int = 0,
    limit: int | None = None,
    on_bad: str = "stop",
    tfds_dir: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Splits:
    """Finds questions with their contexts and answers, and splits them; see `load_texts`.

    Questions about one context stay on one side.

    Args:
        data: A SQuAD file (version 1 or 2); a table (JSONL, JSON, Parquet, CSV, TSV) with question,
            context and answers in each row; a folder with such files called train, validation and
            test; or `sample`.
        group_column: Column of a table: what must stay on one side, instead of contexts.
        validation_fraction, test_fraction: Shares of all questions, where splits are made.
        seed: Another one gives other splits.
        limit: Take about this many questions in all.
        on_bad: What to do about questions that cannot be used; see `load_texts`.
        tfds_dir: Folder with prepared tfds data sets.
        progress: Called with (done, total) while questions are read; the total is an estimate.

    Raises:
        UserError: Something about the data must be mended; the message names the question.
        UsageError: An argument is out of range.
    """
    plan = text_plan(
        data, "single", on_bad, limit, validation_fraction, test_fraction, seed, None, tfds_dir,
        "questions", "Every answer is a part of its context, or there is none",
    )  # fmt: skip
    rows = _read(data, group_column, tfds_dir, progress)
    table = rows.table
    repaired = pc.sum(table["repaired"]).as_py() or 0
    if repaired:
        rows.notes.append(f"{repaired} answers lay a few characters off; their places were mended.")
    labels, names, problems = label_texts(table, "single", CLASSES)
    bad = bad_examples(plan, table, problems, on_bad)
    good = np.setdiff1d(np.arange(len(table)), list(problems))
    if not len(good):
        raise UserError(
            f"{data} has no questions that can be used.", f"{plan.usable}.", "Mend the rows."
        )
    source = TextSource(table, good, labels[good], names, groups_of(table, good))
    return limit_and_split(plan, source, bad, rows, every_class=False)


def _read(
    data: str,
    group: str | None,
    tfds_dir: str | None,
    progress: Callable[[int, int], None] | None,
) -> Rows:
    if data == "sample":
        data = sample_path("questions.json")
    if data.startswith(PREFIX):
        found = [
            (_table(table, group), table.files, split) for table, split in open_tfds(data, tfds_dir)
        ]
    else:
        found = [
            (_squad(path) or _table(open_text_table(path), group), [path], split)
            for path, split in find_files(data, TEXT_TABLES).items()
        ]
    own = any(split for *_, split in found)

    def batches() -> Iterator[pyarrow.RecordBatch]:
        done, waiting = 0, []
        for (reader, _), _, split in found:
            for row in reader:
                waiting.append(_checked(row) | ({"split": split} if own else {}))
                done += 1
                if len(waiting) == BATCH_ROWS:
                    yield _batch(waiting)
                    waiting = []
                    if progress:
                        progress(done, done)
        if waiting:
            yield _batch(waiting)

    files = [file for _, files, _ in found for file in files]
    identity = ["questions", *file_identity(files), group, own]
    table = stored(file_name(os.path.basename(files[0])), identity, batches)
    return Rows(table, [note for (_, note), *_ in found])


def _squad(path: str) -> tuple[Iterator[dict[str, Any]], str] | None:
    """Returns the questions of a SQuAD file, or None when it is another one."""
    if not path.lower().endswith(".json") or first_letter(path) != "{":
        return None
    content = load_json(path)
    articles = content.get("data") if isinstance(content, dict) else None
    first = articles[0] if isinstance(articles, list) and articles else None
    if not isinstance(first, dict) or "paragraphs" not in first:
        return None
    name = os.path.basename(path)
    try:
        questions = [
            (question, paragraph.get("context"))
            for article in articles
            for paragraph in article.get("paragraphs") or ()
            for question in paragraph.get("qas") or ()
        ]
        rows = [_asked(f"{name}:{n}", *found) for n, found in enumerate(questions, 1)]
    except (AttributeError, TypeError) as error:
        raise UserError(
            f"{path} is not laid out as SQuAD is: {error}.", SQUAD, "Mend it."
        ) from error
    if not rows:
        raise UserError(f"{path} has no questions.", SQUAD, "Fill it.")
    version = content.get("version")
    return (
        iter(rows),
        f"Questions are those of {name} (SQuAD{f', version {version}' * bool(version)}).",
    )


def _asked(name: str, question: dict[str, Any], context: Any) -> dict[str, Any]:
    """Returns a question of a SQuAD file as a row."""
    if has_half([question, context]):
        return {"id": name, "question": "", "context": "", "answers": [], "problem": HALF}
    impossible = bool(question.get("is_impossible"))
    answers = [] if impossible else _answers(question.get("answers"))
    problem = None
    if not (impossible or answers):
        problem = "has no answer, and is_impossible is not true"
    return {
        "id": str(question.get("id") or name),
        "question": question.get("question"),
        "context": context,
        "answers": answers,
        "problem": problem,
    }


def _answers(cell: Any, start: Any = None) -> list:
    """Returns answers as a list, however they were written."""
    if isinstance(cell, dict):  # lists of texts and of starts, as in Hugging Face's data sets
        starts = _first(cell, "answer_start", "start")
        texts = cell.get("text")
        texts = texts if isinstance(texts, list) else [texts]
        starts = starts if isinstance(starts, list) else [starts] * len(texts)
        return [{"text": t, "start": s} for t, s in itertools.zip_longest(texts, starts)]
    if isinstance(cell, list):
        return cell
    return [] if cell in (None, "") else [{"text": cell, "start": start}]


def _table(table: TextTable, group: str | None) -> tuple[Iterator[dict[str, Any]], str]:
    roles = {}
    if group is not None:
        roles["group"] = tables.find_column(table, [], "groups", "--group-column", chosen=group)
    for role, names in COLUMNS.items():
        found = [c for name in names for c in table.columns if tables.plain_name(c) == name]
        if not found:
            raise UserError(
                f"{table.path} has no column called {names[0]}.",
                f"Columns question, context and answers; there are: {', '.join(table.columns)}.",
                "Rename the columns.",
            )
        roles[role] = found[0]
    for role, names in [
        ("start", ["answer_start", "start"]),
        ("id", ["id"]),
        ("impossible", ["is_impossible"]),
        ("split", tables.SPLIT_COLUMNS),
    ]:
        found = [c for c in table.columns if tables.plain_name(c) in names]
        if found:
            roles[role] = found[0]
    name = table.name

    def questions() -> Iterator[dict[str, Any]]:
        seen = set()
        for batch, numbers in table.batches(list(dict.fromkeys(roles.values()))):
            cells = {role: batch.column(column).to_pylist() for role, column in roles.items()}
            for place, number in enumerate(numbers.tolist()):
                seen.add(number)
                row = {role: column[place] for role, column in cells.items()}
                yield _flat(f"{name}:{number}", row, table.bad.get(number))
        for number in sorted(set(table.bad) - seen):
            yield _flat(f"{name}:{number}", dict.fromkeys(roles), table.bad[number])

    return questions(), (
        f"Question, context and answers are columns {roles['question']!r}, {roles['context']!r} "
        f"and {roles['answers']!r} of {name} ({table.note})."
    )


def _flat(name: str, row: dict[str, Any], problem: str | None) -> dict[str, Any]:
    """Returns a row of a table as a question of SQuAD."""
    answers = _answers(row["answers"], row.get("start"))
    if tables.cell_text(row.get("impossible")).strip().lower() in ("true", "1", "yes"):
        answers = []
    question = {
        "id": tables.cell_text(row.get("id")) or name,
        "question": row["question"],
        "context": row["context"],
        "answers": answers,
        "problem": problem,
    }
    for role in ("group", "split"):
        if role in row:
            question[role] = tables.cell_text(row[role])
    return question


def _first(cell: dict, *names: str) -> Any:
    return next((cell[name] for name in names if cell.get(name) is not None), None)


def _checked(row: dict[str, Any]) -> dict[str, Any]:
    """Finds every answer in the context; says what is wrong, and how many were a little off."""
    problem, repaired, answers = row["problem"], 0, []
    for role in ("question", "context"):
        if not isinstance(row[role], str) or not row[role].strip():
            problem = problem or f"has no {role}"
            row[role] = ""
    for answer in row["answers"] or ():
        answer = answer if isinstance(answer, dict) else {"text": answer}
        text = answer.get("text")
        said = _first(answer, "start", "answer_start")
        if text is None or not str(text).strip():
            problem = problem or "has an empty answer"
            continue
        text = str(text)
        start = _place(row["context"], text, said)
        if start is None:
            where = "" if said in (None, "") else f" near character {said}"
            problem = problem or f"has the answer {shortened(text)!r}, not in its context{where}"
            continue
        repaired += said not in (None, "") and int(float(said)) != start
        answers.append({"text": text, "start": start})
    return row | {"answers": answers, "problem": problem, "repaired": repaired}


def _place(context: str, text: str, said: Any) -> int | None:
    """Returns where the answer starts: as said, near it, or where it is found when nothing is."""
    if said in (None, ""):
        place = context.find(text)
        return place if place >= 0 else None
    try:
        said = int(float(said))
    except (TypeError, ValueError, OverflowError):
        return None
    if said >= 0 and context.startswith(text, said):
        return said
    window = range(max(0, said - NEAR), said + NEAR + 1)
    near = [place for place in window if context.startswith(text, place)]
    return min(near, key=lambda place: abs(place - said), default=None)


def _batch(rows: list[dict[str, Any]]) -> pyarrow.RecordBatch:
    text = pyarrow.large_string()
    kinds = {"answers": ANSWERS, "repaired": pyarrow.int64()}
    columns = {
        name: pyarrow.array([row[name] for row in rows], kinds.get(name, text)) for name in rows[0]
    }
    questions, contexts = ([row[name] for row in rows] for name in ("question", "context"))
    answers = [repr(row["answers"]) for row in rows]
    columns["label"] = pyarrow.array([CLASSES[bool(row["answers"])] for row in rows], text)
    columns["key"] = content_keys(questions, contexts)
    columns["digest"] = content_keys(questions, contexts, answers)
    if "group" not in columns:
        columns["group"] = content_keys(contexts).cast(pyarrow.binary()).cast(text)
    return pyarrow.RecordBatch.from_pydict(columns)
