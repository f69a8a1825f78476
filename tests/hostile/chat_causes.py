"""Damaged files of conversations."""

import json

from causes import BAD_CHATS, ENCODE, FILL, MEND_LINE, REWRITE, damage, unusable, write

from tfsft import data


def chats(folder, *more):
    good = [{"messages": [said("user", f"Hello {n}"), said("assistant", "Hi")]} for n in range(8)]
    text = "".join(json.dumps(row) + "\n" for row in [*good, *more])
    return write(folder, "chats.jsonl", text)


def said(role, content):
    return {"role": role, "content": content}


@damage(data.load_chats, "DIR/chats.jsonl is empty.", *FILL)
def chats_of_no_bytes(folder):
    return write(folder, "chats.jsonl", "")


@damage(data.load_chats, "DIR/chats.jsonl has no rows.", *FILL)
def chats_of_empty_lines(folder):
    return write(folder, "chats.jsonl", "\n\n")


@damage(
    data.load_chats,
    "DIR/chats.jsonl cannot be read: row 1 is an empty object",
    "A table with the names of its columns in the first line (CSV, TSV; UTF-8), "
    "one object a line (JSONL), a list of objects (JSON), or Parquet.",
    "Mend the file.",
)
def chats_of_empty_objects(folder):
    return write(folder, "chats.jsonl", "{}\n{}\n")


@damage(
    data.load_chats,
    "DIR/chats.jsonl cannot be read: row 1 does not parse as JSON: {a}",
    "A table with the names of its columns in the first line (CSV, TSV; UTF-8), "
    "one object a line (JSONL), a list of objects (JSON), or Parquet.",
    "Mend the file.",
)
def chats_of_broken_lines(folder):
    return write(folder, "chats.jsonl", "{a}\n{b}\n")


@damage(
    data.load_chats,
    unusable(
        "1 of 9 conversations in DIR/chats.jsonl",
        'chats.jsonl:9 does not parse as JSON: {"messages": [',
    ),
    *BAD_CHATS,
)
def chat_line_that_is_broken(folder):
    path = chats(folder)
    with open(path, "a") as file:
        file.write('{"messages": [\n')
    return path


@damage(data.load_chats, "DIR/chats.jsonl does not parse as JSON: it is nested too deep", *REWRITE)
def chats_nested_too_deep(folder):
    return write(folder, "chats.jsonl", "[" * 100_000 + "\n")


@damage(
    data.load_chats,
    unusable(
        "1 of 9 conversations in DIR/chats.jsonl",
        'chats.jsonl:9 does not parse as JSON: {"messages": '
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[ ...",
    ),
    *BAD_CHATS,
)
def chat_line_nested_too_deep(folder):
    path = chats(folder)
    with open(path, "a") as file:
        file.write('{"messages": ' + "[" * 100_000 + "\n")
    return path


@damage(
    data.load_chats,
    unusable(
        "1 of 9 conversations in DIR/chats.jsonl",
        "chats.jsonl:9 is neither an object nor a list of messages: 7",
    ),
    *BAD_CHATS,
)
def chat_line_that_is_a_number(folder):
    return chats(folder, 7)


@damage(
    data.load_chats,
    unusable(
        "1 of 9 conversations in DIR/chats.jsonl",
        "chats.jsonl:9 has the unknown role 'robot' in message 2",
    ),
    *BAD_CHATS,
)
def unknown_role(folder):
    return chats(folder, {"messages": [said("user", "Hi"), said("robot", "Hello")]})


@damage(
    data.load_chats,
    unusable(
        "1 of 9 conversations in DIR/chats.jsonl",
        "chats.jsonl:9 has no role in message 2; its keys: content",
    ),
    *BAD_CHATS,
)
def no_role(folder):
    return chats(folder, {"messages": [said("user", "Hi"), {"content": "Hello"}]})


@damage(
    data.load_chats,
    unusable(
        "1 of 9 conversations in DIR/chats.jsonl",
        "chats.jsonl:9 has no content in message 2; its keys: role",
    ),
    *BAD_CHATS,
)
def no_content(folder):
    return chats(folder, {"messages": [said("user", "Hi"), {"role": "assistant"}]})


@damage(
    data.load_chats,
    unusable(
        "1 of 9 conversations in DIR/chats.jsonl", "chats.jsonl:9 has an empty answer (message 2)"
    ),
    *BAD_CHATS,
)
def empty_answer(folder):
    return chats(folder, {"messages": [said("user", "Hi"), said("assistant", " ")]})


@damage(
    data.load_chats,
    unusable(
        "1 of 9 conversations in DIR/chats.jsonl",
        "chats.jsonl:9 has an empty message of the user (message 1)",
    ),
    *BAD_CHATS,
)
def empty_question(folder):
    return chats(folder, {"messages": [said("user", None), said("assistant", "Hello")]})


@damage(
    data.load_chats,
    unusable("1 of 9 conversations in DIR/chats.jsonl", "chats.jsonl:9 has no answer"),
    *BAD_CHATS,
)
def question_without_answer(folder):
    return chats(folder, {"messages": [said("user", "Hi"), said("user", "Anybody?")]})


@damage(
    data.load_chats,
    unusable("1 of 9 conversations in DIR/chats.jsonl", "chats.jsonl:9 has no message of the user"),
    *BAD_CHATS,
)
def answer_without_question(folder):
    return chats(folder, {"messages": [said("assistant", "Hi")]})


@damage(
    data.load_chats,
    unusable("1 of 9 conversations in DIR/chats.jsonl", "chats.jsonl:9 has no message of the user"),
    *BAD_CHATS,
)
def system_message_alone(folder):
    return chats(folder, {"messages": [said("system", "Be kind.")]})


@damage(
    data.load_chats,
    unusable(
        "1 of 9 conversations in DIR/chats.jsonl",
        "chats.jsonl:9 has a system message after others (message 2)",
    ),
    *BAD_CHATS,
)
def system_message_after_others(folder):
    late = [said("user", "Hi"), said("system", "Be kind."), said("assistant", "Hello")]
    return chats(folder, {"messages": late})


@damage(
    data.load_chats,
    unusable(
        "1 of 9 conversations in DIR/chats.jsonl",
        "chats.jsonl:9 calls a tool in message 2; conversations are text only",
    ),
    *BAD_CHATS,
)
def call_of_a_tool(folder):
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    return chats(folder, {"messages": [said("user", "Hi"), call]})


@damage(
    data.load_chats,
    unusable(
        "1 of 9 conversations in DIR/chats.jsonl",
        "chats.jsonl:9 has a part of type 'image_url' in its message 1, and not text",
    ),
    *BAD_CHATS,
)
def picture_in_a_message(folder):
    parts = [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": "x"}}]
    return chats(folder, {"messages": [said("user", parts), said("assistant", "Nice")]})


@damage(
    data.load_chats,
    unusable(
        "1 of 9 conversations in DIR/chats.jsonl",
        "chats.jsonl:9 has a message 1 that is no text: {'a': 1}",
    ),
    *BAD_CHATS,
)
def content_that_is_an_object(folder):
    return chats(folder, {"messages": [said("user", {"a": 1}), said("assistant", "Hello")]})


@damage(
    data.load_chats,
    unusable(
        "1 of 9 conversations in DIR/chats.jsonl",
        "chats.jsonl:9 has a message 1 that is no object: 'Hi'",
    ),
    *BAD_CHATS,
)
def message_that_is_a_text(folder):
    return chats(folder, {"messages": ["Hi", "Hello"]})


@damage(
    data.load_chats,
    unusable(
        "1 of 9 conversations in DIR/chats.jsonl",
        "chats.jsonl:9 has a 'messages' that is no list of messages",
    ),
    *BAD_CHATS,
)
def messages_that_are_a_number(folder):
    return chats(folder, {"messages": 7})


@damage(
    data.load_chats,
    unusable(
        "1 of 9 conversations in DIR/chats.jsonl", "chats.jsonl:9 has a 'messages' that is empty"
    ),
    *BAD_CHATS,
)
def messages_that_are_none(folder):
    return chats(folder, {"messages": []})


@damage(
    data.load_chats,
    unusable(
        "1 of 9 conversations in DIR/chats.jsonl", "chats.jsonl:9 has no 'messages'; it has chat"
    ),
    *BAD_CHATS,
)
def messages_that_are_missing(folder):
    return chats(folder, {"chat": []})


@damage(
    data.load_chats,
    unusable(
        "1 of 9 conversations in DIR/chats.jsonl",
        "chats.jsonl:9 has half a character (a surrogate) in its message 1",
    ),
    *BAD_CHATS,
)
def message_with_half_a_character(folder):
    return chats(folder, {"messages": [said("user", "\ud83d"), said("assistant", "Hello")]})


@damage(
    data.load_chats,
    "DIR/chats.jsonl, row 1: no conversation found in it. Its columns: a, c, e.",
    'Rows such as {"messages": [{"role": "user", "content": "Hi"}, {"role": '
    '"assistant", "content": "Hello!"}]}, {"conversations": [{"from": "human", '
    '"value": "Hi"}, {"from": "gpt", "value": "Hello!"}]}, {"instruction": "Greet '
    'me", "output": "Hello!"} or {"prompt": "Hi", "completion": "Hello!"}; a table '
    "with two columns, question and answer.",
    "Rename the columns, or name them: --prompt-column and --answer-column.",
)
def chats_without_known_columns(folder):
    return write(folder, "chats.jsonl", '{"a": "b", "c": "d", "e": "f"}\n' * 4)


@damage(
    data.load_chats,
    "The first line of DIR/chats.csv is an example and not the names of the columns: How are you?",
    "A first line such as question,answer.",
    "Write the names of the columns above the first row.",
)
def chats_in_a_table_without_header(folder):
    return write(folder, "chats.csv", "How are you?,Fine.\n" + "Who are you?,Me.\n" * 3)


@damage(
    data.load_chats,
    unusable("1 of 9 conversations in DIR/chats.csv", "chats.csv:10 has an empty answer"),
    *BAD_CHATS,
)
def chats_in_a_table_with_an_empty_answer(folder):
    rows = "".join(f"Question {n}?,Answer {n}\n" for n in range(8))
    return write(folder, "chats.csv", f"question,answer\n{rows}Why?,\n")


@damage(
    data.load_chats,
    "DIR/chats.json holds no list of conversations.",
    'A list of objects, or {"data": [...]}.',
    "Write the conversations into a list.",
)
def json_of_no_chats(folder):
    return write(folder, "chats.json", '"Hello"')


@damage(data.load_chats, "DIR/chats.json does not parse as JSON, line 1: [...]", *MEND_LINE)
def chats_in_json_that_ends_early(folder):
    return write(folder, "chats.json", '[{"messages": [')


@damage(
    data.load_chats,
    "Too few different conversations in DIR/chats.jsonl to split them: all of them.",
    "At least 3 different conversations of each class, one for every split.",
    "Add conversations, remove these classes, or make fewer splits: --test-fraction 0.",
)
def too_few_chats(folder):
    text = json.dumps({"prompt": "Hi", "completion": "Hello"}) + "\n"
    return write(folder, "chats.jsonl", text * 5)


@damage(
    data.read_questions,
    "DIR/chats.jsonl, row 1 ends with an answer, and not with a message of the user.",
    "A question in every row; text with commas stands in quotation marks.",
    "Mend or remove the row.",
)
def question_to_predict_with_an_answer(folder):
    row = {"messages": [said("user", "Hi"), said("assistant", "Hello")]}
    return write(folder, "chats.jsonl", json.dumps(row) + "\n")


@damage(
    data.read_questions,
    "DIR/chats.csv, row 3 has an empty prompt.",
    "A question in every row; text with commas stands in quotation marks.",
    "Mend or remove the row.",
)
def question_to_predict_that_is_empty(folder):
    return write(folder, "chats.csv", "prompt,id\nHi,1\n ,2\n")


@damage(
    data.load_chats,
    "DIR/chats.jsonl is text in an encoding that is not known, or ends early.",
    *ENCODE,
)
def chats_in_half_utf_16(folder):
    text = json.dumps({"prompt": "Hi", "completion": "Hello"})
    return write(folder, "chats.jsonl", text.encode("utf-16")[:-1])


@damage(
    data.load_chats,
    unusable(
        "1 of 9 conversations in DIR/chats.jsonl", "chats.jsonl:9 has no 'messages'; it has \\ud83d"
    ),
    *BAD_CHATS,
)
def name_with_half_a_character(folder):
    return chats(folder, {"\ud83d": []})
