"""predictions.csv: order, quoting, and the way back."""

import csv

import numpy as np
import pytest

from tfsft.evaluation import (
    answer_predictions,
    order,
    read_predictions,
    tag_predictions,
    write_predictions,
    write_rows,
)


def test_confident_mistakes_first_then_unsure_hits(tmp_path):
    labels = np.array([0, 0, 1, 1, 0])
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.45, 0.55], [0.7, 0.3]])
    path = tmp_path / "predictions.csv"
    rows = write_predictions(path, list("vwxyz"), labels, probabilities, ("cat", "dog"))
    assert path.read_text() == (
        "id,label,prediction,probability\n"
        "w,cat,dog,0.8\nx,dog,cat,0.6\n"
        "y,dog,dog,0.55\nz,cat,cat,0.7\nv,cat,cat,0.9\n"
    )
    assert [row.index for row in rows] == [1, 2, 3, 4, 0]
    assert [row.correct for row in rows] == [False, False, True, True, True]
    assert list(tmp_path.iterdir()) == [path]


def test_equally_bad_rows_stay_in_order(tmp_path):
    rows = write_predictions(
        tmp_path / "p.csv", list("abc"), np.zeros(3, int), np.full((3, 2), 0.5), ("x", "y")
    )
    assert [row.id for row in rows] == ["a", "b", "c"]


AWKWARD = ["a,b.png", 'say "x".png', "two\nlines.png", "cr\r.png", "grün 猫.png", "=1+1", " x "]


def test_awkward_names_come_back(tmp_path):
    path = tmp_path / "p.csv"
    labels = np.arange(len(AWKWARD))
    write_predictions(path, AWKWARD, labels, np.eye(len(AWKWARD), dtype=np.float32), AWKWARD)
    back = read_predictions(path)
    assert [row.id for row in back] == AWKWARD
    assert [row.label for row in back] == AWKWARD
    assert all(row.correct and row.probability == 1.0 for row in back)
    with open(path, newline="", encoding="utf-8") as file:  # another reader
        assert [row["id"] for row in csv.DictReader(file)] == AWKWARD


def test_a_file_name_that_is_no_text_does_not_stop_the_run(tmp_path):
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    write_predictions(tmp_path / "p.csv", [name], np.array([0]), np.array([[1.0]]), ("a",))
    assert read_predictions(tmp_path / "p.csv")[0].id == r"caf\udce9.png"


def test_several_labels(tmp_path):
    path = tmp_path / "p.csv"
    labels = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 0]], np.float32)
    probabilities = np.array([[0.9, 0.8, 0.1], [0.1, 0.2, 0.1], [0.9, 0.1, 0.6]])
    write_predictions(path, list("abc"), labels, probabilities, ("x", "y", "z"), kind="multi")
    assert path.read_text() == (
        "id,label,prediction,probability\nc,x,x|z,0.486\na,x|y,x|y,0.648\nb,,,0.648\n"
    )
    assert [row.correct for row in read_predictions(path)] == [False, True, True]


def test_regression_largest_error_first(tmp_path):
    path = tmp_path / "p.csv"
    outputs = np.array([[1.5], [0.0], [10.0]], np.float32)
    write_predictions(path, list("abc"), np.array([1, 3, 10.0]), outputs, kind="regression")
    assert path.read_text() == "id,label,prediction,error\nb,3,0,-3\na,1,1.5,0.5\nc,10,10,0\n"
    assert [row.error for row in read_predictions(path)] == [-3.0, 0.5, 0.0]


@pytest.mark.parametrize("kind", ["single", "multi", "regression"])
def test_without_labels_the_order_stays(tmp_path, kind):
    outputs = np.array([[0.2, 0.8], [0.6, 0.4]]) if kind != "regression" else np.array([5.0, 7.0])
    path = tmp_path / "p.csv"
    rows = write_predictions(path, ["a", "b"], None, outputs, ("x", "y"), kind=kind)
    assert [(row.id, row.label) for row in rows] == [("a", None), ("b", None)]
    assert [row.id for row in read_predictions(path)] == ["a", "b"]


def test_nothing_to_write_is_an_empty_table(tmp_path):
    path = tmp_path / "p.csv"
    assert write_predictions(path, [], np.zeros(0, int), np.zeros((0, 2)), ("x", "y")) == []
    assert read_predictions(path) == []


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "p.csv"
    path.write_text("old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        write_predictions(path, ["a"], np.array([0]), np.array([[1.0]]), ("x",))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_lengths_must_agree(tmp_path):
    with pytest.raises(ValueError, match="2 ids"):
        write_predictions(tmp_path / "p.csv", ["a", "b"], None, np.array([[1.0]]), ("x",))


TEXTS = ['two\nlines, a "quote"', "cr\r and \t tab", "猫 سلام 👩\u200d💻 \u2028", "x" * 300_000, ""]


def test_texts_come_back_whole(tmp_path):
    path = tmp_path / "p.csv"
    labels = np.zeros(len(TEXTS), int)
    outputs = np.tile([0.9, 0.1], (len(TEXTS), 1))
    write_predictions(path, list("abcde"), labels, outputs, ("x", "y"), texts=TEXTS)
    assert path.read_text().startswith("id,label,prediction,probability,text\n")
    assert [row.text for row in read_predictions(path)] == TEXTS
    assert csv.field_size_limit() < 300_000  # as others have it


def test_pairs_are_read_one_below_the_other(tmp_path):
    path = tmp_path / "p.csv"
    write_predictions(
        path, ["a"], np.array([2.5]), np.array([2.0]), kind="regression", texts=[("one", "two")]
    )
    assert path.read_text() == 'id,label,prediction,error,text\na,2.5,2,-0.5,"one\ntwo"\n'
    assert read_predictions(path)[0].error == -0.5


def test_entities_are_right_where_they_are_found(tmp_path):
    text = "May met  Ann\nLee in May"
    month, name = (20, 23, "DATE"), (9, 16, "PER")
    rows = order(
        tag_predictions(
            ["a", "b", "c"],
            [text] * 3,
            [[month, name], [month], []],
            [[name, month], [(0, 3, "DATE")], []],  # b: the same word, elsewhere
            [0.7, 0.9, 0.5],
        )
    )
    assert [row.id for row in rows] == ["b", "c", "a"]
    assert [row.correct for row in rows] == [False, True, True]
    assert (rows[0].label, rows[0].prediction) == ("DATE: May", "DATE: May")
    assert rows[2].label == "PER: Ann Lee | DATE: May"
    write_rows(tmp_path / "p.csv", rows, kind="tags")
    back = read_predictions(tmp_path / "p.csv")
    for row, again in zip(rows, back, strict=True):
        for field in ("id", "label", "prediction", "probability", "text", "correct"):
            assert getattr(row, field) == getattr(again, field)
        assert row.label_spans == again.label_spans
        assert row.prediction_spans == again.prediction_spans
    with open(tmp_path / "p.csv", newline="", encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    assert (row["correct"], row["label_spans"]) == ("no", '[[20, 23, "DATE"]]')


def test_any_of_several_answers_is_right(tmp_path):
    texts = [("Who won?", "The Broncos of Denver won. The Broncos!")] * 4
    rows = answer_predictions(
        list("abcd"),
        texts,
        [["Denver", "The Broncos"], ["Denver"], [], []],
        ["broncos", "Broncos", "", "Denver"],
        [0.9, 0.8, 0.7, 0.6],
        predicted_starts=[None, 31, None, None],
    )
    assert [row.correct for row in rows] == [True, False, True, False]
    assert [row.label for row in rows] == ["Denver", "Denver", "", ""]
    assert rows[0].text == "Who won?\nThe Broncos of Denver won. The Broncos!"
    marked = [[r.text[a:b] for a, b, _ in (*r.label_spans, *r.prediction_spans)] for r in rows]
    assert marked == [["Denver"], ["Denver", "Broncos"], [], ["Denver"]]
    assert rows[1].prediction_spans == ((9 + 31, 9 + 38, ""),)
    rows = order(rows)
    assert [row.id for row in rows] == ["b", "d", "c", "a"]
    write_rows(tmp_path / "p.csv", rows, kind="answers")
    assert [row.correct for row in read_predictions(tmp_path / "p.csv")] == [False] * 2 + [True] * 2


def test_without_answers_known_nothing_is_right_or_wrong(tmp_path):
    rows = answer_predictions(["a"], [("q", "c")], None, ["c"], [0.5])
    rows += tag_predictions(["b"], ["c"], None, [[(0, 1, "X")]], [0.5])
    assert [(row.label, row.right) for row in rows] == [(None, None)] * 2
    write_rows(tmp_path / "p.csv", rows, kind="answers")
    assert "correct" not in (tmp_path / "p.csv").read_text()
    with pytest.raises(ValueError, match="2 ids, 1 texts"):
        tag_predictions(["a", "b"], ["c"], None, [[]], [0.5])
