"""Texts without labels from a table, under the names that labelled data has."""

import pytest

from tfsft.data.plain_texts import read_plain_texts


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("number,review", ("text",)),
        ("premise,hypothesis,number", ("text", "pair")),
        ("number,text,pair", ("text", "pair")),
        ("id,question,passage", ("question", "context")),
    ],
)
def test_columns_are_found(tmp_path, header, columns):
    path = tmp_path / "new.csv"
    path.write_text(f"{header}\n1,two,three\n" if header.count(",") == 2 else f"{header}\n1,two\n")
    cells, ids = read_plain_texts(str(path), columns)
    assert ids == ["new.csv:2"]
    expected = ["1", "two"] if header.startswith("premise") else ["two", "three"]
    assert [cells[column] for column in columns] == [[e] for e in expected[: len(columns)]]
