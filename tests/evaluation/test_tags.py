"""Entities and their figures by hand and against seqeval, for what models write too."""

import json
import warnings

import numpy as np
import pytest
from seqeval import metrics as seqeval
from seqeval.scheme import BILOU, IOBES

from tfsft.evaluation import tag_metrics, tag_spans


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("B-PER I-PER O B-LOC", [("PER", 0, 1), ("LOC", 3, 3)]),
        ("B-PER B-PER I-PER", [("PER", 0, 0), ("PER", 1, 2)]),
        # what models write: I after O, and a type that changes on the way
        ("O I-PER I-PER O", [("PER", 1, 2)]),
        ("B-PER I-LOC I-LOC", [("PER", 0, 0), ("LOC", 1, 2)]),
        ("B-ORG-SUB I-ORG-SUB", [("ORG-SUB", 0, 1)]),
        ("B I O I", [("_", 0, 1), ("_", 3, 3)]),
        ("B-A I-A L-A U-A O B-B L-B", [("A", 0, 2), ("A", 3, 3), ("B", 5, 6)]),
        ("B-A I-A E-A S-A O B-B E-B", [("A", 0, 2), ("A", 3, 3), ("B", 5, 6)]),
        ("L-A L-A I-A", [("A", 0, 0), ("A", 1, 1), ("A", 2, 2)]),
        ("U-A I-A", [("A", 0, 0), ("A", 1, 1)]),
        ("NOUN NOUN O VERB NOUN", [("NOUN", 0, 1), ("VERB", 3, 3), ("NOUN", 4, 4)]),
        ("人名 人名 O", [("人名", 0, 1)]),
        ("O O", []),
        ("", []),
    ],
)
def test_spans_by_hand(tags, spans):
    assert tag_spans(tags.split()) == spans


def test_plain_tags_that_look_like_prefixes_are_told_apart_by_the_others():
    # "I" alone would be a bare IOB tag; beside "VERB" it is a type
    got = tag_metrics([["I", "I"], ["VERB"]], [["I", "O"], ["VERB"]])
    assert [row["class"] for row in got["per_class"]] == ["I", "VERB"]
    assert got["f1"] == pytest.approx(0.5)  # two true, two predicted, one right


def test_figures_by_hand():
    true = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-PER", "O"]]
    said = [["B-PER", "I-PER", "O", "B-PER"], ["O", "B-PER", "I-PER"]]
    got = json.loads(json.dumps(tag_metrics(true, said, ("PER", "LOC", "ORG")), allow_nan=False))
    # true: PER 0-1, LOC 3, PER 1 | said: PER 0-1 (right), PER 3, PER 1-2
    assert got == {
        "examples": 2,
        "words": 7,
        "entities": 3,
        "entities_predicted": 3,
        "precision": pytest.approx(1 / 3),
        "recall": pytest.approx(1 / 3),
        "f1": pytest.approx(1 / 3),
        "precision_macro": pytest.approx((1 / 3 + 0) / 2),  # LOC is never named and counts as 0
        "recall_macro": pytest.approx((1 / 2 + 0) / 2),
        "f1_macro": pytest.approx((2 / 5 + 0) / 2),
        "precision_weighted": pytest.approx((2 * 1 / 3 + 0) / 3),
        "recall_weighted": pytest.approx((2 * 1 / 2 + 0) / 3),
        "f1_weighted": pytest.approx((2 * 2 / 5 + 0) / 3),
        "accuracy": pytest.approx(5 / 7),
        "per_class": [
            {"class": "PER", "support": 2, "predicted": 3, "precision": pytest.approx(1 / 3),
             "recall": 0.5, "f1": pytest.approx(2 / 5)},
            {"class": "LOC", "support": 1, "predicted": 0, "precision": None, "recall": 0.0,
             "f1": 0.0},
            {"class": "ORG", "support": 0, "predicted": 0, "precision": None, "recall": None,
             "f1": None},
        ],
    }  # fmt: skip


def test_no_entities_at_all():
    got = tag_metrics([["O", "O"]], [["O", "O"]])
    assert [got[key] for key in ("precision", "recall", "f1", "f1_macro")] == [None] * 4
    assert got["accuracy"] == 1.0
    assert tag_metrics([["O"]], [["B-A"]])["f1"] == 0.0
    assert tag_metrics([["B-A"]], [["O"]])["precision"] == 0.0
    with pytest.raises(ValueError, match="lengths"):
        tag_metrics([["O"]], [["O", "O"]])


def sequences(tags, seed, examples=8):
    """Random true tags, and predicted ones that agree with most of them: all kinds of nonsense."""
    rng = np.random.default_rng(seed)
    true, said = [], []
    for length in rng.integers(1, 14, examples):
        words = rng.choice(tags, length).tolist()
        true.append(words)
        said.append([w if rng.random() < 0.7 else str(rng.choice(tags)) for w in words])
    return true, said


def assert_equals_seqeval(got, true, said, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = seqeval.classification_report(
            true, said, output_dict=True, zero_division=0, **options
        )
        accuracy = seqeval.accuracy_score(true, said)
    assert got["accuracy"] == pytest.approx(accuracy)
    averages = {"": "micro avg", "_macro": "macro avg", "_weighted": "weighted avg"}
    for suffix, name in averages.items():
        for key, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            assert got[key + suffix] == pytest.approx(report[name][theirs]), (key, suffix)
    assert got["entities"] == report["micro avg"]["support"]
    rows = {row["class"]: row for row in got["per_class"]}
    assert rows.keys() == report.keys() - set(averages.values())
    for name, row in rows.items():
        for key, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            assert (row[key] or 0) == pytest.approx(report[name][theirs])
        assert row["support"] == report[name]["support"]


@pytest.mark.parametrize("prefixes", ["BI", "BIES"])
@pytest.mark.parametrize("seed", range(100))
def test_any_tags_score_as_in_seqeval(prefixes, seed):
    tags = ["O", "O", *(f"{p}-{t}" for p in prefixes for t in ("PER", "LOC", "ORG-X"))]
    true, said = sequences(tags, seed)
    assert_equals_seqeval(tag_metrics(true, said), true, said)


@pytest.mark.parametrize(("scheme", "last", "single"), [(BILOU, "L", "U"), (IOBES, "E", "S")])
@pytest.mark.parametrize("seed", range(50))
def test_well_formed_tags_score_as_in_strict_seqeval(scheme, last, single, seed):
    rng = np.random.default_rng(seed)

    def well_formed():
        tags = []
        for length in rng.integers(0, 4, 6):
            kind = rng.choice(["PER", "LOC"])
            if length == 1:
                tags.append(f"{single}-{kind}")
            elif length:
                tags += [f"B-{kind}", *[f"I-{kind}"] * (length - 2), f"{last}-{kind}"]
            else:
                tags.append("O")
        return tags[:6] if len(tags) == 6 else well_formed()

    true = [well_formed() for _ in range(6)]
    said = [tags if rng.random() < 0.5 else well_formed() for tags in true]
    assert_equals_seqeval(tag_metrics(true, said), true, said, mode="strict", scheme=scheme)
