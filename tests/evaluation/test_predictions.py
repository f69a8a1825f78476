"""predictions.csv: order, quoting, and the way back."""

import csv

import numpy as np
import pytest

from tfsft.evaluation import read_predictions, write_predictions


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
