"""The order of examples of different lengths: batches of alike lengths, padded to few widths."""

import numpy as np

from tfsft.data.plan import BatchPlan
from tfsft.errors import UsageError

MOST_WIDTHS = 16
PADDING_SHARE = 0.04  # fewer widths are taken as long as no more than this is padding
CANDIDATES = 256


class LengthPlan:
    """Says which examples form each batch and to which width the batch is padded.

    Every example belongs to the smallest width that holds it. An epoch lists the examples of the
    largest width in random order, then those of the next smaller one and so on, cuts the list into
    batches, and shuffles the batches: so little is padding, filler (rows of weight zero) is in the
    narrowest batch, and no example is dropped or counted twice. Like `BatchPlan` it is a pure
    function of (seed, epoch) and starts at any step.

    Args:
        lengths: Tokens of each example, int `[size]`.
        batch_size: Examples in one global batch.
        batch_tokens: Tokens in one global batch, padding included, instead of `batch_size`; 0 goes
            by examples. An example longer than that has a batch of its own.
        multiple: With `batch_tokens`, what the examples of a batch are a multiple of: replicas
            times accumulated parts.
        seed: With the epoch, all that the order depends on.
        shuffle: False goes from wide to narrow, and within a width by the order of the source.
        balance: Class of each example, as for `BatchPlan`.

    Raises:
        UsageError: `batch_tokens` with `balance`: epochs would differ in their number of steps.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        batch_size: int,
        *,
        batch_tokens: int = 0,
        multiple: int = 1,
        seed: int = 0,
        shuffle: bool = True,
        balance: np.ndarray | None = None,
    ):
        if batch_tokens and balance is not None:
            raise UsageError(
                "--batch-tokens was given with --sampling balanced.",
                "Batches of so many tokens need the same examples in every epoch.",
                "Leave one of them out.",
            )
        self.size = len(lengths)
        self.seed = seed
        self.shuffle = shuffle
        self.batch_tokens = batch_tokens
        self.widths = choose_widths(lengths)
        self._bucket = np.searchsorted(self.widths, lengths)
        self._tokens = int(np.sum(lengths))
        self._examples = BatchPlan(
            self.size, batch_size, seed=seed, shuffle=shuffle, balance=balance
        )
        self._rows_at = np.full(len(self.widths), batch_size)
        if batch_tokens:
            self._rows_at = np.maximum(batch_tokens // self.widths // multiple, 1) * multiple
        self._multiple = multiple if batch_tokens else batch_size
        # With a balance the widths of an epoch differ, but not how many batches it has.
        self.steps = len(self._cuts(-np.sort(-self._bucket))) - 1
        self.batch_size = -(-self.size // self.steps) if batch_tokens else batch_size

    @property
    def fixed_batch(self) -> int | None:
        """Examples in every batch, filler included; None where that varies."""
        return None if self.batch_tokens else self.batch_size

    @property
    def by_count(self) -> BatchPlan:
        """The plan for what has the same size for every example, such as pooled features."""
        return self._examples

    def epoch(self, epoch: int) -> tuple[list[np.ndarray], list[np.ndarray], list[int]]:
        """Returns the batches of one epoch.

        Returns:
            rows: int64 `[batch]` for each step; weights: float32 `[batch]` for each step, zero for
                filler; widths: tokens that each batch is padded to.
        """
        order = self._examples.order(epoch)
        order = order[np.argsort(-self._bucket[order], kind="stable")]
        buckets = self._bucket[order]
        cuts = self._cuts(buckets)
        places = np.arange(self.steps)
        if self.shuffle:
            places = np.random.default_rng([self.seed, epoch]).permutation(self.steps)
        rows, weights, widths = [], [], []
        for place in places:
            batch = order[cuts[place] : cuts[place + 1]]
            filler = -len(batch) % self._multiple
            rows.append(np.concatenate([batch, np.repeat(batch[-1:], filler)]))
            weights.append(
                np.concatenate([np.ones(len(batch)), np.zeros(filler)]).astype("float32")
            )
            widths.append(int(self.widths[buckets[cuts[place]]]))
        return rows, weights, widths

    def padding_share(self) -> float:
        """Returns the share of an epoch's tokens that are padding, filler included, 0 to 1."""
        rows, _, widths = self.epoch(0)
        padded = sum(len(batch) * width for batch, width in zip(rows, widths, strict=True))
        return 1 - self._tokens / padded

    def _cuts(self, buckets: np.ndarray) -> list[int]:
        """Returns where batches begin in a list of examples from wide to narrow, and its end."""
        cuts = [0]
        while cuts[-1] < len(buckets):
            cuts.append(min(cuts[-1] + int(self._rows_at[buckets[cuts[-1]]]), len(buckets)))
        return cuts


def choose_widths(lengths: np.ndarray, most: int = MOST_WIDTHS) -> np.ndarray:
    """Chooses the fewest widths that keep padding small, and the best ones of that number.

    Examples are padded to the smallest width that holds them. For one number of widths after the
    other, dynamic programming over the lengths that occur finds those with the least padding.

    Args:
        lengths: Tokens of each example, int `[size]`.
        most: How many widths there may be.

    Returns:
        Ascending widths, int64; the last one is the longest length.
    """
    step = -(-int(lengths.max()) // CANDIDATES)
    longest = int(lengths.max())
    values, counts = np.unique(np.minimum(-(-lengths // step) * step, longest), return_counts=True)
    values = np.maximum(values, 1)
    total = np.concatenate([[0], np.cumsum(counts)])
    # cost[i, j]: tokens of the examples of values i to j - 1, all padded to value j - 1.
    cost = (total[None, :] - total[:, None]) * np.concatenate([[0], values])[None, :]
    cost = np.where(np.triu(np.ones_like(cost, bool), 1), cost, np.iinfo(np.int64).max // 2)
    best, before = cost[0], []
    while best[-1] * (1 - PADDING_SHARE) > lengths.sum() and len(before) + 1 < most:
        costs = best[:, None] + cost
        costs[0] = cost[0]
        before.append(costs.argmin(axis=0))
        best = costs.min(axis=0)
    ends = [len(values)]
    for choice in reversed(before):
        if ends[-1] and choice[ends[-1]]:
            ends.append(int(choice[ends[-1]]))
    return values[np.array(ends[::-1]) - 1].astype(np.int64)
