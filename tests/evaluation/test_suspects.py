"""Likely wrong labels as cleanlab finds them, near-duplicates by brute force, and the table."""

import numpy as np
import pytest

from tfsft.evaluation import write_report
from tfsft.evaluation.suspects import (
    FILE,
    Suspect,
    likely_mislabelled,
    near_duplicates,
    neighbours,
    read_suspects,
    shares_of_neighbours,
    write_suspects,
)


def test_confident_learning_by_hand():
    """Usual: of class 0 (0.9 + 0.8 + 0.1) / 3 = 0.6, of class 1 (0.7 + 0.9 + 0.45) / 3 = 0.68.

    The third example says 1 with 0.9, at least the usual 0.68, and is labelled 0. The last one is
    labelled 1 and says 0 with 0.55, which is less than 0.6: nothing is sure of it.
    """
    labels = np.array([0, 0, 0, 1, 1, 1])
    first = np.array([0.9, 0.8, 0.1, 0.3, 0.1, 0.55])
    found = likely_mislabelled(labels, np.stack([first, 1 - first], axis=1))
    assert found.tolist() == [False, False, True, False, False, False]


def test_confident_learning_as_cleanlab_does_it():
    """What find_label_issues(filter_by="confident_learning") of cleanlab 2.9.0 says of this."""
    labels = np.array([0, 0, 0, 1, 1, 1, 2, 0, 1, 1, 1, 2, 1, 0, 1, 1, 2, 2])
    first = [0.74, 0.71, 0.13, 0.24, 0.15, 0.11, 0.12, 0.63, 0.39]
    first += [0.8, 0.14, 0.08, 0.42, 0.74, 0.0, 0.66, 0.08, 0.13]
    second = [0.17, 0.26, 0.12, 0.65, 0.66, 0.79, 0.37, 0.28, 0.56]
    second += [0.06, 0.55, 0.24, 0.58, 0.21, 0.54, 0.27, 0.03, 0.11]
    first, second = np.array(first), np.array(second)
    probabilities = np.stack([first, second, 1 - first - second], axis=1)
    assert np.flatnonzero(likely_mislabelled(labels, probabilities)).tolist() == [2, 9, 15]


def test_a_class_that_nobody_has_is_suggested_to_nobody():
    probabilities = np.array([[0.1, 0.1, 0.8], [0.2, 0.1, 0.7], [0.1, 0.9, 0.0]])
    assert not likely_mislabelled(np.array([0, 0, 1]), probabilities).any()


def test_neighbours_by_brute_force():
    features = np.random.default_rng(0).normal(size=(1500, 6))  # more than a block
    places, distances = neighbours(features, 4)
    for row in (0, 700, 1100, 1499):
        cosines = features @ features[row]
        cosines /= np.linalg.norm(features, axis=1) * np.linalg.norm(features[row])
        cosines[row] = -np.inf
        expected = np.argsort(-cosines)[:4]
        np.testing.assert_array_equal(places[row], expected)
        np.testing.assert_allclose(distances[row], 1 - cosines[expected], atol=1e-5)
    labels = np.random.default_rng(1).integers(0, 3, 1500)
    shares = shares_of_neighbours(places, labels, 3)
    assert shares[7].tolist() == [(labels[places[7]] == c).mean() for c in range(3)]


def test_near_duplicates_are_far_nearer_than_usual():
    features = np.random.default_rng(0).normal(size=(60, 5))
    features[7] = features[41] * 2  # the same direction
    features[3] = features[50] + 1e-3
    assert near_duplicates(*neighbours(features)) == [(3, 50), (7, 41)]


ROWS = [
    Suspect("label", "train", "a.png", "cat", "dog", 0.1),
    Suspect("near duplicate", "train", "b, c.png", "cat", twin="d.png", twin_split="test",
            twin_label="dog", text='says "miaow"'),
]  # fmt: skip


def test_the_table_is_read_as_it_was_written(tmp_path):
    write_suspects(tmp_path / FILE, ROWS)
    first, second = read_suspects(tmp_path / FILE)
    assert first == ROWS[0]
    assert second.label_probability == 0
    assert (second.id, second.twin_label, second.text) == ("b, c.png", "dog", 'says "miaow"')


def test_the_report_shows_suspects_and_what_is_confused(write_run, tmp_path):
    labels = np.array([0, 0, 0, 1, 1, 1])
    outputs = np.eye(2)[[0, 0, 1, 1, 1, 1]] * 0.8 + 0.1
    texts = [f"text number {i}" for i in range(6)]
    write_run(tmp_path, "single", labels, outputs, ("cat", "dog"), texts=texts)
    assert "What to look at in the data" not in write_report(tmp_path).read_text()
    write_suspects(tmp_path / FILE, ROWS)
    page = write_report(tmp_path, thumbnails={"a.png": b"\x89PNG" + b"\0" * 30}).read_text()
    section = page[page.index("What to look at in the data") :]
    assert "<b>1</b> label is likely wrong" in section
    assert "1 of them with different labels; 1 across splits" in section
    assert 'alt="a.png"' in section
    pairs = page[page.index("What it mixes up") : page.index("Its only mistake")]
    assert "text number 2" in pairs
    assert "text number 1" not in pairs


@pytest.mark.parametrize("found", [[], ROWS[1:]])
def test_nothing_suspicious_is_said_as_well(write_run, tmp_path, found):
    write_run(tmp_path, "single", np.array([0, 1]), np.eye(2) * 0.8 + 0.1, ("cat", "dog"))
    write_suspects(tmp_path / FILE, found)
    assert "No label looks wrong" in " ".join(write_report(tmp_path).read_text().split())
