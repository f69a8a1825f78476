"""The order of examples of different lengths: batches of alike lengths, padded to few widths."""

from collections.abc import Callable

import numpy as np

from tfsft.data.plan import BatchPlan
from tfsft.errors import UsageError

MOST_WIDTHS = 20
EXTRA_PADDING = 0.02  # fewer widths are taken as long as they add no more than this share
CANDIDATES = 512


class LengthPlan:
    """Says which examples form each batch and to which width the batch is padded.

    An epoch sorts the examples from long to short and cuts the list into batches. Each batch is
    padded to one of few widths; the examples of all batches of one width are shuffled among these,
    and then the batches. So little is padding, filler (rows of weight zero) is with the shortest
    examples, and no example is dropped or counted twice. Like `BatchPlan` it is a pure function of
    (seed, epoch) and starts at any step.

    Args:
        lengths: Tokens of each example, int `[size]`.
        batch_size: Examples in one global batch.
        batch_tokens: Tokens in one global batch, padding included, instead of `batch_size`; 0 goes
            by examples. An example longer than that has a batch of its own.
        even: How many tokens of each example the loss counts, int `[size]`, to give each batch
            about as many of these, and `batch_size` examples on average. A batch counts as much as
            any other: among batches of as many examples, the tokens of short ones would count
            several times those of long ones. No batch takes more memory than the largest of those.
        multiple: With `batch_tokens` or `even`, what the examples of a batch are a multiple of:
            replicas times accumulated parts. The second fills up with filler, so that batches do
            not depend on it.
        seed: With the epoch, all that the order depends on.
        shuffle: False goes from long to short, and keeps the order of the source among equals.
        balance: Class of each example, as for `BatchPlan`.
        widths: Ascending widths to pad to, those of another plan, as every new one costs time at
            first; only for longer examples others are chosen.

    Raises:
        UsageError: `batch_tokens` with `balance`: epochs would differ in their number of steps.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        batch_size: int,
        *,
        batch_tokens: int = 0,
        even: np.ndarray | None = None,
        multiple: int = 1,
        seed: int = 0,
        shuffle: bool = True,
        balance: np.ndarray | None = None,
        widths: np.ndarray | None = None,
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
        self._lengths = np.maximum(lengths, 1)  # no batch is empty, if its texts are
        by_tokens = bool(batch_tokens) or even is not None
        self._multiple = multiple if by_tokens else batch_size
        longest_first = -np.sort(-self._lengths)

        def fitting(length: int) -> int:
            return batch_tokens // length // multiple * multiple if batch_tokens else batch_size

        cuts = _cuts(longest_first, fitting)
        self.widths = choose_widths(longest_first[cuts[:-1]], np.diff(cuts), known=widths)
        if even is not None and not batch_tokens:
            fitting = _evenly(even, self.widths, self._lengths, batch_size).__getitem__
        if by_tokens:  # of which padding takes its part
            cuts = _cuts(self.widths[np.searchsorted(self.widths, longest_first)], fitting)
        self._cuts = cuts
        self.steps = len(cuts) - 1
        self.batch_size = -(-self.size // self.steps) if batch_tokens else batch_size
        self.fixed_batch = None if by_tokens else batch_size
        self.by_count = BatchPlan(
            self.size, self.batch_size, seed=seed, shuffle=shuffle, balance=balance
        )

    def epoch(self, epoch: int) -> tuple[list[np.ndarray], list[np.ndarray], list[int]]:
        """Returns the batches of one epoch.

        Returns:
            rows: int64 `[batch]` for each step; weights: float32 `[batch]` for each step, zero for
                filler; widths: tokens that each batch is padded to.
        """
        order = self.by_count.order(epoch)
        order = order[np.argsort(-self._lengths[order], kind="stable")]
        longest = self._lengths[order[self._cuts[:-1]]]
        widths = self.widths[np.searchsorted(self.widths, longest)]
        places = np.arange(self.steps)
        if self.shuffle:
            random = np.random.default_rng([self.seed, epoch])
            for width in np.unique(widths):
                alike = np.flatnonzero(widths == width)
                random.shuffle(order[self._cuts[alike[0]] : self._cuts[alike[-1] + 1]])
            places = random.permutation(self.steps)
        rows, weights = [], []
        for place in places:
            batch = order[self._cuts[place] : self._cuts[place + 1]]
            filler = -len(batch) % self._multiple
            rows.append(np.concatenate([batch, np.repeat(batch[-1:], filler)]))
            weights.append(np.repeat(np.float32([1, 0]), [len(batch), filler]))
        return rows, weights, widths[places].tolist()

    def padding_share(self) -> float:
        """Returns the share of an epoch's tokens that are padding, filler included, 0 to 1."""
        rows, weights, widths = self.epoch(0)
        padded = sum(len(batch) * width for batch, width in zip(rows, widths, strict=True))
        real = np.concatenate(rows)[np.concatenate(weights) > 0]
        return 1 - int(self._lengths[real].sum()) / padded


def choose_widths(
    needs: np.ndarray,
    counts: np.ndarray,
    most: int = MOST_WIDTHS,
    known: np.ndarray | None = None,
) -> np.ndarray:
    """Chooses the fewest widths that add little padding, and the best ones of that number.

    Every batch is padded to the smallest width that holds its longest example. For one number of
    widths after the other, dynamic programming over the lengths that occur finds those with the
    least padding.

    Args:
        needs: The longest length of each batch, int `[batches]`.
        counts: Examples in each batch, int `[batches]`.
        most: How many widths there may be, beside those that are known.
        known: Ascending widths to use where batches fit in.

    Returns:
        Ascending widths, int64; without known ones, the last one is the longest length.
    """
    if known is not None:
        fits = needs <= known[-1]
        used = known[np.unique(np.searchsorted(known, needs[fits]))]
        if fits.all():
            return used
        return np.concatenate([used, choose_widths(needs[~fits], counts[~fits], most)])
    longest = int(needs.max())
    step = -(-longest // CANDIDATES)
    rounded = np.minimum(-(-needs // step) * step, longest)
    values, batch_of = np.unique(rounded, return_inverse=True)
    total = np.concatenate([[0], np.cumsum(np.bincount(batch_of, weights=counts))])
    # cost[i, j]: tokens of the batches of values i to j - 1, all padded to value j - 1.
    cost = (total[None, :] - total[:, None]) * np.concatenate([[0], values])[None, :]
    cost = np.where(np.triu(np.ones(cost.shape, bool), 1), cost, np.inf)
    best, choices = cost[0], []
    while best[-1] * (1 - EXTRA_PADDING) > (needs * counts).sum() and len(choices) + 1 < most:
        costs = np.where(np.arange(len(best))[:, None] == 0, cost[0], best[:, None] + cost)
        choices.append(costs.argmin(axis=0))
        best = costs.min(axis=0)
    ends = [len(values)]
    for choice in reversed(choices):
        if choice[ends[-1]]:
            ends.append(int(choice[ends[-1]]))
    return values[np.array(ends[::-1]) - 1].astype(np.int64)


def _evenly(
    counted: np.ndarray, widths: np.ndarray, lengths: np.ndarray, batch_size: int
) -> dict[int, int]:
    """Returns how many examples of each width form a batch, that all count about as many tokens."""
    width_of = np.searchsorted(widths, lengths)
    examples = np.bincount(width_of, minlength=len(widths))
    tokens = np.bincount(width_of, weights=counted, minlength=len(widths))
    share = batch_size * np.mean(counted) * examples / np.maximum(tokens, 1)
    most = batch_size * widths[-1] // widths
    fitting = np.clip(share.round().astype(np.int64), 1, most)
    return dict(zip(widths.tolist(), fitting.tolist(), strict=True))


def _cuts(longest_first: np.ndarray, fitting: Callable[[int], int]) -> np.ndarray:
    """Returns where batches begin in a list of lengths from long to short, and where it ends.

    Args:
        longest_first: The lengths.
        fitting: How many of some length form a batch; at least one does.
    """
    lengths, cuts = longest_first.tolist(), [0]
    while cuts[-1] < len(lengths):
        cuts.append(min(cuts[-1] + max(fitting(lengths[cuts[-1]]), 1), len(lengths)))
    return np.array(cuts)
