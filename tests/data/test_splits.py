"""Splits are stratified, exact to rounding, and depend on content alone."""

import time
import tracemalloc

import numpy as np
import pytest

from tfsft.data.labels import class_weights
from tfsft.data.sources import ArrayStorage, ImageSource
from tfsft.data.splits import (
    TRAIN,
    VALIDATION,
    _fill_gaps,
    check_fractions,
    fingerprint,
    split_rows,
    strata,
    stratified_subset,
)
from tfsft.errors import UsageError

SEEDS = range(20)


def make_keys(count, start=0):
    return np.array([f"{(start + row) * 2654435761 % 2**64:032x}" for row in range(count)])


def random_labels(random, sizes):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return random.permutation(labels)


@pytest.mark.parametrize("seed", SEEDS)
def test_fractions_are_met_in_each_class_to_rounding(seed):
    random = np.random.default_rng(seed)
    sizes = random.integers(3, 200, size=7)
    labels = random_labels(random, sizes)
    validation_fraction, test_fraction = random.uniform(0.05, 0.4, size=2)
    sides = split_rows(
        labels,
        make_keys(len(labels)),
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        seed=seed,
    )
    for label, size in enumerate(sizes):
        counts = np.bincount(sides[labels == label], minlength=3)
        assert counts.min() >= 1
        for count, fraction in [(counts[1], validation_fraction), (counts[2], test_fraction)]:
            assert count == 1 or abs(count - size * fraction) <= 1


@pytest.mark.parametrize("seed", SEEDS)
def test_duplicates_stay_together(seed):
    random = np.random.default_rng(seed)
    contents = random.integers(0, 60, size=200)
    labels = contents % 3
    sides = split_rows(labels, make_keys(60)[contents], seed=seed)
    for content in np.unique(contents):
        assert len(set(sides[contents == content])) == 1
    for label in range(3):
        assert set(sides[labels == label]) == {0, 1, 2}


@pytest.mark.parametrize("seed", SEEDS)
def test_fractions_are_met_to_half_of_the_largest_copy_set(seed):
    sizes = np.random.default_rng(seed).integers(1, 10, 100)
    keys = np.repeat(make_keys(100), sizes)
    sides = split_rows(np.zeros(len(keys), np.int64), keys, seed=seed)
    quota = np.rint(0.15 * len(keys))
    assert abs((sides == 2).sum() - quota) <= 4.5
    assert abs((sides > 0).sum() - 2 * quota) <= 4.5


@pytest.mark.parametrize("seed", SEEDS)
def test_groups_joined_by_duplicates_stay_together(seed):
    """The units are the connected components that a plain union-find gives."""
    random = np.random.default_rng(seed)
    contents = random.integers(0, 900, size=320)
    groups = np.array([f"p{number}" if number else "" for number in random.integers(0, 150, 320)])
    labels = random.integers(0, 2, size=320)
    sides = split_rows(labels, make_keys(900)[contents], groups, seed=seed)

    parent = list(range(320))

    def root(row):
        while parent[row] != row:
            row = parent[row]
        return row

    for values in (contents.tolist(), groups.tolist()):
        first = {}
        for row, value in enumerate(values):
            if value != "":
                parent[root(row)] = root(first.setdefault(value, row))
    roots = np.array([root(row) for row in range(320)])
    assert 20 < len(set(roots)) < 150
    for unit in np.unique(roots):
        assert len(set(sides[roots == unit])) == 1
    assert set(sides) == {0, 1, 2}


def test_the_split_does_not_depend_on_the_order_of_the_examples():
    random = np.random.default_rng(0)
    labels, keys = random_labels(random, [50, 20, 9]), make_keys(79)
    sides = split_rows(labels, keys)
    order = random.permutation(79)
    np.testing.assert_array_equal(split_rows(labels[order], keys[order]), sides[order])


def test_another_seed_gives_another_split():
    labels, keys = np.zeros(200, np.int64), make_keys(200)
    first, again, other = (split_rows(labels, keys, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.2


@pytest.mark.parametrize("seed", SEEDS)
def test_adding_pictures_moves_few_of_the_old_ones(seed):
    labels = np.arange(1100) % 4
    keys = make_keys(1100)
    before = split_rows(labels[:1000], keys[:1000], seed=seed)
    after = split_rows(labels, keys, seed=seed)[:1000]
    assert (before != after).mean() < 0.05  # 0.45 would move if they were drawn afresh


def test_the_side_of_a_group_does_not_depend_on_its_pictures():
    random = np.random.default_rng(0)
    groups = np.array([f"p{number}" for number in random.integers(0, 100, 1000)])
    labels = random.integers(0, 2, 1000)
    before = split_rows(labels, make_keys(1000), groups)
    after = split_rows(labels, make_keys(1000, start=5000), groups)
    np.testing.assert_array_equal(before, after)


def test_a_class_too_small_for_every_side_is_trained_first():
    labels = np.repeat([0, 1, 2], [40, 2, 1])
    sides = split_rows(labels, make_keys(43))
    assert sorted(sides[labels == 1]) == [0, 1]
    assert sides[labels == 2].tolist() == [0]


def test_classes_in_few_groups_are_on_every_side_that_they_can_reach():
    """Class 1 is in three groups that hold many of class 0, which alone would put them anywhere."""
    for seed in SEEDS:
        groups = np.array([f"p{number}" for number in range(30) for _ in range(10)])
        labels = np.zeros(300, np.int64)
        labels[[5, 105, 205]] = 1
        sides = split_rows(labels, make_keys(300), groups, seed=seed)
        assert set(sides[labels == 1]) == {0, 1, 2}
        shares = np.bincount(sides[labels == 0], minlength=3) / 297
        np.testing.assert_allclose(shares, [0.7, 0.15, 0.15], atol=0.08)


def test_filling_a_gap_does_not_tear_another():
    # Class 0 lacks validation. Unit 0 comes first, but is all of class 1 in train.
    side = np.array([TRAIN, TRAIN, VALIDATION], np.int8)
    units, classes = np.array([0, 0, 1, 2]), np.array([0, 1, 0, 1])
    _fill_gaps(side, units, classes, np.arange(3), [TRAIN, VALIDATION])
    assert side.tolist() == [TRAIN, VALIDATION, VALIDATION]


def test_a_fraction_of_zero_leaves_a_side_empty():
    labels, keys = np.arange(60) % 3, make_keys(60)
    assert set(split_rows(labels, keys, test_fraction=0.0)) == {0, 1}
    assert set(split_rows(labels, keys, validation_fraction=0.0)) == {0, 2}
    assert set(split_rows(labels, keys, validation_fraction=0.0, test_fraction=0.0)) == {0}


@pytest.mark.parametrize("seed", SEEDS)
def test_numbers_are_spread_evenly(seed):
    random = np.random.default_rng(seed)
    labels = random.lognormal(size=400).astype(np.float32)
    sides = split_rows(labels, make_keys(400), seed=seed)
    np.testing.assert_array_equal(np.bincount(sides), [280, 60, 60])
    tenths = np.searchsorted(np.quantile(labels, np.arange(1, 10) / 10), labels)
    for side in (1, 2):
        np.testing.assert_array_equal(np.bincount(tenths[sides == side], minlength=10), 6)


@pytest.mark.parametrize("seed", SEEDS)
def test_several_labels_each_reach_every_side(seed):
    random = np.random.default_rng(seed)
    labels = (random.random((500, 8)) < [0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.015, 0.01]).astype("f4")
    sides = split_rows(labels, make_keys(500), seed=seed)
    for column in range(8):
        positive = labels[:, column] > 0
        if positive.sum() >= 3:
            assert set(sides[positive]) == {0, 1, 2}
        if positive.sum() >= 100:
            np.testing.assert_allclose(
                np.bincount(sides[positive]) / positive.sum(), [0.7, 0.15, 0.15], atol=0.06
            )


def test_conflicting_labels_of_one_content_stay_together():
    keys = make_keys(40)
    keys[20:] = keys[:20]
    labels = np.repeat([0, 1], 20)
    sides = split_rows(labels, keys)
    np.testing.assert_array_equal(sides[:20], sides[20:])


def test_splitting_takes_little_memory():
    count = 100_000
    keys = np.array([key[16:] for key in make_keys(count)], "S16")
    labels = np.arange(count) % 2
    tracemalloc.start()  # NumPy tells it of its arrays
    try:
        split_rows(labels, keys)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 70 * count


def test_a_million_rows_take_seconds():
    labels, keys = np.arange(1_000_000) % 1000, make_keys(1_000_000)
    start = time.perf_counter()
    sides = split_rows(labels, keys)
    assert time.perf_counter() - start < 20  # about 4 on an idle machine
    np.testing.assert_array_equal(np.bincount(sides), [700_000, 150_000, 150_000])


@pytest.mark.parametrize("fractions", [(1.0, 0.0), (-0.1, 0.1), (0.5, 0.5), (float("nan"), 0.1)])
def test_fractions_out_of_range_are_refused(fractions):
    with pytest.raises(UsageError, match="fraction"):
        check_fractions(*fractions)


def test_a_quick_subset_keeps_every_class_and_its_share():
    labels = np.repeat([0, 1, 2], [800, 190, 10])
    ids = [f"{row}.png" for row in range(1000)]
    rows = stratified_subset(strata(labels), ids, 100, at_least=3)
    np.testing.assert_array_equal(np.bincount(labels[rows]), [80, 19, 3])
    np.testing.assert_array_equal(rows, stratified_subset(strata(labels), ids, 100, at_least=3))
    assert (np.diff(rows) > 0).all()
    assert not (rows[:80] == np.arange(80)).all()  # not merely the first ones
    assert len(stratified_subset(strata(labels), ids, 5000, at_least=3)) == 1000


def test_the_fingerprint_stands_for_each_part():
    def make(side="train", names=("a", "b"), keys=(1, 2), labels=(0, 1)):
        keys = np.array([f"{key:032x}" for key in keys])
        storage = ArrayStorage(np.zeros((2, 1, 1, 3), np.uint8))
        source = ImageSource(storage, np.arange(2), ["x", "y"], np.array(labels), names, keys)
        return fingerprint({side: source})

    others = [make("test"), make(names=("a", "c")), make(keys=(1, 3)), make(labels=(1, 1))]
    assert len({make(), make(), *others}) == 5


def test_class_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.repeat([0, 1, 3], [7, 2, 11])
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels)
    np.testing.assert_allclose(class_weights(labels, 3 + 1)[[0, 1, 3]], expected * 3 / 4, rtol=1e-6)
    assert class_weights(labels, 4)[2] == 0
    labels = np.repeat([0, 1, 2], [7, 2, 11])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(class_weights(labels, 3), expected, rtol=1e-6)
