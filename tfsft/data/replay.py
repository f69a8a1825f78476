"""General examples mixed into a person's own, so that what a model could do is not forgotten."""

import numpy as np
import pyarrow

from tfsft.data.text_source import TextSource


def mix_in(source: TextSource, replay: TextSource, share: float, seed: int = 0) -> TextSource:
    """Returns a source in which a share of the examples comes from another one.

    Args:
        source: All of its examples are in the mixture, once each.
        replay: Of the same columns. Where it has too few examples, all of them come equally often,
            but for one.
        share: Of the mixture, from 0 to less than 1.
        seed: Which examples are taken.
    """
    count = round(len(source) * share / (1 - share))
    random = np.random.default_rng(seed)
    rounds = -(-count // max(len(replay), 1))
    orders = [random.permutation(len(replay)) for _ in range(rounds)]
    chosen = np.concatenate([np.empty(0, np.int64), *orders])[:count].astype(np.int64)
    names = [name for name in source.table.column_names if name in replay.table.column_names]
    table = pyarrow.concat_tables(
        [part.table.select(names).replace_schema_metadata() for part in (source, replay)]
    )
    return TextSource(
        table,
        np.concatenate([source.rows, len(source.table) + replay.rows[chosen]]),
        np.concatenate([source.labels, replay.labels[chosen]]),
        source.class_names,
        None,
        source.tags,
    )
