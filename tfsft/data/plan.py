"""The order of the examples: which rows form each batch of each epoch, as a pure function of (seed,
epoch).
"""

import numpy as np


class BatchPlan:
    """Says which examples form each batch, and starts at any step of any epoch at no cost.

    The last batch is filled up with a repeated row of weight zero, so that every batch is whole and
    no example is dropped or counted twice. The plan is global: replicas and processes take slices
    of its batches.

    Args:
        size: Number of examples.
        batch_size: Examples in one global batch.
        seed: With the epoch, all that the order depends on.
        shuffle: False keeps the order of the source, for evaluation.
        balance: Class of each example, int `[size]`. When given, every epoch draws as many examples
            as there are, the same number of each class: members of small classes come several
            times, of large ones not all.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        balance: np.ndarray | None = None,
    ):
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.balance = balance

    @property
    def steps(self) -> int:
        """Batches in one epoch."""
        return -(-self.size // self.batch_size)

    @property
    def by_count(self) -> "BatchPlan":
        """The plan for examples that are all of one size: this one."""
        return self

    def epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the batches of one epoch.

        Returns:
            rows: int64 `[steps, batch_size]`, and weights: float32 `[steps, batch_size]`, zero for
                filler.
        """
        order = self.order(epoch)
        filler = self.steps * self.batch_size - self.size
        rows = np.concatenate([order, np.repeat(order[-1:], filler)])
        weights = np.ones(len(rows), np.float32)
        weights[self.size :] = 0.0
        shape = (self.steps, self.batch_size)
        return rows.reshape(shape), weights.reshape(shape)

    def order(self, epoch: int) -> np.ndarray:
        """Returns the examples of one epoch one after another, int64 `[size]`."""
        if not self.shuffle:
            return np.arange(self.size, dtype=np.int64)
        random = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
        if self.balance is None:
            return random.permutation(self.size)
        return random.permutation(self._balanced_rows(random))

    def _balanced_rows(self, random: np.random.Generator) -> np.ndarray:
        classes = np.unique(self.balance)
        quotas = np.full(len(classes), self.size // len(classes))
        # Which classes get one example more changes from epoch to epoch.
        quotas[random.permutation(len(classes))[: self.size % len(classes)]] += 1
        rows = []
        for value, quota in zip(classes, quotas, strict=True):
            members = np.flatnonzero(self.balance == value)
            rounds = -(-quota // len(members))
            rows.append(
                np.concatenate([random.permutation(members) for _ in range(rounds)])[:quota]
            )
        return np.concatenate(rows).astype(np.int64)
