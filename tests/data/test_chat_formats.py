"""Rows of many kinds become the same conversation; what cannot be used is said of its row."""

import json

import pytest

from tfsft.data.chat_files import open_chat_file
from tfsft.data.chat_formats import ChatFormat, find_format, read_row
from tfsft.errors import UserError

GREETING = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello!"},
]
OPENAI = {"messages": GREETING}
SHAREGPT = {
    "conversations": [
        {"from": "system", "value": "Be kind."},
        {"from": "human", "value": "Hi"},
        {"from": "gpt", "value": "Hello!"},
    ]
}
PARTS = {
    "messages": [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]},
        {"role": "assistant", "content": "Hello!\n", "tool_calls": None},
    ]
}
FORM = ChatFormat(messages="messages")
SAME = {
    "openai": OPENAI,
    "sharegpt": SHAREGPT,
    "parts": PARTS,
    "sharegpt_system": {"system": "Be kind.", "conversations": SHAREGPT["conversations"][1:]},
    "as_text": {"id": 3, "messages": json.dumps(GREETING)},
    "lists": {
        "chat": {
            "role": ["system", "user", "assistant"],
            "content": ["Be kind.", "Hi", "Hello!"],
        }
    },
    "alpaca": {"instruction": "Hi", "input": "", "output": "Hello!", "system": "Be kind."},
    "prompt_lists": {"prompt": GREETING[:2], "completion": GREETING[2:]},
    "prompt": {"system_prompt": "Be kind.", "prompt": "Hi", "completion": " Hello!"},
    "question": {"System": "Be kind.", "Question": "Hi", "Answer": "Hello!", "other": 3},
}


def read(path, **options):
    file = open_chat_file(str(path))
    form = find_format(file, **options)
    return [read_row(cells, form) for _, cells, problem in file.read(None) if not problem]


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def said(row, **options):
    """Returns what a list of messages becomes: (roles and contents, what was mended)."""
    found = read_row({"messages": row}, FORM, **options)
    pairs = [(message["role"][0], message["content"]) for message in found.messages]
    mends = {name for name in ("joined", "first", "last") if getattr(found, name)}
    return found.problem or pairs, mends


def user(text):
    return {"role": "user", "content": text}


def bot(text):
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize("name", SAME)
def test_the_same_conversation_in_many_formats(tmp_path, name):
    path = lines(tmp_path / "x.jsonl", [SAME[name]] * 3)
    assert [found.messages for found in read(path)] == [GREETING] * 3
    whole = tmp_path / "x.json"
    whole.write_text(json.dumps([SAME[name]], indent=1))
    assert [found.messages for found in read(whole)] == [GREETING]


@pytest.mark.parametrize("name", ["openai", "sharegpt", "alpaca", "prompt_lists", "question"])
def test_parquet(tmp_path, name):
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([SAME[name]] * 2), path)
    assert [found.messages for found in read(path)] == [GREETING] * 2


@pytest.mark.parametrize(
    "content",
    [
        GREETING,  # one conversation
        [GREETING],
        {"messages": GREETING},
        {"data": [OPENAI]},
    ],
)
def test_lists_of_messages(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content))
    assert [found.messages for found in read(path)] == [GREETING]
    (tmp_path / "x.jsonl").write_text(f"{json.dumps(GREETING)}\n{json.dumps(GREETING)}\n")
    assert [found.messages for found in read(tmp_path / "x.jsonl")] == [GREETING] * 2


def test_lines_in_a_file_called_json(tmp_path):
    assert len(read(lines(tmp_path / "x.json", [OPENAI] * 4))) == 4


def test_alpaca_input_stands_below_the_instruction(tmp_path):
    path = lines(tmp_path / "x.jsonl", [{"instruction": "Add", "input": "2 and 3", "output": 5}])
    assert [m["content"] for m in read(path)[0].messages] == ["Add\n\n2 and 3", "5"]
    path = lines(tmp_path / "x.jsonl", [{"instruction": "Add", "context": "2", "response": "ok"}])
    assert read(path)[0].messages[0]["content"] == "Add\n\n2"
    assert read(path, elsewhere=["context"])[0].messages[0]["content"] == "Add"


def test_two_columns_of_any_name(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("id;Frage;Antwort\n1;Wie geht es?;Gut\n2;2 + 2?;4\n", encoding="cp1252")
    file = open_chat_file(str(path))
    form = find_format(file)
    assert (form.prompt, form.answer) == ("Frage", "Antwort")
    assert "--prompt-column" in form.describe(file)
    assert [m["content"] for m in read(path)[1].messages] == ["2 + 2?", "4"]
    swapped = find_format(file, prompt_column="Antwort", answer_column="Frage")
    assert (swapped.prompt, swapped.answer) == ("Antwort", "Frage")
    assert find_format(file, prompt_column="Antwort").answer == "Frage"
    assert find_format(file, answer_column="Antwort").prompt == "Frage"


def test_what_is_mended():
    assert said([user("a"), user("b"), bot("c"), bot("d")]) == (
        [("u", "a\n\nb"), ("a", "c\n\nd")],
        {"joined"},
    )
    assert said([bot("hi"), user("a"), bot("b")]) == ([("u", "a"), ("a", "b")], {"first"})
    assert said([user("a"), bot("b"), user("c")]) == ([("u", "a"), ("a", "b")], {"last"})
    empty = {"role": "system", "content": " "}
    assert said([empty, user("a"), bot("b")]) == ([("u", "a"), ("a", "b")], set())
    assert said([user("a")], answers=False) == ([("u", "a")], set())


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ([], "has a 'messages' that is empty"),
        ("Hello", "has a 'messages' that is no list of messages"),
        ([user("a")], "has no answer"),
        ([GREETING[0], bot("a")], "has no message of the user"),
        ([user("a"), bot(" ")], "has an empty answer (message 2)"),
        ([user(""), bot("a")], "has an empty message of the user (message 1)"),
        ([user("a"), GREETING[0], bot("b")], "has a system message after others (message 2)"),
        ([user("a"), {"role": "tool", "content": "b"}], "calls a tool in message 2"),
        ([user("a"), bot(None) | {"tool_calls": [{"id": "1"}]}], "calls a tool in message 2"),
        ([user("a"), {"role": "narrator", "content": "b"}], "the unknown role 'narrator'"),
        ([user("a"), {"speaker": "b"}], "has no role in message 2; its keys: speaker"),
        ([user("a"), {"role": "assistant", "texts": "b"}], "its keys: role, texts"),
        ([user([{"type": "image_url", "image_url": "x"}]), bot("b")], "part of type 'image_url'"),
        ([user({"a": 1}), bot("b")], "has a message 1 that is no text"),
        ([user("\ud83d"), bot("b")], "has half a character"),
        ([user("a"), "b"], "has a message 2 that is no object"),
    ],
)
def test_what_cannot_be_used(row, problem):
    assert problem in said(row)[0]


def test_a_row_of_another_format():
    assert (
        "has no 'messages'; it has prompt, answer"
        in read_row({"prompt": "a", "answer": "b"}, FORM).problem
    )


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        (
            [{"a": "x y", "b": "y z", "c": "z x"}],
            ["row 1", "a, b, c", '{"messages": [', "--prompt"],
        ),
        ([{"text": "once upon a time"}], ["row 1", "Its columns: text"]),
        ([{"chosen": GREETING, "rejected": GREETING}], ["chosen, rejected", "--prompt-column"]),
    ],
)
def test_no_conversation_found(tmp_path, rows, parts):
    with pytest.raises(UserError) as caught:
        read(lines(tmp_path / "x.jsonl", rows))
    for part in parts:
        assert part in str(caught.value)


def test_a_table_without_a_header(tmp_path):
    (tmp_path / "x.csv").write_text("What is the time?,It is noon.\nWho are you?,A bot.\n")
    with pytest.raises(UserError, match="is an example and not the names"):
        read(tmp_path / "x.csv")
