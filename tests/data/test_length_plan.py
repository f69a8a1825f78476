"""Batches of alike lengths: every example once, little padding, few widths."""

import itertools

import numpy as np
import pytest

from tfsft.data import length_plan
from tfsft.data.length_plan import LengthPlan, choose_widths
from tfsft.errors import UsageError


@pytest.fixture
def lengths():
    return np.clip(np.random.default_rng(0).lognormal(3, 0.6, 3001).astype(int), 3, 128)


@pytest.mark.parametrize("options", [{}, {"batch_tokens": 2000, "multiple": 4}])
@pytest.mark.parametrize("shuffle", [True, False])
def test_each_example_comes_once_and_fits(lengths, options, shuffle):
    plan = LengthPlan(lengths, 32, shuffle=shuffle, seed=5, **options)
    rows, weights, widths = plan.epoch(1)
    assert len(rows) == plan.steps
    real = np.concatenate(rows)[np.concatenate(weights) == 1]
    assert sorted(real) == list(range(len(lengths)))
    assert all((lengths[batch] <= width).all() for batch, width in zip(rows, widths, strict=True))
    assert set(widths) <= set(plan.widths.tolist())
    assert len(plan.widths) <= length_plan.MOST_WIDTHS


def test_batches_by_examples_have_the_same_size(lengths):
    rows, weights, _ = LengthPlan(lengths, 32).epoch(0)
    assert {len(batch) for batch in rows} == {32}
    # 3001 examples are 93 batches and 25 more: 7 fill up the last.
    assert sum((batch == 0).sum() for batch in weights) == 7


def test_batches_by_tokens_keep_to_the_budget_and_the_multiple(lengths):
    plan = LengthPlan(lengths, 0, batch_tokens=2000, multiple=4)
    rows, _, widths = plan.epoch(2)
    assert all(len(batch) % 4 == 0 for batch in rows)
    assert all(len(b) * width <= 2000 for b, width in zip(rows, widths, strict=True))


def test_even_batches_count_about_as_many_tokens_and_have_the_examples_on_average(lengths):
    counted = lengths - 2
    plan = LengthPlan(lengths, 32, even=counted, seed=3)
    rows, _, widths = plan.epoch(1)
    assert len(lengths) / plan.steps == pytest.approx(32, rel=0.05)
    assert max(len(b) * w for b, w in zip(rows, widths, strict=True)) <= 32 * lengths.max()
    by_count = LengthPlan(lengths, 32, seed=3).epoch(1)[0]
    sums, others = ([counted[batch].sum() for batch in plan] for plan in (rows, by_count))
    # The last batch has what is left.
    assert np.sort(sums)[1:] == pytest.approx(32 * counted.mean(), rel=0.2)
    assert np.std(sums) < np.std(others) / 5


def test_examples_that_count_little_make_batches_no_larger_than_the_largest_by_examples():
    lengths = np.append(np.full(900, 10), np.full(100, 90))
    rows, _, widths = LengthPlan(lengths, 8, even=np.where(lengths > 50, 80, 0)).epoch(0)
    assert max(len(b) * w for b, w in zip(rows, widths, strict=True)) == 8 * 90


def test_even_batches_are_the_same_however_they_are_shared(lengths):
    alone = LengthPlan(lengths, 8, even=lengths, seed=3).epoch(0)
    shared = LengthPlan(lengths, 8, even=lengths, multiple=6, seed=3).epoch(0)
    assert alone[2] == shared[2]
    for mine, rows, weights in zip(alone[0], *shared[:2], strict=True):
        assert len(rows) % 6 == 0
        assert rows[weights == 1].tolist() == mine.tolist()


def test_an_example_beyond_the_budget_has_a_batch_of_its_own():
    plan = LengthPlan(np.array([50, 3, 3, 3]), 0, batch_tokens=12)
    rows, _, widths = plan.epoch(0)
    alone = [len(batch) for batch, width in zip(rows, widths, strict=True) if width == 50]
    assert alone == [1]


def test_little_is_padding(lengths):
    plan = LengthPlan(lengths, 16)
    rows, _, widths = plan.epoch(0)
    padded = sum(len(batch) * width for batch, width in zip(rows, widths, strict=True))
    assert plan.padding_share() == pytest.approx(1 - lengths.sum() / padded)
    assert plan.padding_share() < 0.06


def test_order_is_a_pure_function_of_seed_and_epoch(lengths):
    def epoch(seed, number):
        return np.concatenate(LengthPlan(lengths, 16, seed=seed).epoch(number)[0]).tolist()

    assert epoch(1, 3) == epoch(1, 3)
    assert epoch(1, 3) != epoch(1, 4)
    assert epoch(1, 3) != epoch(2, 3)


def test_batches_are_not_sorted_and_differ_between_epochs(lengths):
    plan = LengthPlan(lengths, 16)
    rows, _, widths = plan.epoch(0)
    assert abs(np.corrcoef(np.arange(plan.steps), widths)[0, 1]) < 0.25
    again = {frozenset(batch.tolist()) for batch in plan.epoch(1)[0]}
    assert sum(frozenset(batch.tolist()) in again for batch in rows) < plan.steps / 20


def test_balanced_classes(lengths):
    classes = (np.arange(len(lengths)) % 10 == 0).astype(int)
    plan = LengthPlan(lengths, 16, balance=classes)
    rows, weights, widths = plan.epoch(0)
    real = np.concatenate(rows)[np.concatenate(weights) == 1]
    assert abs(int(classes[real].sum()) * 2 - len(lengths)) <= 1
    assert all((lengths[batch] <= width).all() for batch, width in zip(rows, widths, strict=True))
    with pytest.raises(UsageError, match="batch-tokens"):
        LengthPlan(lengths, 16, batch_tokens=100, balance=classes)


@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_widths_are_the_best_of_their_number(monkeypatch, most):
    """Against trying all of them."""
    monkeypatch.setattr(length_plan, "EXTRA_PADDING", 0.0)
    random = np.random.default_rng(most)
    needs, counts = random.integers(1, 13, 25), random.integers(1, 5, 25)
    values = np.unique(needs)

    def cost(widths):
        return sum(
            count * min(w for w in widths if w >= need)
            for need, count in zip(needs, counts, strict=True)
        )

    best = min(
        cost({*chosen, values[-1]}) for chosen in itertools.combinations(values[:-1], most - 1)
    )
    assert cost(choose_widths(needs, counts, most).tolist()) == best


def test_empty_texts_have_a_place():
    _, weights, widths = LengthPlan(np.array([0, 0, 0]), 2).epoch(0)
    assert widths == [1, 1]
    assert sum(map(sum, weights)) == 3


def test_known_widths_are_used_and_longer_ones_are_added(lengths):
    known = LengthPlan(lengths, 32).widths
    some = lengths[lengths <= known[2]][:200]
    assert set(LengthPlan(some, 32, widths=known).widths) <= set(known)
    longer = LengthPlan(np.append(some, [500, 300]), 1, widths=known)
    assert longer.widths[-2:].tolist() == [300, 500]
    assert set(longer.widths[:-2]) <= set(known[:3])
    rows, _, widths = longer.epoch(0)
    assert sorted(np.concatenate(rows)) == list(range(202))
    assert all(longer._lengths[row].max() <= width for row, width in zip(rows, widths, strict=True))
    assert all(
        width == known[np.searchsorted(known, longer._lengths[row].max())]
        for row, width in zip(rows, widths, strict=True)
        if width <= known[2]
    )
