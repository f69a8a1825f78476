"""What people say of answers becomes rows that the recipes read."""

import base64
import io
import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests
from PIL import Image
from text_runs import TASKS

from tfsft import data
from tfsft.errors import UsageError
from tfsft.export.serving.feedback import FeedbackFile, FeedbackRequest, _row
from tfsft.export.serving.problems import Problem

NO_SPLIT = {"validation_fraction": 0.0, "test_fraction": 0.0}
CHAT = {"task": "chat", "labels": "chat", "class_names": []}


def written(path, task, *requests_):
    file = FeedbackFile(path)
    for request in requests_:
        file.add(_row(FeedbackRequest(**request), task))
    lines = path.read_bytes().splitlines()
    assert len(lines) == len(requests_)
    return [json.loads(line) for line in lines]


def test_texts(tmp_path, monkeypatch):
    monkeypatch.setenv("TFSFT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "feedback.jsonl"
    given = [
        {"text": "sun\nand “rain”, mail ada@b.de", "label": "weather"},
        {"text": "天气 \u2028 x", "label": "天气"},
    ]
    written(path, TASKS["texts"], *given)
    source = data.load_texts(
        str(path), task="single", class_names=("weather", "天气", "طقس"), **NO_SPLIT
    ).everything()
    assert source.column("text") == ["sun\nand “rain”, mail [e-mail]", "天气 \u2028 x"]
    assert source.labels.tolist() == [0, 1]


def test_pairs_with_several_labels_and_numbers(tmp_path, monkeypatch):
    monkeypatch.setenv("TFSFT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "pairs.jsonl"
    pairs = [{"text": f"a {i}", "pair": f"b {i}"} for i in range(3)]
    labels = [["weather", "طقس"], [], ["天气"]]
    written(path, TASKS["pairs"], *(p | {"label": y} for p, y in zip(pairs, labels, strict=True)))
    names = tuple(TASKS["pairs"]["class_names"])
    columns = {"text_column": "text", "text_pair_column": "pair"}
    source = data.load_texts(
        str(path), task="multi", class_names=names, **columns, **NO_SPLIT
    ).everything()
    assert source.labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert source.column("pair") == ["b 0", "b 1", "b 2"]

    path = tmp_path / "numbers.jsonl"
    written(path, TASKS["numbers"], {"text": "a", "label": 3}, {"text": "b", "label": -1.5})
    source = data.load_texts(str(path), task="regression", **NO_SPLIT).everything()
    np.testing.assert_array_equal(source.labels, np.float32([3, -1.5]))


def test_tags_move_with_what_was_taken_out(tmp_path, monkeypatch):
    monkeypatch.setenv("TFSFT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "feedback.jsonl"
    text = "😀 Ada (ada@b.de) went to New York."
    spans = [("Ada", "PER"), ("New York", "LOC")]
    spans = [{"start": text.index(w), "end": text.index(w) + len(w), "label": k} for w, k in spans]
    written(path, TASKS["tags"], {"text": text, "spans": spans}, {"text": "none here", "spans": []})
    source = data.load_tags(str(path), tags=tuple(TASKS["tags"]["tags"]), **NO_SPLIT).everything()
    assert source.column("text")[0] == "😀 Ada ([e-mail]) went to New York."
    starts, tags = source.column("starts")[0], source.column("tags")[0]
    found = {
        source.column("text")[0][s:].split()[0]: t for s, t in zip(starts, tags, strict=True) if t
    }
    assert found == {"Ada": 1, "New": 3, "York.": 4}


def test_questions(tmp_path, monkeypatch):
    monkeypatch.setenv("TFSFT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "feedback.jsonl"
    context = "Mail ada@b.de; the train was late."
    given = [
        {"question": "Who was late?", "context": context, "answer": "the train"},
        {"question": "Who was early?", "context": context, "answer": ""},
        {"question": "Which a?", "context": context, "answer": "a", "start": context.rindex("a")},
        {"question": "Whose is it?", "context": context, "answer": "ada"},
    ]
    written(path, TASKS["questions"], *given)
    source = data.load_questions(str(path), **NO_SPLIT).everything()
    context = "Mail [e-mail]; the train was late."
    assert source.column("context") == [context] * 4
    first, second, third, fourth = source.column("answers")
    assert [(a["text"], a["start"]) for a in third] == [("a", context.rindex("a"))]
    assert [(a["text"], a["start"]) for a in fourth] == [("[e-mail]", context.index("["))]
    assert [(a["text"], a["start"]) for a in first] == [("the train", context.index("the train"))]
    assert list(second) == []


def test_conversations_and_rewritings(tmp_path, monkeypatch):
    monkeypatch.setenv("TFSFT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "feedback.jsonl"
    messages = [
        {"role": "user", "content": "Call 555-123-4567"},
        {"role": "assistant", "content": "No."},
    ]
    written(path, CHAT, {"messages": messages})
    source = data.load_chats(str(path), **NO_SPLIT).everything()
    assert [m["content"] for m in source.column("messages")[0]] == ["Call [phone]", "No."]

    path = tmp_path / "rewritings.jsonl"
    task = {"task": "text_generation", "labels": "chat", "class_names": []}
    written(path, task, {"text": "a long text", "answer": "short"})
    source = data.load_chats(str(path), pair=data.REWRITING, **NO_SPLIT).everything()
    assert [m["content"] for m in source.column("messages")[0]] == ["a long text", "short"]


def test_pictures_lose_where_they_were_taken(serving, tmp_path):
    path = tmp_path / "mine.jsonl"
    running = serving("pictures", feedback=path)
    picture = Image.new("RGB", (60, 30), (250, 10, 10))
    exif = picture.getexif()
    exif[0x0112], exif[0x010F] = 6, "a camera of Ada"  # turned by a quarter
    file = io.BytesIO()
    picture.save(file, "JPEG", exif=exif)
    body = {"picture": base64.b64encode(file.getvalue()).decode(), "label": "b"}
    answer = requests.post(f"{running.url}/feedback", json=body, timeout=30)
    assert answer.status_code == 201
    for wrong in ({"picture": "aGVsbG8=", "label": "b"}, {"label": "b"}, body | {"label": "z"}):
        answer = requests.post(f"{running.url}/feedback", json=wrong, timeout=30)
        assert answer.status_code == 400, answer.text
    source = data.load_images(str(path), class_names=("a", "b", "c"), **NO_SPLIT).everything()
    assert source.labels.tolist() == [1]
    (kept,) = (tmp_path / "mine-pictures").iterdir()
    assert b"Ada" not in kept.read_bytes()
    assert Image.open(kept).size == (30, 60)
    assert requests.get(f"{running.url}/about", timeout=30).json()["feedback"] is True


def test_without_the_option_nothing_is_taken(serving):
    running = serving("texts", max_body=200_000, max_text=1000, timeout=3.0)
    body = {"text": "a", "label": "weather"}
    assert requests.post(f"{running.url}/feedback", json=body, timeout=30).status_code == 404


@pytest.mark.parametrize(
    ("task", "request_", "message"),
    [
        ("texts", {"text": "a"}, "one of 'weather'"),
        ("texts", {"text": "a", "label": "snow"}, "one of 'weather'"),
        ("texts", {"text": "a", "label": ["weather"]}, "one of 'weather'"),
        ("texts", {"label": "weather"}, "lacks 'text'"),
        ("texts", {"text": "\ud800", "label": "weather"}, "no valid UTF-8"),
        ("pairs", {"text": "a", "pair": "b", "label": "weather"}, "a list of"),
        ("numbers", {"text": "a", "label": "high"}, "a number"),
        ("numbers", {"text": "a", "label": float("nan")}, "a number"),
        ("tags", {"text": "a", "spans": [{"start": 0, "end": 2, "label": "PER"}]}, "in the text"),
        (
            "tags",
            {"text": "a", "spans": [{"start": 0, "end": 1, "label": "X"}]},
            "labels of the run",
        ),
        ("tags", {"spans": []}, "lacks 'text'"),
        (
            "tags",
            {
                "text": "a b",
                "spans": [
                    {"start": 2, "end": 3, "label": "PER"},
                    {"start": 0, "end": 3, "label": "LOC"},
                ],
            },
            "in two spans",
        ),
        ("questions", {"question": "q", "context": "c", "answer": "x"}, "a piece of"),
        ("questions", {"question": "q", "context": "cb", "answer": "c", "start": 1}, "a piece of"),
        ("questions", {"question": "q", "context": "c"}, "lacks 'answers'"),
        (None, {"messages": [{"role": "user", "content": "a"}]}, "end with the answer"),
        (
            None,
            {
                "messages": [
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": " "},
                ]
            },
            "empty answer",
        ),
    ],
)
def test_what_is_no_row(task, request_, message):
    with pytest.raises(Problem, match=message):
        _row(FeedbackRequest(**request_), TASKS.get(task, CHAT))


def test_lines_are_whole_whoever_writes(tmp_path):
    path = tmp_path / "feedback.jsonl"
    path.write_text('{"text": "older"}\n{"text": "cut of')  # somebody was killed
    file = FeedbackFile(path)
    other = os.fork()
    if other == 0:  # a process of its own, with the file opened anew
        for i in range(100):
            FeedbackFile(path).add({"text": "other " * 500, "i": i})
        os._exit(0)
    with ThreadPoolExecutor(4) as writers:
        while os.waitpid(other, os.WNOHANG) == (0, 0):
            list(writers.map(lambda i: file.add({"text": "mine " * 500, "i": i}), range(4)))
    lines = path.read_text().splitlines()
    assert lines[:2] == ['{"text": "older"}', '{"text": "cut of']
    rows = [json.loads(line) for line in lines[2:]]
    assert sum(row["text"].startswith("other") for row in rows) == 100
    assert sum(row["text"].startswith("mine") for row in rows) >= 4


def test_a_full_disk_leaves_no_half_line(tmp_path, monkeypatch):
    path = tmp_path / "feedback.jsonl"
    file = FeedbackFile(path)
    file.add({"text": "a"})
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, line: write(fd, line[:4]))
    with pytest.raises(OSError, match="full"):
        file.add({"text": "b"})
    monkeypatch.undo()
    file.add({"text": "c"})
    assert path.read_text() == '{"text": "a"}\n{"text": "c"}\n'
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_written_and_a_link_are_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot be written"):
        FeedbackFile(tmp_path / "no" / "feedback.jsonl")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="cannot be written"):
        FeedbackFile(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_wrong_and_not_known_better_is_kept_apart(serving, tmp_path):
    path = tmp_path / "feedback.jsonl"
    running = serving("texts", feedback=path)
    for wrong in (True, False):
        body = {"text": f"a {wrong}", "label": "weather", "wrong": wrong}
        assert requests.post(f"{running.url}/feedback", json=body, timeout=30).status_code == 201
    beside = path.with_name("feedback-wrong.jsonl")
    assert [json.loads(line)["text"] for line in path.read_text().splitlines()] == ["a False"]
    assert [json.loads(line)["text"] for line in beside.read_text().splitlines()] == ["a True"]
    assert beside.stat().st_mode & 0o777 == 0o600
