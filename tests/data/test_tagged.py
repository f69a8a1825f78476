"""Tagged words: columns, lists and spans; schemes, and the line of a mistake."""

import json

import pytest

from tfsft.data.tag_schemes import all_tags, find_scheme, first_contradiction
from tfsft.data.tagged import load_tags
from tfsft.errors import UserError

TAIL = "".join(f"in O\nParis{n} B-LOC\nFrance I-LOC\nAda B-PER\n\n" for n in range(30))


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def conll(tmp_path, start="", tail=TAIL, name="x.conll"):
    (tmp_path / name).write_text(start + tail)
    return str(tmp_path / name)


def tagged(splits):
    """The words and tags of all sentences."""
    source = splits.everything()
    columns = (source.column(name) for name in ("text", "starts", "ends", "tags"))
    return sorted(
        [(text[a:b], splits.tags[tag]) for a, b, tag in zip(starts, ends, tags, strict=True)]
        for text, starts, ends, tags in zip(*columns, strict=True)
    )


def message(data, **options):
    with pytest.raises(UserError) as caught:
        load_tags(data, **options)
    assert caught.value.came
    assert caught.value.expected
    assert caught.value.fix
    return str(caught.value)


def test_the_sample():
    splits = load_tags("sample")
    assert splits.tags == ("O", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-PER", "I-PER")
    assert splits.scheme == "IOB2"
    assert splits.class_names == ("LOC", "ORG", "PER")
    assert splits.warnings == ()
    sentences = tagged(splits)
    assert len(sentences) == 120
    assert [("Marta", "B-PER"), ("Lindqvist", "I-PER"), ("opened", "O")] in [
        sentence[:3] for sentence in sentences
    ]
    for source in splits.sources().values():
        assert (source.labels.sum(0) > 2).all()
        for tags, label in zip(source.column("tags"), source.labels, strict=True):
            types = {splits.tags[tag][2:] for tag in tags} - {""}
            assert types == {n for n, there in zip(splits.class_names, label, strict=True) if there}


def test_the_same_sentences_in_columns_lists_and_spans(tmp_path):
    lists = [
        {
            "tokens": ["in", f"Paris{n}", "France", "Ada"],
            "ner_tags": ["O", "B-LOC", "I-LOC", "B-PER"],
        }
        for n in range(30)
    ]
    spans = []
    for n in range(30):
        end = 15 + len(str(n))
        text = f"in Paris{n} France Ada"
        found = [(3, end, "LOC"), (end + 1, end + 4, "PER")]
        spans.append(
            {"text": text, "entities": [dict(start=s, end=e, label=x) for s, e, x in found]}
        )
    windows = "-DOCSTART- -X- O\n\n" + "".join(
        f"in\tPREP\tO\nParis{n}\tN\tB-LOC\nFrance\tN\tI-LOC\nAda\tN\tB-PER\n\n" for n in range(30)
    )
    first = load_tags(conll(tmp_path))
    assert len(tagged(first)) == 30
    for data in [
        write_lines(tmp_path / "lists.jsonl", lists),
        write_lines(tmp_path / "spans.jsonl", spans),
        conll(tmp_path, windows.replace("\n", "\r\n"), "", "windows.iob"),
    ]:
        other = load_tags(data)
        assert tagged(other) == tagged(first)
        assert other.tags == first.tags
        assert other.fingerprint == first.fingerprint
        assert other.train.fingerprint == first.train.fingerprint


def test_files_of_splits(tmp_path):
    conll(tmp_path, name="train.txt")
    conll(tmp_path, "Oslo B-LOC\n", "", "dev.txt")
    conll(tmp_path, "Rome B-LOC\n", "", "test.txt")
    splits = load_tags(str(tmp_path))
    assert [len(source) for source in splits.sources().values()] == [30, 1, 1]
    assert splits.validation.column("text") == ["Oslo"]


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        ("EU B-ORG\nsays I-PER\n\n", "line 2, 'says I-PER', follows 'EU B-ORG'"),
        ("\n\nEU I-ORG\nsays O\n\n", "line 3, 'EU I-ORG', is the first"),
        ("EU O\nhas B-ORG\nit O\nso I-ORG\n\n", "line 4, 'so I-ORG', follows 'it O'"),
        ("EU B-ORG\nsays\n\n", "has no tag in line 2: says"),
        ("EU B-ORG\nsays it O\n\n", "has 3 columns and not 2 in line 2: says it O"),
    ],
)
def test_the_line_of_a_mistake_is_shown(tmp_path, start, reason):
    data = conll(tmp_path, start)
    assert reason in message(data)
    splits = load_tags(data, on_bad="skip")
    assert len(splits.bad) == 1
    assert len(splits.everything()) == 30


def test_rows_that_cannot_be_used(tmp_path):
    good = [{"tokens": ["a", f"b{n}"], "tags": ["O", "B-X"]} for n in range(40)]
    data = write_lines(tmp_path / "x.jsonl", [*good, {"tokens": ["a"], "tags": ["O", "O"]}])
    assert "x.jsonl:41 has 1 words and 2 tags" in message(data)
    spans = [
        {"text": f"Bob {n}", "spans": [{"start": 0, "end": 3, "label": "PER"}]} for n in range(40)
    ]
    bad = [
        {"text": "Berlin", "spans": [{"start": 0, "end": 3, "label": "LOC"}]},
        {"text": "Bob", "spans": [{"start": 0, "end": 9, "label": "LOC"}]},
    ]
    found = message(write_lines(tmp_path / "y.jsonl", spans + bad))
    assert "y.jsonl:41 has a span 'Ber' that cuts a word: ... Berlin ..." in found
    assert "y.jsonl:42 has a span 0 to 9, but 3 characters" in found
    assert "Did you mean 'B-PER'" in message(
        conll(tmp_path, "Bob B-PERS\n\n"), tags=("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
    )


def test_known_tags_keep_their_order(tmp_path):
    tags = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG")
    splits = load_tags(conll(tmp_path), tags=tags)
    assert splits.tags == tags
    assert splits.class_names == ("PER", "LOC", "ORG")
    assert splits.train.column("tags", slice(0, 1)) == [[0, 3, 4, 1]]


@pytest.mark.parametrize(
    ("tags", "scheme", "complete"),
    [
        (["O", "B-X", "I-X"], "IOB2", ["O", "B-X", "I-X"]),
        (["O", "B-X"], "IOB2", ["O", "B-X", "I-X"]),
        (["U-X", "B-X", "L-X"], "BILOU", ["O", "B-X", "I-X", "L-X", "U-X"]),
        (["S-X", "B-X", "E-X", "O"], "IOBES", ["O", "B-X", "I-X", "E-X", "S-X"]),
        (["NN", "DET"], "plain", ["DET", "NN"]),
        (["PER", "O"], "plain", ["O", "PER"]),
    ],
)
def test_schemes(tags, scheme, complete):
    assert find_scheme(tags) == scheme
    assert all_tags(tags, scheme) == tuple(complete)


@pytest.mark.parametrize("tags", [["B-X", "X"], ["B-X", "L-X", "E-X"]])
def test_mixed_schemes(tags):
    with pytest.raises(UserError):
        find_scheme(tags)


@pytest.mark.parametrize(
    ("scheme", "tags", "place"),
    [
        ("IOB2", "B-X I-X B-X O B-Y I-Y", None),
        ("IOB2", "B-X I-Y", 1),
        ("IOB2", "O I-X", 1),
        ("BILOU", "B-X I-X L-X U-Y O", None),
        ("BILOU", "B-X O", 1),
        ("BILOU", "B-X B-X", 1),
        ("BILOU", "U-X L-X", 1),
        ("BILOU", "O B-X", 2),
        ("IOBES", "B-X E-X S-X O", None),
        ("IOBES", "B-X E-Y", 1),
        ("IOBES", "S-X I-X", 1),
        ("plain", "X Y X", None),
    ],
)
def test_contradictions(scheme, tags, place):
    assert first_contradiction(tags.split(), scheme) == place
