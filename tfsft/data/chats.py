"""Conversations between a user and an assistant, from files of many kinds."""

import dataclasses
import importlib.resources
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute as pc
import scipy.sparse
import scipy.sparse.csgraph

from tfsft.data import chatterbot
from tfsft.data.chat_files import ChatFile, from_table, open_chat_file
from tfsft.data.chat_formats import (
    ASKING,
    MENDS,
    ChatFormat,
    Conversation,
    Message,
    PairColumns,
    find_format,
    read_row,
)
from tfsft.data.chat_prompts import check_placeholders, fill_prompt, placeholders, read_prompt
from tfsft.data.labels import printable, shorten
from tfsft.data.split_making import SplitPlan
from tfsft.data.splits import Splits
from tfsft.data.tables import cell_text
from tfsft.data.text_loading import (
    Rows,
    bad_examples,
    file_name,
    find_files,
    groups_of,
    limit_and_split,
    own_sides,
    text_plan,
)
from tfsft.data.text_source import (
    BATCH_ROWS,
    KEY,
    TextSource,
    content_keys,
    file_identity,
    fixed_width,
    stored,
)
from tfsft.data.text_tables import TEXT_TABLES
from tfsft.data.tfds_source import PREFIX
from tfsft.data.tfds_texts import open_tfds
from tfsft.errors import UsageError, UserError

FORMAT = 1  # of the stored rows; another number leaves older ones alone
TEXT = pyarrow.large_string()
MESSAGES = pyarrow.list_(pyarrow.struct([("role", pyarrow.string()), ("content", TEXT)]))
SHIPPED = {"general": "general.jsonl", "general-replay": "general-replay.jsonl"}
EXPECTED = (
    "a JSONL, JSON, CSV, TSV or Parquet file, a folder with train, validation and test files, "
    "tfds:NAME, or chatterbot"
)
USABLE = "Every row has a message of the user and an answer to it"

Progress = Callable[[int, int], None]


def load_chats(
    given: str,
    *,
    system_prompt: str = "",
    group_column: str | None = None,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
    limit: int | None = None,
    on_bad: str = "stop",
    tfds_dir: str | None = None,
    prompt_column: str | None = None,
    answer_column: str | None = None,
    pair: PairColumns = ASKING,
    progress: Progress | None = None,
) -> Splits:
    """Finds conversations and splits them; see `load_texts`.

    Conversations that begin with the same message of the user stay on one side.

    Args:
        given: A JSONL, JSON, CSV, TSV or Parquet file of messages (OpenAI's, ShareGPT's), of
            instructions (Alpaca's) or of prompts with their answers; a folder with such files
            called train, validation and test; `tfds:NAME`; `chatterbot` or `chatterbot:LANGUAGE`.
        system_prompt: System message of each conversation that has none of its own: a text, or the
            name of a file that holds it. `{column}` in it is filled from the row.
        group_column: Column of what must stay on one side of the splits, such as a customer.
        validation_fraction, test_fraction: Shares of all conversations, where splits are made.
        seed: Another one gives other splits.
        limit: Take about this many conversations in all.
        on_bad: What to do about rows that cannot be used; see `load_texts`.
        tfds_dir: Folder with prepared tfds data sets.
        prompt_column, answer_column: Columns of a table; None finds them.
        pair: What these may be called.
        progress: Called with (done, total) while rows are read; the total is an estimate.

    Returns:
        Splits of sources with the column "messages": `{"role", "content"}` of each message. They
        have no classes.

    Raises:
        UserError: Something about the data must be mended; the message names the row.
        UsageError: An argument is out of range, or a placeholder names no column.
    """
    plan = text_plan(
        given, "single", on_bad, limit, validation_fraction, test_fraction, seed, None, tfds_dir,
        pair.nouns, USABLE,
    )  # fmt: skip
    rows = _read(
        _open(given, tfds_dir), read_prompt(system_prompt), prompt_column, answer_column,
        group_column, progress, pair,
    )  # fmt: skip
    rows.warnings += _shadowed(given)
    bad, source = _usable(plan, rows, on_bad)
    sides = own_sides(rows.table, source.rows)
    source.groups, warnings = _groups(source, sides, group_column is not None)
    rows.warnings += warnings
    return limit_and_split(plan, source, bad, rows, every_class=False)


def read_chats(
    path: str,
    *,
    system_prompt: str = "",
    limit: int | None = None,
    on_bad: str = "stop",
    prompt_column: str | None = None,
    answer_column: str | None = None,
    say: Callable[[str], None] | None = None,
) -> TextSource:
    """Reads all conversations of one file, in their order.

    Args:
        path: A file as for `load_chats`; `general`, questions of all kinds with short answers to
            measure what was forgotten; `general-replay`, others to mix into training; or
            `chatterbot`.
        system_prompt, on_bad, prompt_column, answer_column: As for `load_chats`.
        limit: Take the first so many.
        say: Called with each sentence about how the file was read.

    Raises:
        UserError: Something about the data must be mended; the message names the row.
    """
    plan = text_plan(path, "single", on_bad, limit, 0.0, 0.0, 0, None, None,
                     "conversations", USABLE)  # fmt: skip
    files = _open(path, None)
    if len(files) > 1:
        raise UsageError(f"{path} is a folder with several files.", "One file.", "Name one.")
    rows = _read(files, read_prompt(system_prompt), prompt_column, answer_column, None, None)
    rows.warnings += _shadowed(path)
    bad, source = _usable(plan, rows, on_bad)
    for sentence in (*rows.notes, *rows.warnings) if say else ():
        say(sentence)
    if bad and say:
        say(f"{len(bad)} rows of {path} cannot be used, for example {bad[0].id} {bad[0].reason}.")
    return source if limit is None else source.subset(np.arange(min(limit, len(source))))


def read_questions(
    path: str,
    *,
    system_prompt: str = "",
    prompt_column: str | None = None,
    pair: PairColumns = ASKING,
) -> tuple[list[list[Message]], list[str]]:
    """Reads what a finished model is to answer.

    Args:
        path: A table with a column of prompts, or of messages that end with one of the user.
        system_prompt: As for `load_chats`.
        prompt_column: The column; None finds it.
        pair: What it may be called.

    Returns:
        The conversations so far, and what to call each row.

    Raises:
        UserError: It cannot be read, or a row has no question.
    """
    system_prompt = read_prompt(system_prompt)
    wanted = placeholders(system_prompt)
    paths = list(find_files(path, TEXT_TABLES, EXPECTED, chatterbot.NAME))
    if len(paths) > 1:
        raise UsageError(f"{path} is a folder with several files.", "One file.", "Name one.")
    file = open_chat_file(paths[0], least_columns=1)
    form = find_format(
        file, prompt_column=prompt_column, answers=False, elsewhere=wanted, pair=pair
    )
    check_placeholders(system_prompt, [n for n in file.columns if n != form.messages])
    chats, ids = [], []
    for number, cells, problem in file.read(list(dict.fromkeys([*form.columns(), *wanted]))):
        found = _conversation(form, cells, problem, system_prompt, answers=False)
        if found.problem:
            raise UserError(
                f"{file.path}, row {number} {found.problem}.",
                "A question in every row; text with commas stands in quotation marks.",
                "Mend or remove the row.",
            )
        chats.append(found.messages)
        ids.append(f"{file.name}:{number}")
    return chats, ids


def _open(given: str, tfds_dir: str | None) -> list[tuple[ChatFile, str]]:
    """Opens the files of a data set; each with its split, "" where there is one only."""
    if chatterbot.is_chatterbot(given):
        return [(chatterbot.open_chatterbot(given), "")]
    if given in SHIPPED:
        given = str(importlib.resources.files("tfsft.data") / "sample_chats" / SHIPPED[given])
    if given.startswith(PREFIX):
        return [(from_table(table), split) for table, split in open_tfds(given, tfds_dir)]
    found = find_files(given, TEXT_TABLES, EXPECTED, chatterbot.NAME)
    return [(open_chat_file(path), split) for path, split in found.items()]


def _shadowed(given: str) -> list[str]:
    """Returns a warning where a person's own file or folder has a name that means something."""
    if not (given in SHIPPED or chatterbot.is_chatterbot(given)) or not os.path.exists(given):
        return []
    return [f"{given} means what comes with tfsft; for your own of this name give ./{given}."]


def _read(
    files: Sequence[tuple[ChatFile, str]],
    system_prompt: str,
    prompt: str | None,
    answer: str | None,
    group: str | None,
    progress: Progress | None,
    pair: PairColumns = ASKING,
) -> Rows:
    """Copies the conversations into a file in the cache folder."""
    own = any(split for _, split in files)
    wanted = placeholders(system_prompt)
    forms = []
    for file, _ in files:
        form = find_format(
            file,
            prompt_column=prompt,
            answer_column=answer,
            group_column=group,
            elsewhere=wanted,
            pair=pair,
        )
        check_placeholders(system_prompt, [n for n in file.columns if n != form.messages])
        forms.append(dataclasses.replace(form, split=None) if own else form)

    def batches() -> Iterator[pyarrow.RecordBatch]:
        total = sum(os.path.getsize(path) for file, _ in files for path in file.files)
        done = size = 0
        for (file, split), form in zip(files, forms, strict=True):
            waiting: list[dict[str, Any]] = []
            columns = list(dict.fromkeys([*form.columns(), *wanted]))
            for number, cells, problem in file.read(columns):
                waiting.append(_stored_row(file, form, number, cells, problem, system_prompt))
                if own:
                    waiting[-1]["split"] = split
                if len(waiting) == BATCH_ROWS:
                    batch = _batch(waiting)
                    yield batch
                    done, size = done + len(batch), size + batch.nbytes
                    waiting = []
                    if progress:
                        progress(done, max(done, round(done * total / size)))
            if waiting:
                yield _batch(waiting)

    paths = [path for file, _ in files for path in file.files]
    identity = ["chats", FORMAT, *file_identity(paths), forms, own, system_prompt]
    table = stored(file_name(files[0][0].name), identity, batches)
    notes = [
        form.describe(file, wanted, pair) for (file, _), form in zip(files, forms, strict=True)
    ]
    return Rows(table, list(dict.fromkeys(notes)) + _mended(table, system_prompt))


def _stored_row(
    file: ChatFile,
    form: ChatFormat,
    number: int,
    cells: Mapping[str, Any] | None,
    problem: str | None,
    system_prompt: str,
) -> dict[str, Any]:
    found = _conversation(form, cells, problem, system_prompt)
    row = vars(found) | {"id": f"{file.name}:{number}"}
    row["problem"] = found.problem and printable(found.problem)
    for role, column in [("group", form.group), ("split", form.split)]:
        if column is not None:
            row[role] = printable(cell_text((cells or {}).get(column)))
    return row


def _conversation(
    form: ChatFormat,
    cells: Mapping[str, Any] | None,
    problem: str | None,
    system_prompt: str,
    *,
    answers: bool = True,
) -> Conversation:
    """Returns what a row says, below the system prompt where it has none of its own."""
    found = Conversation([], problem) if problem else read_row(cells or {}, form, answers=answers)
    if system_prompt and found.messages and not found.own_system:
        missing = dict.fromkeys(placeholders(system_prompt))
        text = fill_prompt(system_prompt, missing | dict(cells or {}))
        found.messages.insert(0, {"role": "system", "content": text})
    return found


def _batch(rows: list[dict[str, Any]]) -> pyarrow.RecordBatch:
    kinds = {"messages": MESSAGES} | dict.fromkeys(MENDS, pyarrow.bool_())
    columns = {
        name: pyarrow.array([row[name] for row in rows], kinds.get(name, TEXT)) for name in rows[0]
    }
    spoken = [[m for m in row["messages"] if m["role"] != "system"] for row in rows]
    said = ["\0".join(f"{m['role']}\1{m['content']}" for m in row["messages"]) for row in rows]
    columns["key"] = content_keys(said).cast(KEY)
    prompts = [messages[0]["content"] if messages else "" for messages in spoken]
    columns["prompt"] = content_keys(prompts).cast(KEY)
    return pyarrow.RecordBatch.from_pydict(columns)


def _mended(table: pyarrow.Table, system_prompt: str) -> list[str]:
    """Returns sentences about what was changed in conversations."""
    counts = {name: pc.sum(table[name]).as_py() or 0 for name in MENDS}
    said = {
        "joined": "have neighbouring messages of the same role; they were joined with an empty "
        "line between them",
        "first": "begin with the assistant; its message before the first question was left out",
        "last": "end with a message of the user; it has no answer and was left out",
        "weight": "give a message the weight 0, which is not heeded: all answers count",
    }
    if system_prompt:
        said["own_system"] = "have a system message of their own and keep it; --system-prompt "
        said["own_system"] += "is that of all others"
    return [f"{counts[name]} conversations {what}." for name, what in said.items() if counts[name]]


def _usable(plan: SplitPlan, rows: Rows, on_bad: str) -> tuple[tuple, TextSource]:
    """Returns bad rows and a source of the good ones."""
    reasons = rows.table["problem"]
    places = np.flatnonzero(pc.is_valid(reasons).to_numpy())
    bad = bad_examples(plan, rows.table, {p: reasons[p].as_py() for p in places.tolist()}, on_bad)
    good = np.setdiff1d(np.arange(len(rows.table)), places)
    if not len(good):
        shown = shorten((f"{example.id} {example.reason}" for example in bad), 3)
        raise UserError(
            f"{plan.data} has no conversations that can be used: {shown}.",
            f"{USABLE}.",
            "Mend the rows.",
        )
    return bad, TextSource(rows.table, good, np.zeros(len(good), np.float32), ())


def _groups(
    source: TextSource, sides: np.ndarray | None, by_column: bool
) -> tuple[np.ndarray | None, list[str]]:
    """Returns what must stay on one side, and what a person should know about it.

    The first message of the user is a group, and the cell of the group column; both join rows.
    """
    prompts = fixed_width(source.table["prompt"])[source.rows]
    column = groups_of(source.table, source.rows) if by_column else None
    if sides is None:
        if column is None:
            return prompts.astype(str), []
        return _joined(prompts, column), []
    sentences = []
    prompt, number = np.unique(prompts, return_inverse=True)
    seen = np.zeros((len(prompt), 3), bool)
    seen[number, sides] = True
    keys = source.keys[sides != 0]
    shared = (seen.sum(1) > 1)[number] & (sides == 0) & ~np.isin(source.keys, keys)
    if shared.any():
        sentences.append(
            f"{shared.sum()} training conversations begin with the same question as others in "
            f"validation or test, for example {source.ids[int(np.flatnonzero(shared)[0])]}."
        )
    if column is not None:
        return column, sentences
    # The data's own splits stay as they are; validation may yet be split off training.
    return np.where(sides == 0, prompts.astype(str), ""), sentences


def _joined(prompts: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Returns one name for all rows that share a prompt or a cell, directly or through others."""
    first, prompt = np.unique(prompts, return_inverse=True)
    names, cell = np.unique(column, return_inverse=True)
    grouped = np.flatnonzero(column != "")
    size = len(first) + len(names)
    edges = scipy.sparse.coo_array(
        (np.ones(len(grouped), bool), (prompt[grouped], len(first) + cell[grouped])),
        shape=(size, size),
    )
    component = scipy.sparse.csgraph.connected_components(edges, directed=False)[1]
    # A component is called after its first cell, or after its prompt when it has none.
    called = np.where(column != "", column, prompts.astype(str))
    unit = component[prompt]
    order = np.lexsort((called, column == "", unit))
    _, start = np.unique(unit[order], return_index=True)
    _, number = np.unique(unit, return_inverse=True)
    return called[order[start]][number]
