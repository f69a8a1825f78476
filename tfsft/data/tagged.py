"""Sentences with a tag on each word: CoNLL columns, tables with lists, and tables with spans."""

import dataclasses
import importlib.resources
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute as pc

from tfsft.data import tables
from tfsft.data.labels import shorten
from tfsft.data.splits import Splits
from tfsft.data.tag_schemes import OUTSIDE, all_tags, find_scheme, first_contradiction, tag_type
from tfsft.data.text_encodings import ENCODINGS, find_encoding, shortened
from tfsft.data.text_labels import label_texts
from tfsft.data.text_loading import (
    Rows,
    bad_examples,
    check_no_columns,
    file_name,
    find_files,
    groups_of,
    limit_and_split,
    text_plan,
)
from tfsft.data.text_source import (
    BATCH_ROWS,
    TextSource,
    content_keys,
    file_identity,
    stored,
)
from tfsft.data.text_tables import TextTable, open_text_table
from tfsft.data.tfds_source import PREFIX
from tfsft.data.tfds_texts import open_tfds
from tfsft.data.words import split_words
from tfsft.errors import UserError, nearest

CONLL = (".conll", ".iob", ".iob2", ".bio", ".txt")
TABLES = (".jsonl", ".ndjson", ".json", ".parquet")
WORD_COLUMNS = ["tokens", "words", "token", "word"]
TAG_COLUMNS = ["ner_tags", "tags", "labels", "ner", "pos_tags", "tag", "label"]
TEXT_COLUMNS = ["text", "sentence", "content"]
SPAN_COLUMNS = ["spans", "entities", "labels", "label"]
LINES = pyarrow.list_(pyarrow.int32())
NAMES = pyarrow.list_(pyarrow.large_string())


def load_tags(
    data: str,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    validation_fraction: float = 0.15,
    test_fraction: float = 0.15,
    seed: int = 0,
    limit: int | None = None,
    on_bad: str = "stop",
    tfds_dir: str | None = None,
    tags: tuple[str, ...] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Splits:
    """Finds sentences with tagged words, and splits them; see `load_texts`.

    Args:
        data: A file in CoNLL columns (a word first and its tag last in each line, an empty line
            between sentences); JSONL, JSON or Parquet with lists of words and tags in each row, or
            with a text and its spans; a folder with such files called train, validation and test;
            or `sample`.
        text_column, label_column: Columns of a table; None finds them.
        group_column: Column of what must stay on one side of the splits, such as a document.
        validation_fraction, test_fraction: Shares of all sentences, where splits are made.
        seed: Another one gives other splits.
        limit: Take about this many sentences in all.
        on_bad: What to do about sentences that cannot be used; see `load_texts`.
        tfds_dir: Folder with prepared tfds data sets.
        tags: The tags and their order, where a model has them already.
        progress: Called with (done, total) while sentences are read; the total is an estimate.

    Returns:
        Splits with `tags` and `scheme`; the classes are types of spans, and the labels say which
        of them a sentence holds.

    Raises:
        UserError: Something about the data must be mended; the message names file and line.
        UsageError: An argument is out of range.
    """
    plan = text_plan(
        data, "multi", on_bad, limit, validation_fraction, test_fraction, seed, tags, tfds_dir,
        "sentences", "Every word has a tag, and tags follow their scheme",
    )  # fmt: skip
    columns = {"text": text_column, "label": label_column, "group": group_column}
    rows = _read(data, columns, tfds_dir, progress)
    table = rows.table
    found = _different(table["tags"].filter(pc.is_null(table["problem"])))
    scheme = find_scheme(tags or found)
    _check_known(found, tags, data)
    tags = tags or all_tags(found, scheme)
    types = tuple(dict.fromkeys(tag_type(tag, scheme) for tag in tags if tag != OUTSIDE))
    labels = _types(table["tags"], scheme)
    labels, names, problems = label_texts(
        pyarrow.table({"id": table["id"], "label": labels, "problem": table["problem"]}),
        "multi",
        types,
    )
    problems |= _contradictions(table, scheme, problems)
    bad = bad_examples(plan, table, problems, on_bad)
    good = np.setdiff1d(np.arange(len(table)), list(problems))
    if not len(good) or not types:
        raise UserError(
            f"{data} holds no tagged sentences.", "A tag on each word.", "Check the file."
        )
    rows.notes.append(f"Tags are {scheme}: {shorten(tags, 12)}.")
    source = TextSource(table, good, labels[good], names, groups_of(table, good), tags)
    result = limit_and_split(plan, source, bad, rows)
    return dataclasses.replace(result, tags=tags, scheme=scheme)


def sample_path(name: str) -> str:
    """Returns the file of a sample that comes with tfsft."""
    return str(importlib.resources.files("tfsft.data") / "sample_texts" / name)


def _read(
    data: str,
    columns: dict[str, str | None],
    tfds_dir: str | None,
    progress: Callable[[int, int], None] | None,
) -> Rows:
    if data == "sample":
        data = sample_path("names.conll")
    tables_found: list[tuple[Any, str]] = []
    if data.startswith(PREFIX):
        tables_found = open_tfds(data, tfds_dir)
    else:
        for path, split in find_files(data, CONLL + TABLES).items():
            columnar = path.lower().endswith(CONLL)
            tables_found.append((path if columnar else open_text_table(path), split))
    files, readers, notes, chosen = [], [], [], []
    for table, _ in tables_found:
        if isinstance(table, str):
            check_no_columns(data, columns)
            reader, roles, note = _conll(table)
        else:
            reader, roles, note = _table(table, columns)
        files += [table] if isinstance(table, str) else table.files
        readers.append(reader)
        chosen.append(roles)
        notes.append(note)
    splits_found = [split for _, split in tables_found]
    own = any(splits_found)

    def batches() -> Iterator[pyarrow.RecordBatch]:
        done = 0
        for reader, split in zip(readers, splits_found, strict=True):
            waiting: list[dict] = []
            for sentence in reader:
                waiting.append(sentence | ({"split": split} if own else {}))
                if len(waiting) == BATCH_ROWS:
                    yield _batch(waiting)
                    done += len(waiting)
                    waiting = []
                    if progress:
                        progress(done, done)
            if waiting:
                yield _batch(waiting)

    identity = ["tags", *file_identity(files), chosen, own]
    return Rows(stored(file_name(os.path.basename(files[0])), identity, batches), notes)


def _conll(path: str) -> tuple[Iterator[dict[str, Any]], dict[str, str], str]:
    """Returns the sentences of a file in columns, no roles, and a note about it."""
    encoding, name = find_encoding(path), os.path.basename(path)
    note = f"Words and tags are first and last column of {name} ({ENCODINGS[encoding]})."
    return _sentences(path, name, encoding), {}, note


def _sentences(path: str, name: str, encoding: str) -> Iterator[dict[str, Any]]:
    words: list[str] = []
    tags: list[str] = []
    problem, first, width, mark = None, 0, 0, None
    with open(path, encoding=encoding) as file:
        for number, line in enumerate(file, 1):
            line = line.lstrip("\ufeff").rstrip()
            if not line or line.startswith("-DOCSTART-"):
                if words or problem:
                    yield _sentence(f"{name}:{first}", words, tags, problem, line=first)
                words, tags, problem = [], [], None
                continue
            if not width:
                mark = "\t" if "\t" in line else None  # else words are separated by spaces
            cells = line.split(mark)
            if line.startswith("# ") and not words and not re.match("O$|[BILUES]-", cells[-1]):
                continue  # a comment
            first = first if words or problem else number
            width = width or len(cells)
            if len(cells) < 2 or len(cells) != width:
                what = f"{len(cells)} columns and not {width}" if len(cells) > 1 else "no tag"
                problem = problem or f"has {what} in line {number}: {shortened(line)}"
                continue
            words.append(cells[0])
            tags.append(cells[-1])
    if words or problem:
        yield _sentence(f"{name}:{first}", words, tags, problem, line=first)
    elif not first:
        raise UserError(f"{path} is empty.", "A word and its tag in each line.", "Fill it.")


def _table(
    table: TextTable, columns: Mapping[str, str | None]
) -> tuple[Iterator[dict[str, Any]], dict[str, str], str]:
    """Returns a table's sentences, which column has which role, and a note about it."""
    group, roles = columns["group"], {}
    if group is not None:
        roles["group"] = tables.find_column(table, [], "groups", "--group-column", chosen=group)
    split = next((c for c in table.columns if c.strip().lower() in tables.SPLIT_COLUMNS), None)
    if split:
        roles["split"] = split
    lists = [name for name in table.columns if _has(table.values(name), list)]
    spans = [
        name
        for name in lists
        if any(isinstance(part, dict) for cell in table.values(name) for part in cell or ())
    ]
    taken = tuple(roles.values())
    if spans and columns["label"] in (None, *spans):
        roles["text"] = tables.find_column(
            table, TEXT_COLUMNS, "texts", "--text-column", chosen=columns["text"], taken=taken,
            fits=lambda cells: _has(cells, str),
        )  # fmt: skip
        roles["label"] = tables.find_column(
            table, SPAN_COLUMNS, "spans", "--label-column", chosen=columns["label"],
            taken=(*taken, roles["text"]), fits=lambda cells: _has(cells, list),
        )  # fmt: skip
    else:
        roles["text"] = tables.find_column(
            table, WORD_COLUMNS, "lists of words", "--text-column", chosen=columns["text"],
            taken=(*taken, columns["label"]), fits=lambda cells: _has(cells, list),
        )  # fmt: skip
        roles["label"] = tables.find_column(
            table, TAG_COLUMNS, "lists of tags", "--label-column", chosen=columns["label"],
            taken=(*taken, roles["text"]), fits=lambda cells: _has(cells, list),
        )  # fmt: skip
    name = table.name
    what = "Texts are" if spans else "Words are"
    note = (
        f"{what} column {roles['text']!r}, tags column {roles['label']!r} of {name} ({table.note})."
    )

    def sentences() -> Iterator[dict[str, Any]]:
        seen = set()
        for batch, numbers in table.batches(list(dict.fromkeys(roles.values()))):
            cells = {role: batch.column(column).to_pylist() for role, column in roles.items()}
            for place, number in enumerate(numbers.tolist()):
                row = {role: column[place] for role, column in cells.items()}
                seen.add(number)
                yield _row(f"{name}:{number}", row, table.bad.get(number), bool(spans))
        for number in sorted(set(table.bad) - seen):
            yield _row(f"{name}:{number}", dict.fromkeys(roles), table.bad[number], False)

    return sentences(), roles, note


def _has(cells: list, kind: type) -> bool:
    return any(isinstance(cell, kind) for cell in cells)


def _row(name: str, row: dict[str, Any], problem: str | None, spans: bool) -> dict[str, Any]:
    extra = {
        role: None if row[role] is None else tables.cell_text(row[role])
        for role in ("group", "split")
        if role in row
    }
    text, label = row["text"], row["label"]
    if problem:
        return _sentence(name, [], [], problem) | extra
    if not spans:
        words = [tables.cell_text(word) for word in _listed(text)]
        tags = [tables.cell_text(tag) for tag in _listed(label)]
        problem = None if words else "has no words"
        return _sentence(name, words, tags, problem) | extra
    text = text if isinstance(text, str) else ""
    words = split_words(text)
    tags, problem = _span_tags(text, words, _listed(label))
    sentence = _sentence(name, [], tags, problem)
    if not words:
        sentence["problem"] = "has no text"
    else:
        starts, ends = zip(*words, strict=True)
        sentence |= {"text": text, "starts": list(starts), "ends": list(ends)}
    return sentence | extra


def _listed(cell: Any) -> list:
    return cell if isinstance(cell, list) else [] if cell is None else str(cell).split()


def _span_tags(
    text: str, words: Sequence[tuple[int, int]], spans: list
) -> tuple[list[str], str | None]:
    """Returns IOB2 tags of the words, and what is wrong with the spans."""
    tags = [OUTSIDE] * len(words)
    starts = {start: place for place, (start, _) in enumerate(words)}
    ends = {end: place for place, (_, end) in enumerate(words)}
    for span in spans:
        try:
            start = int(_field(span, "start", "start_offset", "begin"))
            end = int(_field(span, "end", "end_offset", "stop"))
            kind = str(_field(span, "label", "type", "entity", "tag"))
        except (AttributeError, TypeError, ValueError, OverflowError, KeyError):
            return tags, f"has a span without start, end and label: {shortened(str(span))}"
        if not 0 <= start < end <= len(text):
            return tags, f"has a span {start} to {end}, but {len(text)} characters"
        inside = text[start:end]
        start += len(inside) - len(inside.lstrip())
        end -= len(inside) - len(inside.rstrip())
        first, last = starts.get(start), ends.get(end)
        if first is None or last is None:
            around = shortened(text[max(0, start - 20) : end + 20])
            return tags, f"has a span {inside!r} that cuts a word: ... {around} ..."
        if any(tag != OUTSIDE for tag in tags[first : last + 1]):
            return tags, f"has a span {inside!r} that overlaps another one"
        tags[first : last + 1] = [f"B-{kind}"] + [f"I-{kind}"] * (last - first)
    return tags, None


def _field(span: dict, *names: str) -> Any:
    found = [span[name] for name in names if span.get(name) is not None]
    if not found:
        raise KeyError(names[0])
    return found[0]


def _sentence(
    name: str, words: list[str], tags: list[str], problem: str | None = None, line: int = 0
) -> dict[str, Any]:
    """Returns one row; words are joined by single spaces."""
    if not problem and any(not word.strip() for word in words):
        problem = "has an empty word"
    if not problem and any(not tag.strip() for tag in tags):
        problem = "has an empty tag"
    if not problem and not tags:
        problem = "has no words" if not words else "has no tags"
    if not problem and words and len(words) != len(tags):
        problem = f"has {len(words)} words and {len(tags)} tags"
    ends = np.cumsum([len(word) + 1 for word in words], dtype=np.int64) - 1
    return {
        "id": name,
        "text": " ".join(words),
        "starts": [int(end) - len(word) for end, word in zip(ends, words, strict=True)],
        "ends": ends.tolist(),
        "tags": tags,
        "problem": problem,
        "line": line,
    }


def _batch(rows: list[dict[str, Any]]) -> pyarrow.RecordBatch:
    kinds = {"starts": LINES, "ends": LINES, "tags": NAMES, "line": pyarrow.int64()}
    columns = {
        name: pyarrow.array([row[name] for row in rows], kinds.get(name, pyarrow.large_string()))
        for name in rows[0]
    }
    spans = [repr((row["starts"], row["ends"])) for row in rows]
    texts = [row["text"] for row in rows]
    columns["key"] = content_keys(texts, spans)
    columns["digest"] = content_keys(texts, spans, [repr(row["tags"]) for row in rows])
    return pyarrow.RecordBatch.from_pydict(columns)


def _different(column: pyarrow.ChunkedArray) -> list[str]:
    found: dict[str, None] = {}
    for chunk in column.chunks:
        found |= dict.fromkeys(pc.unique(chunk.flatten()).to_pylist())
    return list(found)


def _types(column: pyarrow.ChunkedArray, scheme: str) -> pyarrow.ChunkedArray:
    """Returns the type of each tag instead of the tag; "" is outside."""
    chunks = []
    for chunk in column.chunks:
        encoded = chunk.flatten().dictionary_encode()
        names = [tag_type(tag, scheme) for tag in encoded.dictionary.to_pylist()]
        flat = pyarrow.array(names, pyarrow.large_string()).take(encoded.indices)
        lengths = pc.fill_null(pc.list_value_length(chunk), 0).to_numpy()
        offsets = pyarrow.array(np.concatenate([[0], np.cumsum(lengths)]), pyarrow.int32())
        chunks.append(pyarrow.ListArray.from_arrays(offsets, flat))
    return pyarrow.chunked_array(chunks, NAMES)


def _contradictions(
    table: pyarrow.Table, scheme: str, problems: Mapping[int, str]
) -> dict[int, str]:
    """Returns what is wrong with rows whose tags break their scheme."""
    if scheme == "plain":
        return {}
    found, row = {}, 0
    for batch in table.select(["tags", "line"]).to_batches():
        for tags in batch.column("tags").to_pylist():
            place = None if row in problems else first_contradiction(tags, scheme)
            if place is not None:
                found[row] = _explain(table, row, tags, place, scheme)
            row += 1
    return found


def _explain(table: pyarrow.Table, row: int, tags: list[str], place: int, scheme: str) -> str:
    text = table["text"][row].as_py()
    starts, ends = (table[name][row].as_py() for name in ("starts", "ends"))
    words = [text[start:end] for start, end in zip(starts, ends, strict=True)]
    line = table["line"][row].as_py()
    here = f"line {line + min(place, len(tags) - 1)}" if line else f"word {place + 1}"
    if place == len(tags):
        return f"is not valid {scheme}: {here}, '{words[-1]} {tags[-1]}', leaves a span open"
    after = f"follows '{words[place - 1]} {tags[place - 1]}'" if place else "is the first"
    hint = "; a span begins with B- (IOB1 is not read)" if scheme == "IOB2" else ""
    return f"is not valid {scheme}: {here}, '{words[place]} {tags[place]}', {after}{hint}"


def _check_known(found: Sequence[str], tags: tuple[str, ...] | None, data: str) -> None:
    unknown = sorted(set(found) - set(tags)) if tags is not None else []
    if unknown:
        raise UserError(
            f"{data} has the tag {unknown[0]!r}, which the model does not know."
            f"{nearest(unknown[0], tags)}",
            f"Its tags are: {shorten(tags, 20)}.",
            "Rename the tag, or leave these sentences out.",
        )
