"""The order of the examples is a pure function of (seed, epoch), and every example has its turn."""

import numpy as np
import pytest

from tfsft.data import BatchPlan


@pytest.mark.parametrize(("size", "batch_size"), [(10, 4), (8, 4), (3, 8), (1, 1)])
def test_every_example_once_and_the_rest_is_filler(size, batch_size):
    plan = BatchPlan(size, batch_size, seed=5)
    rows, weights = plan.epoch(2)
    assert rows.shape == weights.shape == (plan.steps, batch_size)
    assert sorted(rows[weights > 0]) == list(range(size))
    assert weights.sum() == size
    assert set(np.unique(weights)) <= {0.0, 1.0}


def test_order_depends_on_seed_and_epoch_alone():
    first = BatchPlan(100, 8, seed=1).epoch(3)[0]
    np.testing.assert_array_equal(first, BatchPlan(100, 8, seed=1).epoch(3)[0])
    assert (first != BatchPlan(100, 8, seed=2).epoch(3)[0]).any()
    assert (first != BatchPlan(100, 8, seed=1).epoch(4)[0]).any()


def test_without_shuffling_the_order_is_that_of_the_source():
    rows, _ = BatchPlan(7, 4, shuffle=False).epoch(9)
    np.testing.assert_array_equal(rows.ravel()[:7], np.arange(7))


def test_shuffling_is_even():
    """Over 2,000 epochs each example is first as often as any: chi-squared with 9 degrees."""
    firsts = [BatchPlan(10, 5, seed=0).epoch(epoch)[0][0, 0] for epoch in range(2000)]
    counts = np.bincount(firsts, minlength=10)
    assert ((counts - 200) ** 2 / 200).sum() < 27.9  # 99.9th percentile


def test_balanced_epochs_draw_every_class_equally():
    classes = np.repeat([0, 1, 2], [80, 15, 5])
    plan = BatchPlan(100, 10, seed=4, balance=classes)
    seen = []
    for epoch in range(3):
        rows, weights = plan.epoch(epoch)
        drawn = rows[weights > 0]
        seen.append(np.bincount(classes[drawn], minlength=3))
        assert sorted(seen[-1]) == [33, 33, 34]
        # Members of a small class come equally often, to one.
        times = np.bincount(drawn, minlength=100)[95:]
        assert times.max() - times.min() <= 1
    assert len({tuple(counts) for counts in seen}) > 1
