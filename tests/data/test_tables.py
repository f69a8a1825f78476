"""Tables of paths and labels: what is found in them, and what is refused."""

import json
import os

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from tfsft.data.tables import list_table, read_table
from tfsft.errors import UserError

ROWS = [("a/1.png", "cat"), ("a/2.png", "dog"), ("b/3.png", "cat")]


@pytest.fixture
def table(tmp_path):
    """Writes a text file and returns its path."""

    def write(text, name="data.csv", **options):
        path = tmp_path / name
        path.write_text(text, **{"encoding": "utf-8", "newline": "", **options})
        return str(path)

    return write


def write_rows(tmp_path, kind, columns):
    path = tmp_path / f"data.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    elif kind == "jsonl":
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        mark = {"csv": ",", "tsv": "\t"}[kind]
        lines = [columns, *zip(*columns.values(), strict=True)]
        path.write_text("".join(mark.join(map(str, line)) + "\n" for line in lines))
    return str(path)


def message(call, *words, **options):
    with pytest.raises(UserError) as caught:
        call(*words, **options)
    assert caught.value.came
    assert caught.value.expected
    assert caught.value.fix
    return str(caught.value)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_every_kind_of_table(tmp_path, kind):
    paths, labels = map(list, zip(*ROWS, strict=True))
    path = write_rows(tmp_path, kind, {"path": paths, "label": labels})
    listing = list_table(path)
    assert listing.ids == paths
    assert listing.storage.paths == [str(tmp_path / name) for name in paths]
    assert listing.class_names == ("cat", "dog")
    assert listing.labels.tolist() == [0, 1, 0]
    assert listing.labels.dtype == np.int64
    assert listing.groups is None
    assert listing.sides is None


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_as_spreadsheets_write_it(table, mark, start, end):
    lines = [("Image Path", "Class"), ("x.png", '"red, ""big"""'), ("y.png", "blüe")]
    listing = list_table(table(start + "".join(mark.join(line) + end for line in lines)))
    assert listing.ids == ["x.png", "y.png"]
    assert listing.class_names == ("blüe", 'red, "big"')


def test_class_names_stay_text(table):
    text = "file,label\n1.png,007\n2.png,NA\n3.png,1.0\n4.png,null\n5.png,nan\n6.png,10\n7.png,9\n"
    assert list_table(table(text)).class_names == ("1.0", "007", "9", "10", "NA", "nan", "null")
    text = '{"file": "1.png", "label": "2020-01-02"}\n{"file": "2.png", "label": "2021-01-02"}\n'
    assert list_table(table(text, "dates.jsonl")).class_names == ("2020-01-02", "2021-01-02")


def test_numbers_as_class_names(tmp_path):
    path = write_rows(tmp_path, "parquet", {"file": ["1.png", "2.png"], "label": [3.0, 12.0]})
    assert list_table(path).class_names == ("3", "12")
    path = write_rows(tmp_path, "jsonl", {"file": ["1.png", "2.png"], "label": [3, 12]})
    assert list_table(path).class_names == ("3", "12")


def test_columns_are_found_by_content(table):
    # No name is a usual one; "image" is a number here and not the picture.
    text = "image,scan,finding\n1,a.png,benign\n2,b.PNG,malign\n"
    message(list_table, table(text))  # finding or image: which is the label is not clear
    listing = list_table(table(text), label_column="finding")
    assert listing.ids == ["a.png", "b.PNG"]
    text = "scan,finding\na.png,benign\nb.png,malign\n"
    assert list_table(table(text)).class_names == ("benign", "malign")
    text = "scan,doctor,size\na.png,x,1.5\nb.png,y,2\n"
    assert list_table(table(text), task="regression").labels.tolist() == [1.5, 2.0]


def test_columns_can_be_named(table):
    text = "image,path,label,other\na.png,b.png,x,y\nc.png,d.png,z,w\n"
    listing = list_table(table(text), image_column="path", label_column="other")
    assert listing.ids == ["b.png", "d.png"]
    assert listing.class_names == ("w", "y")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"label_column": "lable"}, ["'lable'", "Did you mean 'label'?", "image, label, split"]),
        ({"image_column": "img"}, ["'img'", "image, label, split"]),
        ({"group_column": "patient"}, ["'patient'", "image, label, split"]),
    ],
)
def test_a_missing_column_is_named_beside_those_that_exist(table, options, words):
    found = message(list_table, table("image,label,split\na.png,x,train\n"), **options)
    assert all(word in found for word in words)


def test_a_table_without_pictures_or_labels(table):
    found = message(list_table, table("name,age\nx,3\ny,4\n"))
    assert "paths of pictures" in found
    assert "name, age" in found
    assert "labels" in message(list_table, table("image,age,name\nx.png,3,a\ny.png,4,b\n"))


def test_groups_and_splits(table):
    text = "image,label,patient,Split\n1.png,a,p1,train\n2.png,b,7,VAL\n3.png,a,,test\n"
    text += "4.png,b,p1,valid\n"
    listing = list_table(table(text), group_column="patient")
    assert listing.groups.tolist() == ["p1", "7", "", "p1"]
    assert listing.sides.tolist() == [0, 1, 2, 1]


def test_an_unknown_split_is_named_with_its_row(table):
    found = message(list_table, table("image,label,split\n1.png,a,train\n2.png,b,tset\n"))
    assert "row 3" in found
    assert "'tset'" in found
    assert "Did you mean 'test'?" in found


@pytest.mark.parametrize("mark", ["|", ";", ","])
def test_several_labels_in_a_cell(table, mark):
    cells = [["polar bear", "snow"], ["snow"], [], ["snow", "snow", "ice "]]
    lines = "".join(f'{row}.png,"{mark.join(cell)}"\n' for row, cell in enumerate(cells))
    listing = list_table(table("image,tags\n" + lines), task="multi")
    assert listing.class_names == ("ice", "polar bear", "snow")
    assert listing.labels.dtype == np.float32
    assert listing.labels.tolist() == [[0, 1, 1], [0, 0, 1], [0, 0, 0], [1, 0, 1]]


def test_a_comma_is_part_of_a_name_where_bars_separate(table):
    listing = list_table(table('image,tags\n1.png,"a, b|c"\n2.png,"a, b"\n'), task="multi")
    assert listing.class_names == ("a, b", "c")


def test_labels_without_any_separator_keep_their_spaces(table):
    listing = list_table(table("image,tags\n1.png,polar bear\n2.png,snow\n"), task="multi")
    assert listing.class_names == ("polar bear", "snow")


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_lists_of_labels(tmp_path, kind):
    columns = {"image": ["1.png", "2.png", "3.png"], "tags": [["a, b", "c"], [], ["c"]]}
    listing = list_table(write_rows(tmp_path, kind, columns), task="multi")
    assert listing.class_names == ("a, b", "c")
    assert listing.labels.tolist() == [[1, 1], [0, 0], [0, 1]]


def test_numbers_to_predict(table, tmp_path):
    listing = list_table(table("image,value\n1.png, 2.5\n2.png,-1e3\n"), task="regression")
    assert listing.labels.dtype == np.float32
    assert listing.labels.tolist() == [2.5, -1000.0]
    assert listing.class_names == ()
    columns = {"image": ["1.png", "2.png"], "value": [1, 2]}
    listing = list_table(write_rows(tmp_path, "parquet", columns), task="regression")
    assert listing.labels.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("cell", ["nan", "inf", "-Infinity", "1e39", "many", "", "3,5"])
def test_a_number_that_is_none_is_named_with_its_row(table, cell):
    found = message(list_table, table(f'image,value\n1.png,2\n2.png,"{cell}"\n'), task="regression")
    assert "row 3" in found
    assert repr(cell) in found


@pytest.mark.parametrize("number", [None, float("nan"), float("inf")])
def test_missing_numbers_in_parquet(tmp_path, number):
    columns = {"image": ["1.png", "2.png"], "value": [1.5, number]}
    found = message(list_table, write_rows(tmp_path, "parquet", columns), task="regression")
    assert "row 2" in found


def test_empty_cells_are_named_with_their_row(table):
    found = message(list_table, table("image,label\n1.png,a\n2.png, \n"))
    assert "row 3" in found
    assert "column label" in found
    found = message(list_table, table("image,label\n1.png,a\n,b\n3.png,b\n"))
    assert "row 3" in found
    assert "column image" in found


def test_paths_that_leave_the_folder_are_refused(table, tmp_path):
    inside, outside = tmp_path / "data", tmp_path / "secret"
    inside.mkdir()
    outside.mkdir()
    (outside / "1.png").touch()
    (inside / "2.png").touch()
    (inside / "link.png").symlink_to(outside / "1.png")
    (inside / "door").symlink_to(outside)
    (tmp_path / "data2").mkdir()  # begins like the folder, and is another
    for bad in [
        "../secret/1.png",
        "x/../../secret/1.png",
        "..\\\\secret\\\\1.png",
        str(outside / "1.png"),
        str(tmp_path / "data2" / "1.png"),
        "link.png",
        "door/1.png",
        "door/../secret/../../secret/1.png",
        "/etc/passwd",
        "..",
    ]:
        path = table(
            json.dumps({"image": "2.png", "label": "a"})
            + "\n"
            + f'{{"image": "{bad}", "label": "b"}}\n',
            "data/t.jsonl",
        )
        found = message(list_table, path, image_column="image")
        assert "row 2" in found, bad
        assert bad.replace("\\\\", "/") in found


def test_paths_that_stay_in_the_folder_are_taken(table, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").touch()
    (tmp_path / "also").symlink_to(tmp_path / "a")
    (tmp_path / "again.png").symlink_to(tmp_path / "a" / "1.png")
    names = ["a/1.png", "./a/1.png", "b/../a/1.png", str(tmp_path / "a/1.png"), "a\\1.png"]
    names += ["also/1.png", "again.png"]
    text = "image,label\n" + "".join(f"{name},{row}\n" for row, name in enumerate(names))
    listing = list_table(table(text))
    assert listing.storage.paths == [str(tmp_path / "a/1.png")] * 7
    assert listing.ids == ["a/1.png"] * 5 + ["also/1.png", "again.png"]


def test_a_table_reached_through_a_link(table, tmp_path):
    (tmp_path / "real").mkdir()
    table("image,label\n1.png,a\n2.png,b\n", "real/t.csv")
    (tmp_path / "short").symlink_to(tmp_path / "real")
    listing = list_table(str(tmp_path / "short" / "t.csv"))
    assert listing.storage.paths[0] == str(tmp_path / "real" / "1.png")
    assert listing.ids == ["1.png", "2.png"]


def test_classes_of_a_model(table):
    text = "image,label\n1.png,b\n2.png,b\n"
    listing = list_table(table(text), class_names=("c", "b", "a"))
    assert listing.class_names == ("c", "b", "a")
    assert listing.labels.tolist() == [1, 1]
    found = message(
        list_table, table(text.replace("2.png,b", "2.png,roze")), class_names=("b", "rose")
    )
    assert "'roze' of row 3" in found
    assert "Did you mean 'rose'?" in found


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", b"", "empty"),
        ("t.csv", b"image,label\n", "no rows"),
        ("t.csv", b"image,label\n1.png,a\n2.png,b,c\n", "Row 3"),
        ("t.csv", b"a/1.png,cat\na/2.png,dog\n", "is an example and not"),
        ("t.csv", b"image,label,label\n1.png,a,b\n", "same name"),
        ("t.jsonl", b'{"image": "1.png", "label": \n', "does not parse"),
        ("t.jsonl", b'{"image": "1.png", "label": "a"}\n{"image": "2.png", "label": 3}\n', "label"),
        ("t.jsonl", b"", "is empty"),
        ("t.parquet", b"PAR1 and then nothing of the kind", "cannot be read"),
    ],
)
def test_unreadable_tables(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    found = message(list_table, str(tmp_path / name))
    assert words in found
    assert name in found


def test_a_table_that_may_not_be_read(table, monkeypatch):
    path = table("image,label\n1.png,a\n")

    def refuse(path, *words, **options):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("builtins.open", refuse)
    assert "Permission denied" in message(read_table, path)


def test_rows_are_counted_as_people_see_them(table, tmp_path):
    assert read_table(table("a\nb\n")).row(0).startswith("row 2 of ")
    assert read_table(table('{"a": 1}\n', "t.jsonl")).row(0) == f"row 1 of {tmp_path / 't.jsonl'}"


def test_many_rows(table, tmp_path):
    text = "image,label\n" + "".join(f"d{row % 50}/{row}.png,c{row % 7}\n" for row in range(50_000))
    listing = list_table(table(text))
    assert len(listing.ids) == 50_000
    assert listing.storage.paths[-1] == os.path.join(tmp_path, "d49", "49999.png")
