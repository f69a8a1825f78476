"""Whatever a file holds, its reader reads it or says in a message what is wrong.

Valid files are damaged at random: bits flipped, ends cut off, pieces taken out, doubled, or put in.
The quick test repeats itself exactly. A longer search, with other files every time:

    python -m pytest tests/hostile/test_fuzzing.py --hypothesis-profile long
"""

import contextlib
import io
import json
import os
import re
import resource
import shutil
import signal
import tempfile
from functools import partial
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from causes import write
from chat_causes import chats, said
from hypothesis import given, settings
from hypothesis import strategies as st
from json_causes import LINES
from picture_causes import encoded
from question_causes import squad
from run_causes import config, pictures_listed, task
from run_causes import settings as run_settings
from table_causes import ROWS
from tagged_causes import NAMES, rows, spans
from text_causes import CSV, FILMS, LABELS

from tfsft import data
from tfsft.data.images import decode_image, inspect_image
from tfsft.data.plain_texts import read_plain_texts
from tfsft.errors import UserError

SECONDS = 20  # that an example may take
MEGABYTES = 400  # that all of a reader's examples may take more than the first


def made(make, *more) -> bytes:
    """Returns the bytes that a function writes into a folder."""
    with tempfile.TemporaryDirectory() as folder:
        return Path(make(Path(folder), *more)).read_bytes()


def parquet(**columns) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


def look(path: str) -> None:
    """Looks at a picture, and decodes it if it looks good."""
    with open(path, "rb") as file:
        content = file.read()
    if inspect_image(content) is None:
        decode_image(content)


def task_of(path: str) -> None:
    from tfsft.export.predictor import read_task

    folder = Path(path).parent
    for name in ("config.json", "model.keras"):
        (folder / name).touch()
    read_task(folder)


PAIRS = "".join(f"Question {n}?,Answer {n}\n" for n in range(8))
TURNS = {"messages": [said("user", "Hi"), said("assistant", "Hello")]}
tags = data.load_tags
questions = data.load_questions
# By name: the file, valid contents of it, and its reader.
READERS = {
    "pictures": (
        "x.png",
        [
            *(encoded(n, kind) for n, kind in enumerate(("PNG", "JPEG", "GIF", "BMP", "WEBP"))),
            encoded(5, "PNG", (1, 1)),
        ],
        look,
    ),
    "picture-table": ("data.csv", [f"path,label\n{ROWS}".encode()], data.load_images),
    "picture-numbers": (
        "data.csv",
        [b"path;value\n" + b"".join(b"%d.png;%d.5\n" % (n, n) for n in range(8))],
        partial(data.load_images, task="regression"),
    ),
    "picture-lines": (
        "data.jsonl",
        [b"".join(b'{"path": "%d.png", "label": ["a", "b"]}\n' % n for n in range(8))],
        partial(data.load_images, task="multi"),
    ),
    "texts-csv": ("data.csv", [CSV.encode(), CSV.encode("utf-16")], data.load_texts),
    "texts-tsv": ("data.tsv", [CSV.replace(",", "\t").encode()], data.load_texts),
    "texts-numbers": (
        "data.csv",
        ["".join(["text|value\n", *(f"{t}|{n}\n" for n, t in enumerate(FILMS))]).encode()],
        partial(data.load_texts, task="regression"),
    ),
    "texts-jsonl": ("data.jsonl", ["\n".join(LINES).encode()], data.load_texts),
    "texts-json": (
        "data.json",
        [f"[{', '.join(LINES)}]".encode(), f'{{"data": [{", ".join(LINES)}]}}'.encode()],
        data.load_texts,
    ),
    "texts-several": (
        "data.json",
        [json.dumps([{"text": t, "labels": ["a", "b"]} for t in FILMS]).encode()],
        partial(data.load_texts, task="multi"),
    ),
    "texts-parquet": ("data.parquet", [parquet(text=FILMS, label=LABELS)], data.load_texts),
    "texts-to-predict": (
        "data.csv",
        [CSV.encode()],
        partial(read_plain_texts, columns=["text"]),
    ),
    "conll": ("names.conll", [NAMES.encode(), NAMES.replace(" ", "\t").encode()], tags),
    "tags-jsonl": ("names.jsonl", [made(rows), made(spans, (0, 3, "PER"))], tags),
    "squad": ("questions.json", [made(squad, {})], questions),
    "questions-jsonl": (
        "questions.jsonl",
        [
            b'{"question": "Who?", "context": "Ada %d", "answers": {"text": ["Ada"], '
            b'"answer_start": [0]}}\n' * 6
        ],
        questions,
    ),
    "chats-jsonl": ("chats.jsonl", [made(chats)], data.load_chats),
    "chats-json": ("chats.json", [json.dumps([TURNS] * 6).encode()], data.load_chats),
    "chats-csv": ("chats.csv", [f"question,answer\n{PAIRS}".encode()], data.load_chats),
    "chats-to-answer": ("chats.csv", [f"prompt,id\n{PAIRS}".encode()], data.read_questions),
    "config": ("config.json", [made(config)], run_settings),
    "task": ("task.json", [made(task)], task_of),
    "list-of-pictures": ("list.csv", [f"path,label\n{ROWS}".encode()], pictures_listed),
}
AWKWARD = [
    *(b'"', b"'", b",", b";", b"\t", b"|", b"\n", b"\r", b"\0", b" ", b"\xff", b"\x80", b"\x1a"),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\xbd", b"\xe2\x80\xa8", b"\\ud83d", b"\\u0000"),
    *(b"null", b"true", b"NaN", b"Infinity", b"-1", b"1e999", b"9" * 25, b"1.5", b'""', b"."),
    *(b"[]", b"{}", b"[[]]", b'{"a": 1}', b'["a", 1]', b"[" * 2000, b"B-PER", b"../x", b"O"),
]
TOKEN = re.compile(rb'"[^"\n]*"|[\w.-]+|\s+|.', re.DOTALL)


@st.composite
def damaged(draw, seeds):
    """Draws bytes of a file: a valid one with a few edits, or anything."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    content = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(content) - 1)))
        end = start + draw(st.integers(1, 40))
        kind = draw(st.sampled_from(["flip", "cut", "out", "twice", "in", "instead", "token"]))
        new = draw(st.sampled_from(AWKWARD))
        if kind == "flip":
            flipped = bytes(b ^ draw(st.integers(1, 255)) for b in content[start : start + 1])
            content = content[:start] + flipped + content[start + 1 :]
        elif kind == "cut":
            content = content[:start]
        elif kind == "out":
            content = content[:start] + content[end:]
        elif kind == "twice":
            content = content[:end] + content[start:]
        elif kind == "in":
            content = content[:start] + new + content[start:]
        elif kind == "instead":
            content = content[:start] + new + content[end:]
        elif tokens := TOKEN.findall(content):
            tokens[draw(st.integers(0, len(tokens) - 1))] = new
            content = b"".join(tokens)
    return content


class Hanging(BaseException):
    pass


@contextlib.contextmanager
def no_longer_than(seconds):
    def stop(*_):
        raise Hanging(f"took more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def check(name, monkeypatch, tmp_path, **options):
    """Gives damaged files to a reader."""
    file, seeds, read = READERS[name]
    for number in range(8):
        write(tmp_path, f"{number}.png", encoded(number))
    cache = tmp_path / "cache"
    monkeypatch.setenv("TFSFT_CACHE", str(cache))
    started = []

    @settings(**options)
    @given(damaged(seeds))
    def gives_a_message(content):
        path = write(tmp_path, file, content)
        with no_longer_than(SECONDS):
            with contextlib.suppress(UserError):
                read(path)
        shutil.rmtree(cache, ignore_errors=True)
        os.unlink(path)
        started.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

    gives_a_message()
    assert started[-1] - started[0] < MEGABYTES * 1024


@pytest.mark.parametrize("name", READERS)
def test_every_file_is_read_or_explained(name, monkeypatch, tmp_path):
    check(name, monkeypatch, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_many_more_files(name, monkeypatch, tmp_path):
    check(name, monkeypatch, tmp_path, max_examples=200)
