"""Going on costs the same wherever in an epoch it is, and nothing is fetched twice."""

import numpy as np
import pytest
import tensorflow as tf

from tfsft.data.pipeline import Pipeline
from tfsft.data.plan import BatchPlan

STEPS, BATCH = 100_010, 2


@pytest.mark.parametrize("start", [100, 100_000])
def test_only_what_is_left_is_fetched(start):
    fetched = []

    def fetch(rows, seeds):
        def load(row):
            fetched.append(int(row))
            return np.float32([row])

        examples = tf.data.Dataset.from_tensor_slices(rows.reshape(-1))
        examples = examples.map(lambda row: tf.numpy_function(load, [row], tf.float32))
        return examples.batch(BATCH).map(lambda x: (tf.ensure_shape(x, [BATCH, 1]), x[:, 0] >= 0))

    plan = BatchPlan(STEPS * BATCH, BATCH, seed=1)
    pipeline = Pipeline(plan, np.zeros(STEPS * BATCH, np.float32), fetch)
    batches = iter(pipeline.epoch(epoch=7, start=start))
    rows = [np.asarray(next(batches)[0])[:, 0].astype(int) for _ in range(3)]
    expected = plan.epoch(7)[0][start : start + 3]
    np.testing.assert_array_equal(rows, expected)
    assert fetched[:6] == expected.ravel().tolist()
    assert len(fetched) < 100  # the batches read ahead
