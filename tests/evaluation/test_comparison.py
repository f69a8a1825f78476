"""Runs side by side: figures against scikit-learn, tests against calculations by hand."""

import json
import math

import numpy as np
import pytest
from sklearn import metrics as sk

from tfsft.errors import UsageError
from tfsft.evaluation.comparison import compare, holm, mcnemar
from tfsft.evaluation.comparison_page import (
    comparison_as_data,
    comparison_as_text,
    write_comparison,
)

NAMES = ("ant", "bee", "cat")
N = 60


def labels(seed=0):
    return np.random.default_rng(seed).integers(0, 3, N)


def answers(right, seed, labels=None):
    """Probabilities of a model that is right on these examples and wrong on all others."""
    random = np.random.default_rng(seed)
    labels = globals()["labels"]() if labels is None else labels
    outputs = random.dirichlet((1, 1, 1), N) * 0.1
    said = np.where(right, labels, (labels + 1) % 3)
    outputs[np.arange(N), said] += 0.9
    return outputs


@pytest.fixture
def make(write_run, tmp_path):
    def make(name, *arguments, **options):
        folder = write_run(tmp_path / name, *arguments, **options)
        (folder / "model.keras").touch()
        return folder

    return make


@pytest.fixture
def pair(make):
    """A is right on the first 40 of 60, B on all but 3 of these and 13 more."""
    right = np.arange(N) < 40
    other = (np.arange(N) >= 3) & (np.arange(N) < 53)
    return (
        make("a", "single", labels(), answers(right, 1), NAMES, settings={"epochs": 3}),
        make("b", "single", labels(), answers(other, 2), NAMES, settings={"epochs": 5}),
    )


def test_mcnemar_is_the_sum_of_a_binomial():
    # 13 against 3: twice the tail of 16 throws of a coin.
    tail = sum(math.comb(16, k) for k in range(4)) / 2**16
    assert mcnemar(13, 3) == pytest.approx(2 * tail, abs=1e-12)
    assert mcnemar(3, 13) == mcnemar(13, 3)
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.5]) == [1.0, 1.0]


def test_better_or_luck(pair):
    found = compare(pair)
    (verdict,) = found.verdicts
    assert (verdict.gained, verdict.lost) == (13, 3)
    assert verdict.p == mcnemar(13, 3)
    assert verdict.word == "better"
    assert verdict.difference.value == pytest.approx(10 / N)
    assert compare(pair[::-1]).verdicts[0].word == "worse"
    assert found.settings == [("epochs", [3, 5])]
    assert found.notes == []


def test_equal_answers_are_luck_in_every_test(make):
    twins = [make(n, "single", labels(), answers(np.arange(N) < 40, 1), NAMES) for n in "cd"]
    assert "in 100% of such tests (McNemar" in comparison_as_text(compare(twins))


def test_three_runs_are_corrected_for_luck(pair, make):
    third = make("c", "single", labels(), answers(np.arange(N) < 41, 3), NAMES)
    found = compare([*pair, third])
    assert found.verdicts[0].p == pytest.approx(2 * mcnemar(13, 3))
    assert found.verdicts[1].word == "luck"
    assert "C against A: this may be luck" in comparison_as_text(found)


def test_figures_of_classes_are_those_of_the_run(pair):
    found = compare(pair)
    for place, folder in enumerate(pair):
        expected = json.loads((folder / "metrics.json").read_text())["test"]
        for name in ("accuracy", "balanced_accuracy", "f1_macro"):
            assert found.estimates[name][place].value == pytest.approx(expected[name], abs=1e-12)


def test_figures_of_other_kinds_are_those_of_the_run(make, write_tag_run, tmp_path):
    random = np.random.default_rng(5)
    several = random.random((N, 3)) < 0.4
    numbers = random.normal(50, 9, N)
    kinds = {
        "multi": (several.astype(int), [random.random((N, 3)) for _ in "ab"], NAMES),
        "regression": (numbers, [numbers + random.normal(0, s, N) for s in (1, 3)], ()),
    }
    for kind, (truth, outputs, names) in kinds.items():
        folders = [
            make(f"{kind}-{i}", kind, truth, output, names) for i, output in enumerate(outputs)
        ]
        found = compare(folders, samples=50)
        for place, folder in enumerate(folders):
            expected = json.loads((folder / "metrics.json").read_text())["test"]
            assert len(found.estimates) >= 3
            for name, estimates in found.estimates.items():
                assert estimates[place].value == pytest.approx(expected[name], abs=1e-5), name
    assert found.verdicts[0].word == "worse"  # three times the noise, and smaller is better
    assert found.verdicts[0].test == "bootstrap"

    said = [((0, 3, "PER"),), ((0, 3, "PER"), (4, 7, "LOC"))]
    folders = []
    for name, spans in zip("xy", said, strict=True):
        example = ("Ada saw it", ((0, 3, "PER"), (4, 7, "LOC")), spans, 0.9)
        folders.append(tmp_path / name)
        write_tag_run(folders[-1], [example, ("Bob", ((0, 3, "PER"),), (), 0.5)], ("LOC", "PER"))
        (folders[-1] / "model.keras").touch()
    found = compare(folders, samples=50)
    for place, folder in enumerate(folders):
        expected = json.loads((folder / "metrics.json").read_text())["test"]
        for name in ("f1", "precision", "recall"):
            assert found.estimates[name][place].value == pytest.approx(expected[name])


def test_intervals_are_those_of_a_plain_bootstrap(pair):
    """Scikit-learn on examples drawn by a loop of our own."""
    found = compare(pair).estimates
    truth, said = labels(), answers(np.arange(N) < 40, 1).argmax(axis=1)
    random = np.random.default_rng(99)
    drawn = [random.integers(N, size=N) for _ in range(1000)]
    for name, score in (
        ("accuracy", sk.accuracy_score),
        ("balanced_accuracy", sk.balanced_accuracy_score),
        ("f1_macro", lambda a, b: sk.f1_score(a, b, average="macro")),
    ):
        values = [score(truth[rows], said[rows]) for rows in drawn]
        estimate = found[name][0]
        expected = np.quantile(values, [0.025, 0.975])
        np.testing.assert_allclose([estimate.low, estimate.high], expected, atol=0.025)
    accuracy = found["accuracy"][0]
    spread = 1.96 * math.sqrt(2 / 3 * 1 / 3 / N)  # of a share
    assert accuracy.high - accuracy.low == pytest.approx(2 * spread, rel=0.1)


def test_only_common_examples_count(make):
    ids = [f"{i}.png" for i in range(N)]
    right = np.arange(N) < 40
    a = make("a", "single", labels(), answers(right, 1), NAMES, ids=ids)
    shifted = [*ids[10:], *(f"new {i}.png" for i in range(10))]
    moved = np.concatenate([labels()[10:], labels(1)[:10]])
    b = make("b", "single", moved, answers(right, 2, moved), NAMES, ids=shifted,
             data={"fingerprint": "other"})  # fmt: skip
    found = compare([a, b])
    assert found.examples == 50
    assert found.estimates["accuracy"][0].value == pytest.approx(30 / 50)
    assert "Only the 50 examples" in found.notes[0]
    assert "not trained on the same data" in found.notes[1]


def test_the_page_asks_for_nothing_from_outside(pair, tmp_path):
    page = write_comparison(compare(pair, samples=50), tmp_path / "page.html").read_text()
    assert "B is better than A" in page
    assert "Learning curves of the runs" in page
    for word in ("<script", "http://", "https://"):
        assert word not in page.replace("http://www.w3.org/", "")
    data = comparison_as_data(compare(pair, samples=50))
    assert json.loads(json.dumps(data, allow_nan=False))["verdicts"][0]["gained"] == 13


def test_what_cannot_be_compared(pair, make, tmp_path):
    a, b = pair
    other = make("other", "single", labels(), answers(np.arange(N) < 9, 1), NAMES,
                 ids=[f"x{i}" for i in range(N)])  # fmt: skip
    numbers = make("numbers", "regression", labels(), labels() + 0.5)
    (tmp_path / "empty").mkdir()
    for folders, words in (
        ([a], "1 run was given"),
        ([a, a], "was given twice"),
        ([a, tmp_path / "empty"], "is not the folder of a run"),
        ([a, other], "tested on different examples"),
        ([a, numbers], "about image regression"),
    ):
        with pytest.raises(UsageError, match=words):
            compare(folders)
    (b / "model.keras").unlink()
    with pytest.raises(UsageError, match="not finished"):
        compare([a, b])
