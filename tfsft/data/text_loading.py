"""From what a person gives as --data to train, validation and test of labelled texts."""

import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow
import pyarrow.compute as pc

from tfsft.data import splits, tables
from tfsft.data.findings import SIDES
from tfsft.data.folders import SPLIT_NAMES, TEXT_SUFFIXES, check_there, class_files
from tfsft.data.labels import natural_key
from tfsft.data.split_making import (
    SplitPlan,
    check_arguments,
    check_bad,
    check_classes,
    make_splits,
)
from tfsft.data.splits import BadExample, Splits
from tfsft.data.text_encodings import find_encoding
from tfsft.data.text_labels import NO_LABEL, label_texts
from tfsft.data.text_source import (
    BATCH_ROWS,
    KEY,
    TextSource,
    content_keys,
    file_identity,
    stored,
    take,
)
from tfsft.data.text_tables import (
    TEXT_TABLES,
    TextTable,
    is_number,
    label_array,
    open_text_table,
    text_array,
)
from tfsft.data.tfds_source import PREFIX
from tfsft.data.tfds_texts import TfdsTable, open_tfds
from tfsft.data.topics import is_topics, own_folder_warning, read_topics, topic_files
from tfsft.errors import UsageError, UserError

TEXT = pyarrow.large_string()
EXPECTED = (
    "a CSV, TSV, JSONL, JSON or Parquet file, a folder with train, validation and test files or "
    "with class folders, tfds:NAME, or topics"
)
TEXT_COLUMNS = [
    "text",
    "sentence",
    "review",
    "content",
    "message",
    "utterance",
    "comment",
    "tweet",
    "document",
    "body",
    "query",
    "question",
    "description",
    "headline",
    "title",
]
PAIR_COLUMNS = [
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("text_a", "text_b"),
    ("text1", "text2"),
]
LABEL_COLUMNS = [
    *tables.LABEL_COLUMNS,
    "sentiment",
    "intent",
    "topic",
    "emotion",
    "gold_label",
    "polarity",
    "is_duplicate",
]
NUMBER_COLUMNS = [*tables.NUMBER_COLUMNS, "rating", "stars", "similarity", "similarity_score"]

Progress = Callable[[int, int], None]


@dataclass
class Rows:
    """Texts that were read and not yet labelled or split.

    Args:
        table: Columns id, text, label and problem (what is wrong with the row, or null), and key;
            pair, group and split where there are any.
        notes: How they were read.
        warnings: What a person should know.
        class_names: The classes, where the data says which there are.
        skip_unlabelled: Whether rows without a label are usual, as in some tfds data sets.
    """

    table: pyarrow.Table
    notes: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    class_names: tuple[str, ...] | None = None
    skip_unlabelled: bool = False


def load_texts(
    data: str,
    *,
    task: str = "single",
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    validation_fraction: float = 0.15,
    test_fraction: float = 0.15,
    seed: int = 0,
    limit: int | None = None,
    on_bad: str = "stop",
    tfds_dir: str | None = None,
    class_names: tuple[str, ...] | None = None,
    progress: Progress | None = None,
) -> Splits:
    """Finds labelled texts, or pairs of them, and splits them.

    The texts are copied once into a file in the cache folder, from which any of them can be
    fetched, so that memory does not grow with them. The data set's own splits are honoured, as in
    `load_images`; then training loses texts that are in validation or test too.

    Args:
        data: A CSV, TSV, JSONL, JSON or Parquet file; a folder with such files called train,
            validation and test; a folder of class folders with `.txt` files; `tfds:NAME[:CONFIG]`;
            `topics` or `topics:LANGUAGE`.
        task: "single" (a class for each text), "multi" (several) or "regression" (a number).
        text_column, text_pair_column, label_column: Columns or features; None finds them. A pair
            is only found under its usual names, such as premise and hypothesis.
        group_column: Column of what must stay on one side of the splits, such as an author.
        validation_fraction, test_fraction: Shares of all texts, where splits are made.
        seed: Another one gives other splits.
        limit: Take about this many texts in all, of every class, for a quick try.
        on_bad: "stop" at rows that cannot be used; "skip" them, unless they are more than one in
            ten; or "list" them, however many, for a look at the data.
        tfds_dir: Folder with prepared tfds data sets.
        class_names: The classes and their order, where a model has them already; some may then
            have no texts.
        progress: Called with (done, total) while texts are read; the total is an estimate.

    Raises:
        UserError: Something about the data must be mended; the message names it.
        UsageError: An argument is out of range.
    """
    plan = text_plan(
        data, task, on_bad, limit, validation_fraction, test_fraction, seed, class_names, tfds_dir
    )
    columns = {
        "text": text_column,
        "pair": text_pair_column,
        "label": label_column,
        "group": group_column,
    }
    rows = _read(data, task, columns, tfds_dir, progress)
    return split_texts(plan, rows, task, on_bad, class_names)


def text_plan(
    data: str,
    task: str,
    on_bad: str,
    limit: int | None,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
    class_names: Sequence[str] | None,
    tfds_dir: str | None,
    things: str = "texts",
    usable: str = "Every row has a text and a label",
) -> SplitPlan:
    """Checks what can be checked before any data is read; see `load_texts`."""
    check_arguments(data, task, on_bad, limit, things)
    if tfds_dir is not None and not data.startswith(PREFIX):
        raise UsageError(
            f"--tfds-dir with --data {data}.", "--tfds-dir goes with tfds:NAME.", "Leave it out."
        )
    if not data:
        raise UsageError("--data is empty.", "A file, a folder or tfds:NAME.", "Name one.")
    splits.check_fractions(validation_fraction, test_fraction)
    return SplitPlan(
        data,
        things,
        validation_fraction,
        test_fraction,
        seed,
        limit,
        known_classes=class_names is not None,
        usable=usable,
    )


def split_texts(
    plan: SplitPlan,
    rows: Rows,
    task: str,
    on_bad: str,
    class_names: tuple[str, ...] | None,
) -> Splits:
    """Labels rows, leaves out the bad ones, and splits the rest."""
    table = rows.table
    labels, names, problems = label_texts(
        table, task, class_names if class_names is not None else rows.class_names
    )
    usable = np.ones(len(table), bool)
    usable[list(problems)] = False
    good = np.flatnonzero(usable)
    labels = labels[good]
    if rows.skip_unlabelled:
        unlabelled = [row for row, problem in problems.items() if problem == NO_LABEL]
        problems = {row: problems[row] for row in problems.keys() - unlabelled}
        if unlabelled:
            rows.warnings.append(
                f"{len(unlabelled)} texts of {plan.data} have no label and were not used."
            )
    bad = bad_examples(plan, table, problems, on_bad)
    if not len(good):
        raise UserError(
            f"{plan.data} has no texts that can be used.", f"{plan.usable}.", "Mend the rows."
        )
    if task == "single" and class_names is None:
        check_classes(plan, names)
    source = TextSource(table, good, labels, names, groups_of(table, good))
    return limit_and_split(plan, source, bad, rows)


def bad_examples(
    plan: SplitPlan, table: pyarrow.Table, problems: Mapping[int, str], on_bad: str
) -> tuple[BadExample, ...]:
    """Returns the rows that cannot be used; raises unless they may be left out."""
    places = sorted(problems)
    ids = take(table["id"], np.array(places, np.int64))
    bad = tuple(BadExample(name, problems[row]) for name, row in zip(ids, places, strict=True))
    check_bad(plan, bad, len(table), on_bad)
    return bad


def limit_and_split(
    plan: SplitPlan,
    source: TextSource,
    bad: tuple[BadExample, ...],
    rows: Rows,
    *,
    every_class: bool = True,
) -> Splits:
    """Takes as many texts as wanted and divides them; see `make_splits`."""
    sides = own_sides(source.table, source.rows)
    # Contents decide and not names: the same texts in another format are the same choice.
    chosen = plan.limited(source.labels, sides, source.keys)
    if len(chosen) < len(source):
        source, sides = source.subset(chosen), None if sides is None else sides[chosen]
    result = make_splits(
        plan,
        source,
        sides,
        bad,
        rows.warnings,
        drop_shared=True,
        every_class=every_class,
    )
    return dataclasses.replace(result, notes=tuple(rows.notes))


def groups_of(table: pyarrow.Table, rows: np.ndarray) -> np.ndarray | None:
    """Returns the column `group` as text `[n]`, where there is one."""
    if "group" not in table.column_names:
        return None
    encoded = table["group"].dictionary_encode().combine_chunks()
    names = np.array([*encoded.dictionary.to_pylist(), ""], str)
    return names[encoded.indices.fill_null(len(names) - 1).to_numpy()[rows]]


def own_sides(table: pyarrow.Table, rows: np.ndarray) -> np.ndarray | None:
    """Returns the data's own split of each row, int8 `[n]`; None where it has none.

    Raises:
        UserError: A cell of the column `split` is no split.
    """
    if "split" not in table.column_names:
        return None
    encoded = table["split"].dictionary_encode().combine_chunks()
    names = encoded.dictionary.to_pylist()
    sides = np.array([SPLIT_NAMES.get(name.strip().lower(), -1) for name in [*names, ""]], np.int8)
    indices = encoded.indices.fill_null(len(names)).to_numpy()[rows]
    wrong = np.flatnonzero(sides[indices] < 0)
    if len(wrong):
        row = int(rows[wrong[0]])
        raise tables.unknown_split(table["id"][row].as_py(), table["split"][row].as_py())
    return sides[indices]


def _read(
    data: str,
    task: str,
    columns: dict[str, str | None],
    tfds_dir: str | None,
    progress: Progress | None,
) -> Rows:
    """Chooses who reads `data`."""
    path = os.path.expanduser(data)
    if is_topics(data):
        check_no_columns(data, columns)
        return _topics(data)
    if not data.startswith(PREFIX):
        check_there(path, EXPECTED, "topics")
    if os.path.isdir(path) and not _holds_tables(path):
        check_no_columns(data, columns)
        return _folders(path, task)
    rows = _tables(open_tables(data, tfds_dir), task, columns, progress)
    rows.skip_unlabelled = data.startswith(PREFIX)
    return rows


def _holds_tables(folder: str) -> bool:
    """Says whether a folder is one of tables: with one called train, or with nothing else."""
    if split_files(folder, TEXT_TABLES):
        return True
    entries = list(os.scandir(folder))
    tables_there = any(entry.name.lower().endswith(TEXT_TABLES) for entry in entries)
    return tables_there and not any(entry.is_dir() for entry in entries)


def open_tables(data: str, tfds_dir: str | None) -> list[tuple[TextTable, str]]:
    """Opens the tables of a data set.

    Args:
        data: A table, a folder with tables called train, validation and test, or `tfds:NAME`.
        tfds_dir: Folder with prepared tfds data sets.

    Returns:
        Each table and its split, which is "" where there is one only.

    Raises:
        UserError: There are no such tables.
    """
    if data.startswith(PREFIX):
        return open_tfds(data, tfds_dir)
    return [(open_text_table(path), split) for path, split in find_files(data, TEXT_TABLES).items()]


def check_no_columns(data: str, columns: Mapping[str, str | None]) -> None:
    """Raises where columns are named of data that has none."""
    options = {
        "text": "--text-column",
        "pair": "--text-pair-column",
        "label": "--label-column",
        "group": "--group-column",
    }
    for role, value in columns.items():
        if value is not None:
            raise UsageError(
                f"{options[role]} {value} with --data {data}.",
                f"{options[role]} names a column of a table ({', '.join(TEXT_TABLES)}) or a "
                "feature of tfds:NAME.",
                "Leave it out, or give a table.",
            )


def find_files(
    data: str, suffixes: Sequence[str], expected: str = EXPECTED, own: str = "topics"
) -> dict[str, str]:
    """Finds the files of a data set.

    Args:
        data: A file, or a folder with files called train, validation and test.
        suffixes: Of the files that are wanted.
        expected: What --data can be, for the message.
        own: The name of the data that is always at hand.

    Returns:
        The split of each file as its name says, "" for a single file, by path; training first.

    Raises:
        UserError: There are no such files.
    """
    path = os.path.expanduser(data)
    check_there(path, expected, own)
    known = ", ".join(suffixes)
    if os.path.isfile(path):
        if path.lower().endswith(tuple(suffixes)):
            return {path: ""}
        raise UserError(
            f"{data} is a file of an unknown kind.",
            f"A file that ends in {known}, or a folder.",
            "Unpack it if it is an archive; save it as CSV if it is a table.",
        )
    found = split_files(path, suffixes)
    if not found:
        names = sorted(os.listdir(path), key=natural_key)
        raise UserError(
            f"{data} holds no file called train with one of these endings: {known}.",
            "A file, or a folder with train, validation and test files.",
            f"Give one of its files as --data; it holds: {', '.join(names[:8]) or 'nothing'}.",
        )
    return found


def split_files(folder: str, suffixes: Sequence[str]) -> dict[str, str]:
    """Returns the split of each file whose name says one, by path; nothing without training."""
    found = {}
    for name in sorted(os.listdir(folder), key=natural_key):
        # train.csv, and train-00000-of-00002.parquet
        start = re.match(r"[a-z]+(?=[-_.])", name.lower())
        if start and start[0] in SPLIT_NAMES and name.lower().endswith(tuple(suffixes)):
            found[os.path.join(folder, name)] = start[0]
    if 0 not in {SPLIT_NAMES[split] for split in found.values()}:
        return {}
    return dict(sorted(found.items(), key=lambda item: SPLIT_NAMES[item[1]]))


def _topics(data: str) -> Rows:
    files = topic_files(data)
    found, left_out = read_topics(files)
    ids, texts, labels = zip(*found, strict=True)
    table = stored(
        data.replace(":", "-"),
        ["topics", *file_identity(files)],
        lambda: iter([rows_batch(ids, {"text": texts, "label": labels})]),
    )
    note = f"Texts are utterances of the package chatterbot-corpus, {files[0].parent.name}."
    return Rows(table, [note, *left_out], own_folder_warning())


def _folders(path: str, task: str) -> Rows:
    if task == "regression":
        raise UserError(
            f"{path} is a folder, and its texts are to be labelled with numbers.",
            "Numbers come from a table, with a text in each row.",
            "Write such a table and give its name as --data.",
        )
    found = class_files(path, TEXT_SUFFIXES, "texts")

    def batches() -> Iterator[pyarrow.RecordBatch]:
        ids = found.ids()
        for start in range(0, len(ids), BATCH_ROWS):
            part = slice(start, start + BATCH_ROWS)
            texts, problems = zip(*map(_file_text, found.paths[part]), strict=True)
            cells = {"text": texts, "label": [name for (name,) in found.names[part]]}
            if found.sides is not None:
                cells["split"] = [SIDES[side] for side in found.sides[part]]
            yield rows_batch(ids[part], cells, problems)

    identity = ["folder", path, *file_identity(found.paths)]
    note = "Texts are files in class folders."
    names = found.class_names
    return Rows(stored("folder", identity, batches), [note], found.warnings, names)


def _file_text(path: str) -> tuple[str | None, str | None]:
    """Returns the text of a file, and what is wrong with it."""
    try:
        with open(path, encoding=find_encoding(path)) as file:
            return file.read().strip("\ufeff \t\r\n"), None
    except UserError as error:
        return None, error.came.removeprefix(path).strip()
    except OSError as error:
        return None, f"cannot be read: {error.strerror or error}"


def _tables(
    opened: list[tuple[TextTable, str]],
    task: str,
    columns: dict[str, str | None],
    progress: Progress | None,
) -> Rows:
    own = any(split for _, split in opened)
    chosen = [_choose(table, task, columns) for table, _ in opened]
    for roles in chosen:
        if own:
            roles.pop("split", None)
    files = [file for table, _ in opened for file in table.files]

    def batches() -> Iterator[pyarrow.RecordBatch]:
        total = sum(map(os.path.getsize, files))
        rows = done = 0
        for (table, split), roles in zip(opened, chosen, strict=True):
            for batch in _table_rows(table, roles, split):
                yield batch
                rows, done = rows + len(batch), done + batch.nbytes
                if progress:
                    progress(rows, max(rows, round(rows * total / done)))

    first, roles = opened[0][0], chosen[0]
    notes = [_note(table, roles) for (table, _), roles in zip(opened, chosen, strict=True)]
    known = first.class_names(roles["label"]) if isinstance(first, TfdsTable) else None
    return Rows(
        stored(file_name(first.name), [*file_identity(files), chosen, own], batches),
        list(dict.fromkeys(notes)),
        class_names=known,
    )


def file_name(name: str) -> str:
    """Returns a name as it can stand in the name of a file."""
    return re.sub(r"[^\w-]+", "-", name).strip("-")


def _choose(table: TextTable, task: str, columns: dict[str, str | None]) -> dict[str, str]:
    """Returns which column has which role."""
    text, pair, label, group = (columns[role] for role in ("text", "pair", "label", "group"))
    found = {}
    if group is not None:
        found["group"] = tables.find_column(table, [], "groups", "--group-column", chosen=group)
    split = next((c for c in table.columns if c.strip().lower() in tables.SPLIT_COLUMNS), None)
    if split is not None and split not in columns.values():
        found["split"] = split
    taken = tuple(name for name in (pair, label, group, split) if name)
    if text is None and pair is None:
        plain = {tables.plain_name(name): name for name in table.columns if name not in taken}
        text, pair = next(
            ((plain[a], plain[b]) for a, b in PAIR_COLUMNS if a in plain and b in plain),
            (None, None),
        )
    found["text"] = tables.find_column(
        table, TEXT_COLUMNS, "texts", "--text-column", chosen=text, taken=taken, fits=_are_texts
    )
    if pair is not None:
        found["pair"] = tables.find_column(
            table, [], "the second text of each pair", "--text-pair-column", chosen=pair
        )
    taken = tuple(name for name in (*found.values(), split) if name)
    number = task == "regression"
    names = NUMBER_COLUMNS if number else LABEL_COLUMNS
    named = any(tables.plain_name(c) in names for c in table.columns if c not in taken)
    found["label"] = tables.find_column(
        table, names, "labels", "--label-column", chosen=label, taken=taken,
        fits=tables.are_numbers if number else None if named else _are_labels,
    )  # fmt: skip
    if found["text"] in (found["label"], found.get("pair")):
        raise UsageError(
            f"The column {found['text']!r} has two uses.",
            "Text, pair and label are different columns.",
            f"{table.path} has: {', '.join(table.columns)}.",
        )
    tables.check_plain(
        table,
        {role: column for role, column in found.items() if role != "split"},
        lists=task == "multi",
    )
    return found


def _are_texts(cells: list) -> bool:
    """Says whether cells look like texts: different from each other, and no numbers."""
    texts = [cell for cell in cells if isinstance(cell, str) and cell.strip()]
    if len(texts) < len(cells) / 2 or all(map(is_number, texts)):
        return False
    words = np.mean([len(re.findall(r"\w+", text)) for text in texts])
    return len(set(texts)) > len(texts) / 2 and (words >= 2 or np.mean([*map(len, texts)]) > 10)


def _are_labels(cells: list) -> bool:
    """Says whether cells look like labels: the same ones again and again."""
    if any(isinstance(cell, list) for cell in cells):
        return True
    names = [tables.cell_text(cell) for cell in cells if cell is not None]
    return bool(names) and len(set(names)) <= max(2, len(names) / 2) and max(map(len, names)) <= 80


def _note(table: TextTable, roles: dict[str, str]) -> str:
    pair = f" and {roles['pair']!r}" if "pair" in roles else ""
    others = "".join(
        f", {what} column {roles[role]!r}"
        for role, what in [("label", "label"), ("group", "group"), ("split", "split")]
        if role in roles
    )
    kind = "columns" if pair else "column"
    name = table.name
    return f"Text is {kind} {roles['text']!r}{pair}{others} of {name} ({table.note})."


def _table_rows(
    table: TextTable, roles: dict[str, str], split: str
) -> Iterator[pyarrow.RecordBatch]:
    name = table.name
    left = set()
    for batch, numbers in table.batches(list(dict.fromkeys(roles.values()))):
        cells = {role: batch.column(column) for role, column in roles.items()}
        reasons = [table.bad.get(number) for number in numbers.tolist()] if table.bad else None
        left.update(numbers[[reason is not None for reason in reasons]].tolist() if reasons else ())
        yield rows_batch([f"{name}:{number}" for number in numbers], cells, reasons, split)
    missing = sorted(set(table.bad) - left)
    if missing:
        nothing = {role: [None] * len(missing) for role in roles}
        yield rows_batch(
            [f"{name}:{number}" for number in missing],
            nothing,
            [table.bad[number] for number in missing],
            split,
        )


def rows_batch(
    ids: Sequence[str],
    cells: Mapping[str, Sequence | pyarrow.Array],
    problems: Sequence[str | None] | None = None,
    split: str = "",
) -> pyarrow.RecordBatch:
    """Puts rows into the form in which they are stored.

    Args:
        ids: How a person finds each row.
        cells: The columns text and label; pair, group and split where there are any.
        problems: What is wrong with rows that could not be read.
        split: Of all rows, where their file says so.
    """
    columns = {"id": pyarrow.array(ids, TEXT)}
    for role in ("text", "pair", "label", "group", "split"):
        if role in cells:
            array = cells[role]
            if not isinstance(array, pyarrow.Array):
                array = pyarrow.array(array, TEXT)
            columns[role] = (label_array if role == "label" else text_array)(array)
    if split:
        columns["split"] = pyarrow.array([split] * len(ids), TEXT)
    reasons = list(problems) if problems is not None else [None] * len(ids)
    inputs = [columns[role] for role in ("text", "pair") if role in columns]
    for role, array in zip(("text", "pair"), inputs, strict=False):
        blank = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(array), ""), True)
        for row in np.flatnonzero(blank.to_numpy(zero_copy_only=False)).tolist():
            reasons[row] = reasons[row] or f"has no {'second ' * (role == 'pair')}text"
    columns["problem"] = pyarrow.array(reasons, TEXT)
    columns["key"] = content_keys(*(array.to_pylist() for array in inputs)).cast(KEY)
    return pyarrow.RecordBatch.from_pydict(columns)
