"""Damaged tables and folders of texts."""

import gzip
import os
from functools import partial

from causes import (
    BAD_TEXTS,
    CLOSE,
    DOWNLOAD,
    ENCODE,
    FILL,
    NAME_COLUMNS,
    SAVE_AGAIN,
    UNPACK,
    WHOLE_ROWS,
    damage,
    unprivileged,
    unusable,
    write,
)

from tfsft import data
from tfsft.cache import cache_folder
from tfsft.data.plain_texts import read_plain_texts, read_text

FILMS = [f"The film number {number} was {('good', 'bad')[number % 2]}." for number in range(12)]
LABELS = ["good", "bad"] * 6
ROWS = "".join(f"{text},{label}\n" for text, label in zip(FILMS, LABELS, strict=True))
CSV = f"text,label\n{ROWS}"
numbers = partial(data.load_texts, task="regression")
several = partial(data.load_texts, task="multi")


@damage(data.load_texts, "DIR/data.csv is empty.", *FILL)
def texts_of_no_bytes(folder):
    return write(folder, "data.csv", "")


@damage(data.load_texts, "DIR/data.csv has no rows.", *FILL)
def texts_of_a_header(folder):
    return write(folder, "data.csv", "text,label\n")


@damage(
    data.load_texts,
    "The first line of DIR/data.csv is an example and not the names of the "
    "columns: The film number 0 was good.,good",
    *NAME_COLUMNS,
)
def texts_without_header(folder):
    return write(folder, "data.csv", ROWS)


@damage(
    data.load_texts,
    "The first line of DIR/data.csv is an example and not the names of the "
    "columns: The film number 0 was good.,good",
    *NAME_COLUMNS,
)
def texts_with_an_empty_header(folder):
    return write(folder, "data.csv", f"\n{ROWS}")


@damage(
    data.load_texts,
    "DIR/data.csv cannot be read: two columns have the same name: text, text",
    *SAVE_AGAIN,
)
def texts_with_one_name_twice(folder):
    return write(folder, "data.csv", f"text,text\n{ROWS}")


@damage(
    data.load_texts,
    "DIR/data.csv has one column only: text",
    "Two columns at least, text and label, separated by a comma, a semicolon, a "
    "tab or a vertical bar.",
    "Save it again with one of these between the columns.",
)
def texts_of_one_column(folder):
    return write(folder, "data.csv", "text\nOne text.\nAnother text.\n")


@damage(
    data.load_texts,
    unusable("1 of 13 texts in DIR/data.csv", "data.csv:14 has 1 cells and not 2: A text alone."),
    *BAD_TEXTS,
)
def texts_with_a_short_row(folder):
    return write(folder, "data.csv", f"{CSV}A text alone.\n")


@damage(
    data.load_texts,
    unusable(
        "1 of 13 texts in DIR/data.csv",
        "data.csv:14 has 3 cells and not 2: A text, with a comma,good",
    ),
    *BAD_TEXTS,
)
def texts_with_a_comma_in_them(folder):
    return write(folder, "data.csv", f"{CSV}A text, with a comma,good\n")


@damage(
    data.load_texts, "DIR/data.csv, line 2: a quotation mark is opened and never closed.", *CLOSE
)
def texts_with_an_open_quotation_mark(folder):
    return write(folder, "data.csv", f'text,label\n"A text,good\n{ROWS}')


@damage(
    data.load_texts, "DIR/data.csv, line 14: a quotation mark is opened and never closed.", *CLOSE
)
def labels_with_an_open_quotation_mark(folder):
    return write(folder, "data.csv", f'{CSV}A text,"good\n{ROWS}')


@damage(
    data.load_texts, "DIR/data.csv, line 14: a quotation mark is opened and never closed.", *CLOSE
)
def notes_with_an_open_quotation_mark(folder):
    rows = ROWS.replace("\n", ",\n")
    return write(folder, "data.csv", f'text,label,note\n{rows}A text,good,"so\n{rows}')


@damage(data.load_texts, "DIR/data.csv is no text but binary data.", *UNPACK)
def texts_with_a_null_character(folder):
    return write(folder, "data.csv", f"{CSV}A te\0xt,good\n")


@damage(data.load_texts, "DIR/data.csv is no text but binary data.", *UNPACK)
def texts_in_utf_16_without_mark(folder):
    return write(folder, "data.csv", CSV, "utf-16-le")


@damage(
    data.load_texts,
    "DIR/data.csv is text in an encoding that is not known, or ends early.",
    *ENCODE,
)
def texts_in_half_utf_16(folder):
    return write(folder, "data.csv", CSV.encode("utf-16")[:-1])


@damage(
    data.load_texts,
    "DIR/data.csv is UTF-8, but line 4 holds bytes that are not: Gr��e,bad",
    "Text in one encoding: UTF-8, UTF-16 or Latin-1.",
    "Save that line again as UTF-8.",
)
def texts_with_a_broken_letter(folder):
    broken = "Schöne Grüße,good\n".encode() + "Größe,bad\n".encode("latin-1")
    return write(folder, "data.csv", "text,label\nJürgen lässt grüßen,good\n".encode() + broken)


@damage(data.load_texts, "DIR/data.csv is a web page or XML, and no table.", *DOWNLOAD)
def texts_that_are_a_web_page(folder):
    page = "<!DOCTYPE html>\n<html><body>Sign in, please</body></html>\n"
    return write(folder, "data.csv", page)


@damage(data.load_texts, "DIR/data.csv is no text but binary data.", *UNPACK)
def texts_that_are_packed(folder):
    return write(folder, "data.csv", gzip.compress(CSV.encode(), mtime=0))


@damage(
    data.load_texts,
    "DIR/data.xlsx is a file of an unknown kind.",
    "A file that ends in .csv, .tsv, .jsonl, .ndjson, .json, .parquet, or a folder.",
    "Unpack it if it is an archive; save it as CSV if it is a table.",
)
def texts_that_are_a_spreadsheet(folder):
    return write(folder, "data.xlsx", b"PK\3\4" + bytes(20))


@damage(
    data.load_texts,
    "DIR/data.csv holds no class folders.",
    "One sub-folder for each class: FOLDER/roses/1.jpg, FOLDER/tulips/2.jpg.",
    "Make a folder for each class and move its texts there.",
)
def folder_of_texts_called_csv(folder):
    (folder / "data.csv").mkdir()
    return os.fspath(folder / "data.csv")


@damage(
    data.load_texts,
    "DIR/data.csv is a link that leads nowhere: data.csv",
    "--data is a CSV, TSV, JSONL, JSON or Parquet file, a folder with train, "
    "validation and test files or with class folders, tfds:NAME, or topics.",
    "Mend the link, or give what it should lead to.",
)
def texts_that_are_a_link_in_a_circle(folder):
    os.symlink("data.csv", folder / "data.csv")
    return os.fspath(folder / "data.csv")


@damage(
    data.load_texts,
    "DIR/data.csv is neither a file nor a folder.",
    "--data is a CSV, TSV, JSONL, JSON or Parquet file, a folder with train, "
    "validation and test files or with class folders, tfds:NAME, or topics.",
    "Write what comes out of it into a file first.",
)
def texts_that_are_a_pipe(folder):
    os.mkfifo(folder / "data.csv")
    return os.fspath(folder / "data.csv")


@damage(
    partial(data.load_texts, text_column="txet"),
    "DIR/data.csv has no column 'txet'. Did you mean 'text'?",
    "--text-column names a column with texts; there are: text, label.",
    "Give one of these to --text-column.",
)
def misspelt_text_column(folder):
    return write(folder, "data.csv", CSV)


@damage(
    data.load_texts,
    "DIR/data.csv has no column that is clearly the one with labels.",
    "A column called label, labels, class, classes or the like; there are: id, text.",
    "Name it with --label-column.",
)
def texts_without_labels(folder):
    rows = "".join(f"{number},{text}\n" for number, text in enumerate(FILMS))
    return write(folder, "data.csv", f"id,text\n{rows}")


@damage(
    data.load_texts,
    unusable("1 of 13 texts in DIR/data.csv", "data.csv:14 has no label"),
    *BAD_TEXTS,
)
def texts_with_an_empty_label(folder):
    return write(folder, "data.csv", f"{CSV}A text, \n")


@damage(
    data.load_texts,
    unusable("1 of 13 texts in DIR/data.csv", "data.csv:14 has no text"),
    *BAD_TEXTS,
)
def empty_text(folder):
    return write(folder, "data.csv", f"{CSV} ,good\n")


@damage(
    data.load_texts,
    "All labels in DIR/data.csv are the same: good.",
    "At least two classes.",
    "Add texts of something else, or check that the right column is the label.",
)
def texts_of_one_class(folder):
    return write(folder, "data.csv", CSV.replace(",bad", ",good"))


@damage(
    data.load_texts,
    "Too few different texts in DIR/data.csv to split them: fair (1).",
    "At least 3 different texts of each class, one for every split.",
    "Add texts, remove these classes, or make fewer splits: --test-fraction 0.",
)
def too_few_texts_of_a_class(folder):
    return write(folder, "data.csv", f"{CSV}It was fair.,fair\nIt was fair.,fair\n")


@damage(
    data.load_texts,
    "The split in data.csv:3 is 'tset'. Did you mean 'test'?",
    "train, validation or test.",
    "Correct it, or give the column another name to have splits made.",
)
def texts_with_an_unknown_split(folder):
    return write(folder, "data.csv", "text,label,split\nA text,good,train\nA text,bad,tset\n")


@damage(
    numbers,
    unusable(
        "1 of 2 texts in DIR/data.csv",
        "data.csv:2 has the label '1,5', which is not a finite number",
    ),
    *BAD_TEXTS,
)
def texts_with_decimal_commas(folder):
    return write(folder, "data.csv", "text;value\nOne text.;1,5\nTwo texts.;2\n")


@damage(
    numbers,
    unusable(
        "1 of 2 texts in DIR/data.csv",
        "data.csv:2 has the label 'nan', which is not a finite number",
    ),
    *BAD_TEXTS,
)
def texts_with_numbers_that_are_none(folder):
    return write(folder, "data.csv", "text,value\nOne text.,nan\nTwo texts.,2\n")


@damage(
    several,
    "Too few different texts in DIR/data.csv to split them: all of them.",
    "At least 3 different texts of each class, one for every split.",
    "Add texts, remove these classes, or make fewer splits: --test-fraction 0.",
)
def texts_without_any_of_several_labels(folder):
    return write(folder, "data.csv", "text,labels\nOne text.,\nTwo texts.,\n")


@damage(
    data.load_texts,
    "DIR holds no file called train with one of these endings: .csv, .tsv, .jsonl, "
    ".ndjson, .json, .parquet.",
    "A file, or a folder with train, validation and test files.",
    "Give one of its files as --data; it holds: test.csv.",
)
def folder_without_training_file(folder):
    write(folder, "test.csv", CSV)
    return os.fspath(folder)


@damage(
    data.load_texts,
    unusable("1 of 13 texts in DIR", "good/x.txt is no text but binary data."),
    *BAD_TEXTS,
)
def text_file_of_binary_data(folder):
    for number, text in enumerate(FILMS):
        write(folder, f"{LABELS[number]}/{number}.txt", text)
    write(folder, "good/x.txt", bytes(20))
    return os.fspath(folder)


@damage(data.load_texts, unusable("1 of 13 texts in DIR", "good/x.txt has no text"), *BAD_TEXTS)
def text_file_without_text(folder):
    for number, text in enumerate(FILMS):
        write(folder, f"{LABELS[number]}/{number}.txt", text)
    write(folder, "good/x.txt", "\n")
    return os.fspath(folder)


@damage(
    partial(read_plain_texts, columns=["question", "context"]),
    "DIR/data.csv has no column that is clearly the one with the context of each row.",
    "A column called context, passage, paragraph, document or the like; there are: question, a, b.",
    "Name it with --csv.",
)
def texts_to_predict_without_column(folder):
    return write(folder, "data.csv", "question,a,b\nWho?,Ada,Ada\n")


@damage(
    partial(read_plain_texts, columns=["text"]),
    "Row 3 of DIR/data.csv has 1 cells and not 2: Another text.",
    *WHOLE_ROWS,
)
def texts_to_predict_with_a_short_row(folder):
    return write(folder, "data.csv", "text,id\nOne text.,1\nAnother text.\n")


@damage(
    data.load_texts,
    "DIR/data.csv is text in an encoding that is not known, or ends early.",
    *ENCODE,
)
def texts_in_an_unknown_encoding(folder):
    return write(folder, "data.csv", CSV + "これは。,good\n", "shift-jis")


@damage(
    data.load_texts,
    "DIR/data.csv is UTF-8, but line 14 holds bytes that are not: Grüße aus Köln,good�",
    "Text in one encoding: UTF-8, UTF-16 or Latin-1.",
    "Save that line again as UTF-8.",
)
def texts_that_end_within_a_letter(folder):
    return write(folder, "data.csv", f"{CSV}Grüße aus Köln,goodö".encode()[:-1])


@damage(
    data.load_texts,
    unusable(
        "1 of 13 texts in DIR",
        "good/x.txt is text in an encoding that is not known, or ends early.",
    ),
    *BAD_TEXTS,
)
def text_file_of_half_utf_16(folder):
    for number, text in enumerate(FILMS):
        write(folder, f"{LABELS[number]}/{number}.txt", text)
    write(folder, "good/x.txt", "A text".encode("utf-16")[:-1])
    return os.fspath(folder)


@damage(
    data.load_texts,
    "The copy of the texts in [...] is damaged.",
    "The file that tfsft wrote there.",
    "Delete this folder; it will be made again.",
)
def damaged_copy_in_the_cache(folder):
    path = write(folder, "data.csv", CSV)
    data.load_texts(path)
    (copy,) = cache_folder().glob("texts/*/rows.arrow")
    copy.write_bytes(copy.read_bytes()[:200])
    return path


@damage(
    unprivileged(data.load_texts),
    "DIR/data.csv cannot be read: permission denied.",
    "--data is a CSV, TSV, JSONL, JSON or Parquet file, a folder with train, validation and test "
    "files or with class folders, tfds:NAME, or topics.",
    "Change its permissions, or those of the folders above it.",
)
def texts_that_may_not_be_read(folder):
    path = write(folder, "data.csv", CSV)
    os.chmod(path, 0)
    return path


@damage(data.load_texts, "DIR/data.csv cannot be read: no column has a name", *SAVE_AGAIN)
def texts_with_a_header_of_commas(folder):
    return write(folder, "data.csv", f",\n{ROWS}")


@damage(
    unprivileged(read_text),
    "DIR/letter.txt cannot be read: Permission denied",
    "A text file.",
    "Check the file.",
)
def text_to_predict_that_may_not_be_read(folder):
    path = write(folder, "letter.txt", "A text")
    os.chmod(path, 0)
    return path
