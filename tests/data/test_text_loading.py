"""From --data to splits of texts: every format, what is refused, and what a person is told."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from tfsft.data import text_source
from tfsft.data.questions import load_questions
from tfsft.data.tagged import load_tags
from tfsft.data.text_loading import load_texts
from tfsft.data.text_tables import BLOCK
from tfsft.errors import UsageError, UserError

COLUMNS = ["review", "sentiment", "score", "author"]
ROWS = [
    (
        f'number {n}: "quoted", über, 电影\nsecond line',
        ["bad", "good", "so-so"][n % 3],
        n / 7,
        f"a{n % 9}",
    )
    for n in range(60)
]


def write_csv(path, rows=ROWS, columns=COLUMNS, encoding="utf-8", **dialect):
    with open(path, "w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, lineterminator=dialect.pop("lineterminator", "\n"), **dialect)
        writer.writerow(columns)
        writer.writerows(rows)
    return path


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def dicts(rows=ROWS):
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows]


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    """The rows as a data set of tensorflow-datasets, and questions and tags."""
    import tensorflow_datasets as tfds

    class TinyTexts(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Reviews."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            word = tfds.features.Text()
            features = {
                "review": word,
                "sentiment": tfds.features.ClassLabel(names=["bad", "good", "so-so"]),
                "score": np.float64,
                "author": word,
                "tokens": tfds.features.Sequence(word),
                "tags": tfds.features.Sequence(tfds.features.ClassLabel(names=["O", "B-X", "I-X"])),
                "question": word,
                "context": word,
                "answers": tfds.features.Sequence({"text": word, "answer_start": np.int32}),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for number, row in enumerate(dicts()):
                extra = {
                    "tokens": ["see", "New", f"York{number}"],
                    "tags": [0, 1, 2],
                    "question": f"What {number}?",
                    "context": f"It is {number} now",
                    "answers": {"text": [str(number)], "answer_start": [6]},
                }
                yield number, row | extra

    folder = str(tmp_path_factory.mktemp("tfds"))
    TinyTexts(data_dir=folder).download_and_prepare()
    return folder


@pytest.fixture
def formats(tmp_path, tfds_folder):
    """The same rows in every format: name -> (data, options)."""
    table = pyarrow.table({name: [row[name] for row in dicts()] for name in COLUMNS})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet", row_group_size=7)
    (tmp_path / "rows.json").write_text(json.dumps({"data": dicts()}))
    (tmp_path / "list.json").write_text(json.dumps(dicts()))
    found = {
        "csv": write_csv(tmp_path / "rows.csv"),
        "semicolon, UTF-16, CRLF": write_csv(
            tmp_path / "utf16.csv", encoding="utf-16", delimiter=";", lineterminator="\r\n"
        ),
        "bar, byte order mark": write_csv(
            tmp_path / "bom.csv", encoding="utf-8-sig", delimiter="|"
        ),
        "tsv": write_csv(tmp_path / "rows.tsv", delimiter="\t"),
        "jsonl": write_lines(tmp_path / "rows.jsonl", dicts()),
        "json": tmp_path / "rows.json",
        "json list": tmp_path / "list.json",
        "parquet": tmp_path / "rows.parquet",
    }
    return {name: (str(path), {}) for name, path in found.items()} | {
        "tfds": ("tfds:tiny_texts", {"tfds_dir": tfds_folder})
    }


def content(splits):
    """Everything of the splits but the names of the rows."""
    return {
        name: (
            source.column("text"),
            source.labels.tolist(),
            source.keys.tolist(),
            source.class_names,
            source.fingerprint,
            None if source.groups is None else source.groups.tolist(),
        )
        for name, source in splits.sources().items()
    }


@pytest.mark.parametrize(
    "options",
    [{}, {"group_column": "author"}, {"task": "regression"}, {"task": "multi"}, {"limit": 30}],
    ids=lambda options: "-".join(map(str, options.values())) or "plain",
)
def test_the_same_rows_in_any_format_are_the_same(formats, options):
    options = {"text_column": "review", "label_column": "sentiment"} | options
    if options.get("task") == "regression":
        options["label_column"] = "score"
    found = {}
    for name, (data, more) in formats.items():
        splits = load_texts(data, **options, **more)
        found[name] = (content(splits), splits.fingerprint, splits.warnings)
    for name, these in found.items():
        assert these == found["csv"], name
    texts = {text for part in found["csv"][0].values() for text in part[0]}
    assert texts <= {row[0] for row in ROWS}
    assert options.get("limit") or len(texts) == 60


def test_labels_and_columns_are_those_of_the_file(formats):
    known = {row[0]: row for row in ROWS}
    for name, (data, more) in formats.items():
        if name == "tfds":
            continue  # has other columns that could be meant
        splits = load_texts(data, **more)
        for source in splits.sources().values():
            for row, text in enumerate(source.column("text")):
                assert source.class_names[source.labels[row]] == known[text][1]
        numbers = load_texts(data, task="regression", **more)
        for row, text in enumerate(numbers.train.column("text")):
            assert numbers.train.labels[row] == np.float32(known[text][2])
        assert "'review'" in splits.notes[0]
        assert "'sentiment'" in splits.notes[0]
    assert "UTF-16, semicolon" in load_texts(formats["semicolon, UTF-16, CRLF"][0]).notes[0]


def test_any_rows_in_any_order(formats):
    splits = load_texts(formats["parquet"][0])
    source = splits.train
    everything = source.column("text")
    rows = np.array([5, 0, 41, 5])
    assert source.column("text", rows) == [everything[row] for row in rows]
    assert source.column("text", slice(3, 6)) == everything[3:6]
    assert source.column("text", np.array([], int)) == []
    part = source.subset(rows)
    assert part.column("text") == [everything[row] for row in rows]
    assert list(part.ids) == [source.ids[row] for row in rows]
    assert part.fingerprint != source.fingerprint
    number = int(source.ids[0].partition(":")[2])
    assert ROWS[number - 1][0] == everything[0]
    together = splits.everything()
    assert len(together) == 60
    assert sorted(together.column("text")) == sorted(row[0] for row in ROWS)


def test_rows_of_csv_are_numbered_as_a_spreadsheet_does(tmp_path):
    rows = [(f"text {n}", n % 2) for n in range(30)]
    path = write_csv(tmp_path / "x.csv", rows, ["text", "label"])
    source = load_texts(str(path), validation_fraction=0, test_fraction=0).train
    assert list(source.ids) == [f"x.csv:{n + 2}" for n in range(30)]
    assert source.column("text")[4] == "text 4"


def message(data, error=UserError, **options):
    with pytest.raises(error) as caught:
        load_texts(str(data), **options)
    assert caught.value.came
    assert caught.value.expected
    assert caught.value.fix
    return str(caught.value)


MANY = [{"text": f"text {n}", "label": n % 2} for n in range(60)]


def test_a_line_that_does_not_parse_is_shown(tmp_path):
    path = write_lines(tmp_path / "x.jsonl", MANY)
    lines = path.read_text().splitlines()
    lines[6] = '{"text": "open end", "label": 1'
    lines[8] = "[1, 2]"
    path.write_text("\n".join(lines))
    text = message(path)
    assert 'x.jsonl:7 does not parse as JSON: {"text": "open end", "label": 1' in text
    assert "x.jsonl:9 is no object: [1, 2]" in text
    splits = load_texts(str(path), on_bad="skip")
    assert [example.id for example in splits.bad] == ["x.jsonl:7", "x.jsonl:9"]
    everything = splits.everything()
    assert len(everything) == 58
    by_id = dict(zip(everything.ids, everything.column("text"), strict=True))
    assert by_id["x.jsonl:8"] == "text 7"
    assert by_id["x.jsonl:60"] == "text 59"


def test_a_bad_line_after_the_first_block(tmp_path, monkeypatch):
    monkeypatch.setattr("tfsft.data.text_tables.BLOCK", 2000)
    path = write_lines(
        tmp_path / "x.jsonl", [{"text": f"text {n}", "label": n % 2} for n in range(900)]
    )
    lines = path.read_text().splitlines()
    lines[700] = "{oops"
    path.write_text("\n".join(lines))
    splits = load_texts(str(path), on_bad="skip")
    assert [example.id for example in splits.bad] == ["x.jsonl:701"]
    everything = splits.everything()
    assert sorted(everything.column("text")) == sorted(f"text {n}" for n in range(900) if n != 700)
    for name, text in zip(everything.ids, everything.column("text"), strict=True):
        assert name == f"x.jsonl:{int(text.split()[1]) + 1}"


def test_a_field_that_is_empty_in_the_first_block(tmp_path):
    rows = [
        {"text": f"{n} " + "many " * 250, "label": n % 2 if n > 1000 else None} for n in range(1200)
    ]
    path = write_lines(tmp_path / "x.jsonl", rows)
    assert path.stat().st_size > BLOCK
    splits = load_texts(str(path), on_bad="list")
    assert splits.class_names == ("0", "1")
    assert len(splits.bad) == 1001


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("long", [0, 700])
def test_a_row_that_is_longer_than_a_block(tmp_path, monkeypatch, suffix, long):
    monkeypatch.setattr("tfsft.data.text_tables.BLOCK", 2000)
    texts = [f"text {n}" for n in range(900)]
    texts[long] = "many, many " * 5000
    path = tmp_path / f"x.{suffix}"
    if suffix == "csv":
        write_csv(path, [(text, n % 2) for n, text in enumerate(texts)], ["text", "label"])
    else:
        write_lines(path, [{"text": text, "label": n % 2} for n, text in enumerate(texts)])
    everything = load_texts(str(path)).everything()
    first = 2 if suffix == "csv" else 1
    found = dict(zip(everything.ids, everything.column("text"), strict=True))
    assert found == {f"{path.name}:{n + first}": text for n, text in enumerate(texts)}


def test_rows_without_text_or_label_and_ragged_rows(tmp_path):
    path = tmp_path / "x.csv"
    good = "".join(f"text {n},{n % 2}\n" for n in range(60))
    path.write_text('text,label\n"two\nlines",1\n,1\nx,\na,b,c\n' + good)
    text = message(path)
    assert "3 of 64 texts" in text
    assert "x.csv:3 has no text" in text
    assert "x.csv:4 has no label" in text
    assert "x.csv:5 has 3 cells and not 2: a,b,c" in text
    splits = load_texts(str(path), on_bad="skip")
    assert len(splits.bad) == 3
    everything = splits.everything()
    by_id = dict(zip(everything.ids, everything.column("text"), strict=True))
    assert by_id["x.csv:2"] == "two\nlines"
    assert by_id["x.csv:6"] == "text 0"
    path.write_text("text,label\n" + good + ",\n" * 20)
    assert "at most one in ten" in message(path, on_bad="skip")
    assert len(load_texts(str(path), on_bad="list").bad) == 20


@pytest.mark.parametrize("cell", ["nan", "inf", "1e99", "many"])
def test_numbers_are_finite(tmp_path, cell):
    rows = [(f"text {n}", n) for n in range(40)] + [("last", cell)]
    path = write_csv(tmp_path / "x.csv", rows, ["text", "score"])
    found = message(path, task="regression", label_column="score")
    assert f"x.csv:42 has the label '{cell}', which is not a finite number" in found


def test_what_is_no_table_of_texts(tmp_path):
    def file(name, content):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    assert "is empty" in message(file("a.csv", b""))
    assert "has no rows" in message(file("b.csv", b"text,label\n"))
    assert "binary" in message(file("c.csv", bytes(range(256)) * 9))
    assert "binary" in message(file("d.jsonl", b"PK\x03\x04\0\0\0\0" * 9))
    assert "first line" in message(
        file("e.csv", b"fine film,good\nbad film,bad\nok,good\nno,good\n")
    )
    assert "one column only" in message(file("f.csv", b"text\nabc\n"))
    assert "All labels" in message(file("g.csv", b"text,label\na,x\nb,x\nc,x\n"))
    unnamed = b"label,text,,\n" + b"".join(b"%d,text %d,,\n" % (n % 2, n) for n in range(30))
    assert load_texts(str(file("n.csv", unnamed))).class_names == ("0", "1")
    assert "same name" in message(file("h.csv", b"text,text\na,x\nb,y\n"))
    mixed = b'{"text": "a", "label": 1}\n{"text": "b", "label": "1"}\n'
    assert "line 2: 'label' is text (\"1\"), but a number in line 1" in message(
        file("i.jsonl", mixed)
    )
    assert "line 2" in message(file("j.json", b'[{"text": "a"},\n{"text" "b"}]'))
    assert "cannot be read" in message(file("k.parquet", b"no parquet at all"))
    assert "unknown kind" in message(file("l.docx", b"x"))
    assert "topics" in message(tmp_path / "nothing.csv")
    broken = b"text,label\n" + "é,1\nü,0\n".encode() * 20 + b"\xff,1\n"
    assert "line 42" in message(file("m.csv", broken))
    path = write_csv(tmp_path / "rows.csv")
    assert "Did you mean 'sentiment'?" in message(path, label_column="sentimant")
    assert "Did you mean 'review'?" in message(path, text_column="reviw")
    assert "'review'" in message(
        path, text_column="review", label_column="review", error=UsageError
    )
    message(path, tfds_dir="x", error=UsageError)
    message("topics", text_column="x", error=UsageError)


def test_latin_1_is_recognised(tmp_path):
    rows = [(f"café “{n}”", n % 2) for n in range(30)]
    path = write_csv(tmp_path / "x.csv", rows, ["text", "label"], encoding="cp1252")
    splits = load_texts(str(path))
    assert "Latin-1" in splits.notes[0]
    assert set(splits.everything().column("text")) == {row[0] for row in rows}


def test_classes_keep_their_names_and_numbers_lose_their_point(tmp_path):
    rows = [(f"text {n}", ["007", "NA", "1.0"][n % 3]) for n in range(30)]
    assert load_texts(str(write_csv(tmp_path / "x.csv", rows, ["text", "label"]))).class_names == (
        "1.0", "007", "NA",
    )  # fmt: skip
    lines = [{"text": f"text {n}", "label": n % 3} for n in range(30)]
    assert load_texts(str(write_lines(tmp_path / "x.jsonl", lines))).class_names == ("0", "1", "2")
    dates = [{"text": f"2020-01-{n + 1:02}", "label": f"2021-01-0{n % 2 + 1}"} for n in range(30)]
    splits = load_texts(str(write_lines(tmp_path / "y.jsonl", dates)), text_column="text")
    assert splits.class_names == ("2021-01-01", "2021-01-02")
    assert "2020-01-05" in splits.everything().column("text")


def test_several_labels(tmp_path):
    cells = ["red|blue", "", "blue", "green | red"]
    rows = [(f"text {n}", cells[n % 4]) for n in range(40)]
    lists = [{"text": t, "label": [c.strip() for c in cell.split("|") if c]} for t, cell in rows]
    first = load_texts(str(write_csv(tmp_path / "x.csv", rows, ["text", "label"])), task="multi")
    other = load_texts(str(write_lines(tmp_path / "x.jsonl", lists)), task="multi")
    assert content(first) == content(other)
    wanted = {"red|blue": [1, 0, 1], "": [0, 0, 0], "blue": [1, 0, 0], "green | red": [0, 1, 1]}
    assert first.class_names == ("blue", "green", "red")
    for text, label in zip(first.train.column("text"), first.train.labels.tolist(), strict=True):
        assert label == wanted[cells[int(text.split()[1]) % 4]]


def test_pairs_are_found_by_their_usual_names_only(tmp_path):
    rows = [(f"premise {n}", f"hypothesis {n}", n % 2) for n in range(30)]
    splits = load_texts(
        str(write_csv(tmp_path / "x.csv", rows, ["premise", "hypothesis", "label"]))
    )
    assert splits.train.has("pair")
    assert splits.train.column("pair", slice(0, 1)) == [
        splits.train.column("text", slice(0, 1))[0].replace("premise", "hypothesis")
    ]
    path = str(write_csv(tmp_path / "y.csv", rows, ["text", "notes", "label"]))
    assert not load_texts(path).train.has("pair")
    named = load_texts(path, text_column="notes", text_pair_column="text")
    assert named.train.column("pair", slice(0, 1))[0].startswith("premise")
    swapped = load_texts(path, text_column="text", text_pair_column="notes")
    assert set(named.everything().keys.tolist()).isdisjoint(swapped.everything().keys.tolist())


def test_files_of_splits_are_honoured_and_training_loses_what_they_share(tmp_path):
    rows = [(f"text {n}", n % 2) for n in range(40)]
    write_csv(tmp_path / "train.csv", rows[:30], ["text", "label"])
    write_lines(tmp_path / "dev.jsonl", [{"text": t, "label": c} for t, c in rows[28:35]])
    write_csv(tmp_path / "test.tsv", rows[35:], ["text", "label"], delimiter="\t")
    splits = load_texts(str(tmp_path))
    texts = {name: source.column("text") for name, source in splits.sources().items()}
    assert texts["train"] == [row[0] for row in rows[:28]]
    assert texts["validation"] == [row[0] for row in rows[28:35]]
    assert texts["test"] == [row[0] for row in rows[35:]]
    (warning,) = [w for w in splits.warnings if "also in validation" in w]
    assert warning.startswith("2 training examples")
    assert "train.csv:30" in warning


def test_a_split_column_is_honoured(tmp_path):
    names = ["train", "val", "test"]
    rows = [(f"text {n}", n // 3 % 2, names[n % 3]) for n in range(30)]
    path = write_csv(tmp_path / "x.csv", rows, ["text", "label", "split"])
    splits = load_texts(str(path))
    assert [len(source) for source in splits.sources().values()] == [10, 10, 10]
    assert all(int(text.split()[1]) % 3 == 2 for text in splits.test.column("text"))
    rows[4] = ("text 4", 0, "tset")
    message_text = message(write_csv(path, rows, ["text", "label", "split"]))
    assert "x.csv:6" in message_text
    assert "Did you mean 'test'?" in message_text


def test_class_folders_of_text_files(tmp_path):
    for n in range(24):
        folder = tmp_path / ["spam", "ham"][n % 2]
        folder.mkdir(exist_ok=True)
        (folder / f"{n}.txt").write_bytes(f"täxt {n}\n".encode(["utf-8", "latin-1"][n > 20]))
    splits = load_texts(str(tmp_path))
    assert splits.class_names == ("ham", "spam")
    everything = splits.everything()
    by_id = dict(zip(everything.ids, everything.column("text"), strict=True))
    assert by_id["spam/6.txt"] == "täxt 6"
    assert by_id["ham/23.txt"] == "täxt 23"
    assert len(by_id) == 24
    for name, label in zip(everything.ids, everything.labels, strict=True):
        assert name.startswith(splits.class_names[label])
    (tmp_path / "ham" / "bin.txt").write_bytes(b"\0\1\2")
    (tmp_path / "ham" / "none.txt").write_bytes(b"")
    found = message(tmp_path)
    assert "ham/bin.txt is no text but binary data" in found
    assert "ham/none.txt has no text" in found


def test_the_same_text_with_different_labels_is_listed(tmp_path):
    rows = [(f"text {n}", n % 2) for n in range(30)] + [("text 3", 0), ("text 4", 1)]
    splits = load_texts(str(write_csv(tmp_path / "x.csv", rows, ["text", "label"])))
    assert any(w.startswith("2 examples occur again with another label") for w in splits.warnings)
    listed = {conflict.ids: conflict.labels for conflict in splits.conflicts}
    assert set(map(frozenset, listed)) == {
        frozenset({"x.csv:5", "x.csv:32"}), frozenset({"x.csv:6", "x.csv:33"}),
    }  # fmt: skip
    assert all(set(labels) == {"0", "1"} for labels in listed.values())


def test_classes_that_differ_by_case_or_spaces(tmp_path):
    rows = [(f"text {n}", ["spam", "Spam ", "ham"][n % 3]) for n in range(30)]
    splits = load_texts(str(write_csv(tmp_path / "x.csv", rows, ["text", "label"])))
    assert any("'spam' and 'Spam '" in warning for warning in splits.warnings)


def test_known_classes_keep_their_order(formats):
    names = ("so-so", "bad", "good", "never")
    splits = load_texts(formats["csv"][0], class_names=names)
    assert splits.class_names == names
    first = splits.train.column("text", slice(0, 1))[0]
    assert names[splits.train.labels[0]] == next(row[1] for row in ROWS if row[0] == first)
    assert "'so-so' of rows.csv:4" in message(formats["csv"][0], class_names=("bad", "good"))


def test_quotation_marks_in_tab_separated_files_can_be_just_that(tmp_path):
    path = tmp_path / "x.tsv"
    lines = [f'"open {n}\t{n % 2}' if n % 5 else f"plain {n}\t{n % 2}" for n in range(30)]
    path.write_text("text\tlabel\n" + "\n".join(lines))
    everything = load_texts(str(path)).everything()
    assert '"open 7' in everything.column("text")
    assert len(everything) == 30


def test_the_copy_is_made_once_and_a_killed_run_leaves_none(tmp_path, cache, monkeypatch):
    path = write_csv(tmp_path / "rows.csv")

    def dies(*columns):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tfsft.data.text_loading.content_keys", dies)
        with pytest.raises(KeyboardInterrupt):
            load_texts(str(path))
    assert os.listdir(cache / "texts") == []
    first = content(load_texts(str(path)))
    (name,) = os.listdir(cache / "texts")
    with monkeypatch.context() as patch:
        patch.setattr("tfsft.data.text_loading.content_keys", dies)
        assert content(load_texts(str(path))) == first
    write_csv(path, ROWS[:40])
    assert len(load_texts(str(path)).everything()) == 40
    assert len(os.listdir(cache / "texts")) == 2
    assert name in os.listdir(cache / "texts")


def test_cells_of_chunks_are_taken_one_by_one():
    column = pyarrow.chunked_array([["a", "b"], [], ["c"], ["d", "e", "f"]])
    rows = np.array([5, 2, 0, 3, 2])
    assert text_source.take(column, rows) == ["f", "c", "a", "d", "c"]
    keys = text_source.content_keys(["x", "y", "x"])
    chunks = pyarrow.chunked_array([keys, keys.slice(1)])
    assert text_source.fixed_width(chunks).tolist() == [k.as_py() for k in chunks]


def test_tags_and_questions_of_tfds(tfds_folder):
    tagged = load_tags("tfds:tiny_texts", tfds_dir=tfds_folder)
    assert tagged.tags == ("O", "B-X", "I-X")
    everything = tagged.everything()
    assert sorted(everything.column("text")) == sorted(f"see New York{n}" for n in range(60))
    assert everything.column("tags") == [[0, 1, 2]] * 60
    asked = load_questions("tfds:tiny_texts", tfds_dir=tfds_folder).everything()
    columns = (asked.column(name) for name in ("question", "context", "answers"))
    for question, context, answers in zip(*columns, strict=True):
        number = context.split()[2]
        assert question == f"What {number}?"
        assert answers == [{"text": number, "start": 6}]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_texts(tmp_path):
    code = (
        "import sys\n"
        "from tfsft.data.text_loading import load_texts\n"
        "def anonymous():\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    return next(int(l.split()[1]) for l in lines if l.startswith('RssAnon')) / 1024\n"
        "before = anonymous()\n"
        "splits = load_texts(sys.argv[1])\n"
        "splits.train.column('text', slice(0, 100))\n"
        "print(anonymous() - before)\n"
    )
    grown = []
    for words in (250, 1250):
        path = tmp_path / f"{words}.csv"
        rows = ((f"{n} " + "word " * words, n % 2) for n in range(40_000))
        write_csv(path, rows, ["text", "label"])
        run = subprocess.run(
            [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
        )
        grown.append(float(run.stdout))
    assert grown[1] - grown[0] < 70  # MB, where the files differ by 200 MB
