"""Damaged tables of texts in JSON and Parquet."""

import json
import os

import pyarrow
import pyarrow.parquet
from causes import BAD_TEXTS, FILL, MEND_LINE, PLAIN, REWRITE, SAVE_AGAIN, damage, unusable, write
from text_causes import FILMS, LABELS

from tfsft import data

LINES = [
    json.dumps({"text": text, "label": label}) for text, label in zip(FILMS, LABELS, strict=True)
]


def lines(*more: str) -> str:
    return "".join(f"{line}\n" for line in [*LINES, *more])


def parquet(folder, **columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "data.parquet")
    return os.fspath(folder / "data.parquet")


@damage(
    data.load_texts,
    unusable(
        "1 of 13 texts in DIR/data.jsonl",
        'data.jsonl:13 does not parse as JSON: {"text": "A text", "label":',
    ),
    *BAD_TEXTS,
)
def json_line_that_is_broken(folder):
    return write(folder, "data.jsonl", lines('{"text": "A text", "label": '))


@damage(
    data.load_texts,
    unusable(
        "1 of 13 texts in DIR/data.jsonl",
        'data.jsonl:13 does not parse as JSON: {"text": "A text", "label": "good",}',
    ),
    *BAD_TEXTS,
)
def json_line_with_a_comma_too_many(folder):
    return write(folder, "data.jsonl", lines('{"text": "A text", "label": "good",}'))


@damage(
    data.load_texts,
    unusable("1 of 13 texts in DIR/data.jsonl", 'data.jsonl:13 is no object: ["A text", "good"]'),
    *BAD_TEXTS,
)
def json_line_that_is_a_list(folder):
    return write(folder, "data.jsonl", lines('["A text", "good"]'))


@damage(
    data.load_texts,
    "DIR/data.jsonl, line 13: 'label' is a number (1), but text in line 1.",
    "One kind of value in each field.",
    "Write all of them the same way, for example with quotation marks.",
)
def json_line_with_another_kind_of_label(folder):
    return write(folder, "data.jsonl", lines('{"text": "A text", "label": 1}'))


@damage(
    data.load_texts,
    unusable("1 of 13 texts in DIR/data.jsonl", "data.jsonl:13 has no text"),
    *BAD_TEXTS,
)
def json_line_with_null(folder):
    return write(folder, "data.jsonl", lines('{"text": null, "label": "good"}'))


@damage(
    data.load_texts,
    unusable("1 of 13 texts in DIR/data.jsonl", "data.jsonl:13 has no label"),
    *BAD_TEXTS,
)
def json_line_without_label(folder):
    return write(folder, "data.jsonl", lines('{"text": "A text"}'))


@damage(
    data.load_texts,
    unusable(
        "1 of 13 texts in DIR/data.jsonl",
        'data.jsonl:13 has half a character (a surrogate): {"text": "\\ud83d", "label": "good"}',
    ),
    *BAD_TEXTS,
)
def json_line_with_half_a_character(folder):
    return write(folder, "data.jsonl", lines('{"text": "\\ud83d", "label": "good"}'))


@damage(
    data.load_texts,
    "The label in column 'label' of DIR/data.jsonl is a list: ['a', 'b']",
    "A single text or number in each row.",
    "Several labels an example are read with --multi-label.",
)
def json_line_with_a_list_of_labels(folder):
    return write(folder, "data.jsonl", '{"text": "A text", "label": ["a", "b"]}\n' * 3)


@damage(
    data.load_texts, "The label in column 'label' of DIR/data.jsonl is an object: {'a': 1}", *PLAIN
)
def json_line_with_an_object_as_label(folder):
    return write(folder, "data.jsonl", '{"text": "A text", "label": {"a": 1}}\n' * 3)


@damage(
    data.load_texts,
    "DIR/data.jsonl cannot be read: no line holds an object: line 1 is no object: 1",
    *SAVE_AGAIN,
)
def json_lines_that_are_no_objects(folder):
    return write(folder, "data.jsonl", "1\n2\n")


@damage(data.load_texts, "DIR/data.json does not parse as JSON, line 1: [...]", *MEND_LINE)
def json_that_ends_early(folder):
    return write(folder, "data.json", f"[{', '.join(LINES)}, ")


@damage(
    data.load_texts,
    'DIR/data.json does not parse as JSON, line 2: Extra data: {"text": "The film '
    'number 1 was bad.", "label": "bad"}',
    *MEND_LINE,
)
def json_lines_called_json(folder):
    return write(folder, "data.json", lines())


@damage(
    data.load_texts,
    'DIR/data.json cannot be read: it is no list of objects, and no {"data": [...]}',
    *SAVE_AGAIN,
)
def json_of_one_object(folder):
    return write(folder, "data.json", '{"rows": 3}')


@damage(
    data.load_texts,
    unusable("1 of 13 texts in DIR/data.json", "data.json:13 is no object: 7"),
    *BAD_TEXTS,
)
def json_with_a_number_as_row(folder):
    return write(folder, "data.json", f"[{', '.join([*LINES, '7'])}]")


@damage(data.load_texts, "DIR/data.json does not parse as JSON: it is nested too deep", *REWRITE)
def json_nested_too_deep(folder):
    return write(folder, "data.json", "[" * 100_000)


@damage(
    data.load_texts,
    unusable(
        "1 of 13 texts in DIR/data.json",
        "data.json:13 has half a character (a surrogate): {'text': 'A \\ud83d text', "
        "'label': 'good'}",
    ),
    *BAD_TEXTS,
)
def json_with_half_a_character(folder):
    row = '{"text": "A \\ud83d text", "label": "good"}'
    return write(folder, "data.json", f"[{', '.join([*LINES, row])}]")


@damage(data.load_texts, "DIR/data.json does not parse as JSON: Exceeds[...]", *REWRITE)
def json_with_a_number_too_long(folder):
    row = '{"text": "A text", "label": ' + "1" * 5000 + "}"
    return write(folder, "data.json", f"[{', '.join([*LINES, row])}]")


@damage(data.load_texts, "DIR/data.json has no rows.", *FILL)
def json_of_no_rows(folder):
    return write(folder, "data.json", "[]")


@damage(data.load_texts, "DIR/data.parquet cannot be read: [...]", *SAVE_AGAIN)
def texts_of_parquet_cut_off(folder):
    path = parquet(folder, text=FILMS, label=LABELS)
    with open(path, "rb") as file:
        content = file.read()
    return write(folder, "data.parquet", content[:-20])


@damage(data.load_texts, "DIR/data.parquet cannot be read: [...]", *SAVE_AGAIN)
def texts_of_parquet_with_damaged_pages(folder):
    path = parquet(folder, text=FILMS, label=LABELS)
    with open(path, "rb") as file:
        content = bytearray(file.read())
    content[10:60] = b"\xff" * 50
    return write(folder, "data.parquet", bytes(content))


@damage(
    data.load_texts,
    "The text in column 'text' of DIR/data.parquet is an object: {'de': 'The film "
    "number 0 was good.'}",
    *PLAIN,
)
def parquet_with_objects_as_texts(folder):
    return parquet(folder, text=[{"de": text} for text in FILMS], label=LABELS)


@damage(data.load_texts, "DIR/data.parquet has no rows.", *FILL)
def texts_of_parquet_without_rows(folder):
    return parquet(folder, text=pyarrow.array([], "string"), label=pyarrow.array([], "string"))


@damage(
    data.load_texts,
    unusable("1 of 13 texts in DIR/data.jsonl", "data.jsonl:1 is no object: null"),
    *BAD_TEXTS,
)
def json_lines_that_begin_with_null(folder):
    return write(folder, "data.jsonl", "null\n" + lines())


@damage(data.load_texts, "DIR/data.jsonl holds a value that is nested too deep.", *REWRITE)
def json_line_nested_too_deep(folder):
    return write(folder, "data.jsonl", lines('{"text": ' * 50_000 + "1" + "}" * 50_000))


@damage(data.load_texts, "DIR/data.parquet cannot be read: [...]", *SAVE_AGAIN)
def parquet_with_text_that_is_none(folder):
    letters = pyarrow.array([b"\xd4\x00"] * 12).view("string")
    return parquet(folder, text=letters, label=LABELS)


@damage(
    data.load_texts,
    "DIR/data.parquet cannot be read: two columns have the same name: text, text",
    *SAVE_AGAIN,
)
def parquet_with_one_name_twice(folder):
    rows = pyarrow.Table.from_arrays(
        [pyarrow.array(FILMS), pyarrow.array(LABELS)], ["text", "text"]
    )
    pyarrow.parquet.write_table(rows, folder / "data.parquet")
    return os.fspath(folder / "data.parquet")
