"""A look at texts: counts, lengths, copies, and letters of a wrong encoding."""

import csv

from tfsft import data


def load(tmp_path, rows, name="x.csv", columns=("text", "label")):
    with open(tmp_path / name, "w", newline="", encoding="utf8") as file:
        csv.writer(file).writerows([columns, *rows])
    return data.load_texts(str(tmp_path / name), text_column="text")


def test_counts_lengths_and_problems(tmp_path):
    rows = [(f"one two {n}", "ab"[n % 2]) for n in range(40)]
    rows += [("...!", "a"), ("cafÃ© ok", "a"), ("kaputt \ufffd", "a"), ("one two 2", "a")]
    rows += [("很好", "c"), ("不好", "c"), ("😀", "c"), ("a " * 30, "c")]
    found = data.inspect(load(tmp_path, rows))
    assert sum(part["a"] for part in found.counts.values()) == 24
    assert found.characters == (1, 10, 60)
    assert found.words == (0, 3, 30)
    assert found.wordless == ("x.csv:42",)
    assert sorted(found.garbled) == ["x.csv:43", "x.csv:44"]
    assert set(found.near_empty) == {"c"}
    assert [set(ids) for ids in found.duplicates] == [{"x.csv:4", "x.csv:45"}]
    problems = " ".join(found.problems())
    for part in ["punctuation alone", "wrong encoding", "exact copies", "fewer than 10"]:
        assert part in problems
    assert any("30 words" in line for line in found.summary())


def test_nothing_to_say(tmp_path):
    splits = load(tmp_path, [(f"one two {n}", "ab"[n % 2]) for n in range(60)])
    assert data.inspect(splits).problems() == []


def test_tags_and_questions():
    assert data.inspect(data.load_tags("sample")).problems() == []
    found = data.inspect(data.load_questions("sample"))
    assert found.words[0] > 25
    assert set(found.counts["train"]) == {"no answer", "answer"}
