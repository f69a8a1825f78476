"""Damaged tables of pictures."""

import gzip
import os
from functools import partial
from pathlib import Path

import pyarrow
import pyarrow.parquet
from causes import (
    BAD_PICTURES,
    CLOSE,
    DOWNLOAD,
    FILL,
    NAME_COLUMNS,
    PLAIN,
    SAVE_AGAIN,
    UNPACK,
    WHOLE_ROWS,
    damage,
    unusable,
    write,
)
from picture_causes import encoded

from tfsft import data

LABELS = ("rose", "tulip")
ROWS = "".join(f"{number}.png,{LABELS[number % 2]}\n" for number in range(8))
numbers = partial(data.load_images, task="regression")


def table(folder: Path, content: str | bytes, name: str = "data.csv", encoding="utf-8") -> str:
    """Writes a table beside the eight pictures it names; returns its path."""
    for number in range(8):
        write(folder, f"{number}.png", encoded(number))
    return write(folder, name, content, encoding)


def parquet(folder: Path, **columns) -> str:
    path = table(folder, "", "data.parquet")
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


@damage(data.load_images, "DIR/data.csv is empty.", *FILL)
def table_of_no_bytes(folder):
    return table(folder, "")


@damage(data.load_images, "DIR/data.csv has no rows.", *FILL)
def table_of_a_header(folder):
    return table(folder, "path,label\n")


@damage(
    data.load_images,
    "The first line of DIR/data.csv is an example and not the names of the columns: 0.png,rose",
    *NAME_COLUMNS,
)
def table_without_header(folder):
    return table(folder, "0.png,rose\n1.png,tulip\n2.png,lily\n")


@damage(
    data.load_images,
    "DIR/data.csv cannot be read: two columns have the same name: path, label, label",
    *SAVE_AGAIN,
)
def table_with_one_name_twice(folder):
    return table(folder, "path,label,label\n0.png,rose,rose\n")


@damage(data.load_images, "Row 10 of DIR/data.csv has 1 cells and not 2: 8.png", *WHOLE_ROWS)
def table_with_a_short_row(folder):
    return table(folder, f"path,label\n{ROWS}8.png\n")


@damage(
    data.load_images, "Row 2 of DIR/data.csv has 3 cells and not 2: 8.png,rose,red", *WHOLE_ROWS
)
def table_with_a_long_row(folder):
    return table(folder, f"path,label\n8.png,rose,red\n{ROWS}")


@damage(
    data.load_images, "DIR/data.csv, line 2: a quotation mark is opened and never closed.", *CLOSE
)
def table_with_an_open_quotation_mark(folder):
    return table(folder, f'path,label\n8.png,"rose\n{ROWS}')


@damage(data.load_images, "DIR/data.csv is no text but binary data.", *UNPACK)
def table_with_a_null_character(folder):
    return table(folder, f"path,label\n8.png,ro\0se\n{ROWS}")


@damage(data.load_images, "DIR/data.csv is a web page or XML, and no table.", *DOWNLOAD)
def table_that_is_a_web_page(folder):
    return table(folder, "<!DOCTYPE html>\n<html>\n<body>Sign in</body>\n</html>\n")


@damage(data.load_images, "DIR/data.csv is no text but binary data.", *UNPACK)
def table_that_is_packed(folder):
    return table(folder, gzip.compress(f"path,label\n{ROWS}".encode(), mtime=0))


@damage(
    data.load_images,
    "DIR/data.csv holds no class folders.",
    "One sub-folder for each class: FOLDER/roses/1.jpg, FOLDER/tulips/2.jpg.",
    "Make a folder for each class and move its pictures there.",
)
def folder_called_csv(folder):
    (folder / "data.csv").mkdir()
    return os.fspath(folder / "data.csv")


@damage(
    data.load_images,
    "DIR/data.csv is a link that leads nowhere: data.csv",
    "--data is a folder, a CSV, TSV, JSONL or Parquet file, tfds:NAME, or digits.",
    "Mend the link, or give what it should lead to.",
)
def table_that_is_a_link_in_a_circle(folder):
    os.symlink("data.csv", folder / "data.csv")
    return os.fspath(folder / "data.csv")


@damage(
    partial(data.load_images, label_column="lable"),
    "DIR/data.csv has no column 'lable'. Did you mean 'label'?",
    "--label-column names a column with labels; there are: path, label.",
    "Give one of these to --label-column.",
)
def misspelt_label_column(folder):
    return table(folder, f"path,label\n{ROWS}")


@damage(
    data.load_images,
    "DIR/data.csv has no column that is clearly the one with paths of pictures.",
    "A column called image, image_path, path, file or the like; there are: name, kind, label.",
    "Name it with --image-column.",
)
def table_without_paths(folder):
    return table(folder, "name,kind,label\na,b,rose\nc,d,tulip\n")


@damage(
    data.load_images,
    "DIR/data.csv has no column that is clearly the one with labels.",
    "A column called label, labels, class, classes or the like; there are: path, a, b.",
    "Name it with --label-column.",
)
def table_without_labels(folder):
    return table(folder, "path,a,b\n0.png,c,d\n1.png,e,f\n")


@damage(
    data.load_images,
    "The label in row 10 of DIR/data.csv, column label, is empty.",
    "Every picture has one class.",
    "Fill it in, or remove the row.",
)
def table_with_an_empty_label(folder):
    return table(folder, f"path,label\n{ROWS}0.png, \n")


@damage(
    data.load_images,
    "The path in row 10 of DIR/data.csv, column path, is empty.",
    "Every row names a picture.",
    "Fill it in, or remove the row.",
)
def table_with_an_empty_path(folder):
    return table(folder, f"path,label\n{ROWS},rose\n")


@damage(
    data.load_images,
    "The path in row 2 of DIR/data.csv leads out of the data folder: ../secret.png",
    "Paths are relative to DIR and stay inside it, links included.",
    "Move the pictures into that folder, or the table to the folder above them.",
)
def table_with_a_path_that_leads_out(folder):
    return table(folder, f"path,label\n../secret.png,rose\n{ROWS}")


@damage(
    data.load_images,
    unusable("1 of 9 pictures in DIR/data.csv", "gone.png does not exist"),
    *BAD_PICTURES,
)
def table_with_a_path_to_nothing(folder):
    return table(folder, f"path,label\n{ROWS}gone.png,rose\n")


@damage(
    data.load_images,
    unusable("1 of 9 pictures in DIR/data.csv", "pipe.png is not a file"),
    *BAD_PICTURES,
)
def table_with_a_path_to_a_pipe(folder):
    path = table(folder, f"path,label\n{ROWS}pipe.png,rose\n")
    os.mkfifo(folder / "pipe.png")
    return path


@damage(
    data.load_images,
    "All labels in DIR/data.csv are the same: rose.",
    "At least two classes.",
    "Add pictures of something else, or check that the right column is the label.",
)
def table_of_one_class(folder):
    return table(folder, "path,label\n0.png,rose\n1.png,rose\n")


@damage(
    data.load_images,
    "The split in row 2 of DIR/data.csv, column split, is 'trian'. Did you mean 'train'?",
    "train, validation or test.",
    "Correct it, or give the column another name to have splits made.",
)
def table_with_an_unknown_split(folder):
    return table(folder, "path,label,split\n0.png,rose,trian\n1.png,tulip,train\n")


@damage(
    data.load_images,
    "DIR/data.csv has no training pictures.",
    "Pictures to learn from.",
    "Add some to train.",
)
def table_without_training(folder):
    return table(folder, "path,label,split\n0.png,rose,test\n1.png,tulip,test\n")


@damage(
    numbers,
    "The label of row 2 of DIR/data.csv is '1,5'.",
    "A finite number, such as 3.5.",
    "Correct it, or leave this example out.",
)
def decimal_comma(folder):
    return table(folder, "path;value\n0.png;1,5\n1.png;2,5\n2.png;3\n")


@damage(
    numbers,
    "The label of row 3 of DIR/data.csv is 'nan'.",
    "A finite number, such as 3.5.",
    "Correct it, or leave this example out.",
)
def number_that_is_none(folder):
    return table(folder, "path,value\n0.png,1.5\n1.png,nan\n2.png,3\n")


@damage(
    numbers,
    "The label of row 3 of DIR/data.csv is '1e99'.",
    "A finite number, such as 3.5.",
    "Correct it, or leave this example out.",
)
def number_too_large(folder):
    return table(folder, "path,value\n0.png,1.5\n1.png,1e99\n2.png,3\n")


@damage(
    data.load_images,
    'Row 2 of DIR/data.jsonl does not parse as JSON: {"path": "1.png", "label":',
    *WHOLE_ROWS,
)
def json_lines_with_a_broken_line(folder):
    good = '{"path": "0.png", "label": "rose"}\n'
    return table(folder, good + '{"path": "1.png", "label": \n' + good, "data.jsonl")


@damage(
    data.load_images,
    "DIR/data.jsonl cannot be read: no line holds an object: line 1 does not parse "
    'as JSON: {"path": "0.png", "label": "rose",}',
    *SAVE_AGAIN,
)
def json_lines_with_a_comma_too_many(folder):
    return table(folder, '{"path": "0.png", "label": "rose",}\n', "data.jsonl")


@damage(
    data.load_images,
    "All labels in DIR/data.jsonl are the same: rose.",
    "At least two classes.",
    "Add pictures of something else, or check that the right column is the label.",
)
def json_array_called_jsonl(folder):
    return table(folder, '[{"path": "0.png", "label": "rose"}]\n', "data.jsonl")


@damage(
    data.load_images,
    "DIR/data.jsonl, line 2: 'label' is a number (7), but text in line 1.",
    "One kind of value in each field.",
    "Write all of them the same way, for example with quotation marks.",
)
def json_lines_of_two_kinds(folder):
    text = '{"path": "0.png", "label": "rose"}\n{"path": "1.png", "label": 7}\n'
    return table(folder, text, "data.jsonl")


@damage(
    data.load_images,
    "The label in row 1 of DIR/data.jsonl, column label, is empty.",
    "Every picture has one class.",
    "Fill it in, or remove the row.",
)
def json_lines_with_nan(folder):
    text = '{"path": "0.png", "label": NaN}\n{"path": "1.png", "label": 7}\n'
    return table(folder, text, "data.jsonl")


@damage(
    data.load_images,
    "The label in row 1 of DIR/data.jsonl, column label, is empty.",
    "Every picture has one class.",
    "Fill it in, or remove the row.",
)
def json_lines_with_null(folder):
    text = '{"path": "0.png", "label": null}\n{"path": "1.png", "label": "rose"}\n'
    return table(folder, text, "data.jsonl")


@damage(
    data.load_images,
    'Row 1 of DIR/data.jsonl has half a character (a surrogate): {"path": "0.png", '
    '"label": "\\ud83d"}',
    *WHOLE_ROWS,
)
def json_lines_with_half_a_character(folder):
    text = '{"path": "0.png", "label": "\\ud83d"}\n{"path": "1.png", "label": "rose"}\n'
    return table(folder, text, "data.jsonl")


@damage(
    data.load_images, "The label in column 'label' of DIR/data.jsonl is an object: {'a': 1}", *PLAIN
)
def json_lines_with_objects_as_labels(folder):
    text = '{"path": "0.png", "label": {"a": 1}}\n{"path": "1.png", "label": {"a": 2}}\n'
    return table(folder, text, "data.jsonl")


@damage(
    data.load_images,
    "The label in column 'label' of DIR/data.jsonl is a list: ['a']",
    "A single text or number in each row.",
    "Several labels an example are read with --multi-label.",
)
def json_lines_with_lists_as_labels(folder):
    text = '{"path": "0.png", "label": ["a"]}\n{"path": "1.png", "label": ["b", "a"]}\n'
    return table(folder, text, "data.jsonl")


@damage(data.load_images, "DIR/data.parquet cannot be read: [...]", *SAVE_AGAIN)
def parquet_cut_off(folder):
    path = parquet(folder, path=["0.png", "1.png"], label=["rose", "tulip"])
    return write(folder, "data.parquet", Path(path).read_bytes()[:-20])


@damage(data.load_images, "DIR/data.parquet cannot be read: [...]", *SAVE_AGAIN)
def csv_called_parquet(folder):
    return table(folder, f"path,label\n{ROWS}", "data.parquet")


@damage(
    data.load_images,
    "The path in column 'image' of DIR/data.parquet is an object: {'bytes': "
    "b'\\x89PNG\\r\\n\\x1a\\n\\x00\\x00\\x00\\rIHDR\\x00\\x00\\x00\\x08\\x00\\x00\\x00\\ ...",
    *PLAIN,
)
def parquet_with_pictures_inside(folder):
    pictures = [{"bytes": encoded(number), "path": f"{number}.png"} for number in range(8)]
    return parquet(folder, image=pictures, label=["rose", "tulip"] * 4)


@damage(data.load_images, "DIR/data.parquet has no rows.", *FILL)
def parquet_of_no_rows(folder):
    return parquet(folder, path=pyarrow.array([], "string"), label=pyarrow.array([], "string"))
