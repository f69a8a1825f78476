"""A look at a data set before training on it: what is in it and what is wrong with it."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from PIL import Image

from tfsft.data import findings
from tfsft.data.labels import class_counts, is_number_task, shorten
from tfsft.data.sources import ImageSource
from tfsft.data.splits import BadExample, Splits

FEW_EXAMPLES = 10
SMALL_SIDE = 32  # pixels; smaller pictures are too alike for their outlines to tell them apart
HASH_DISTANCE = 3  # of 64 bits; a copy that was scaled or compressed again differs by less


@dataclass(frozen=True)
class NearDuplicate:
    """Two pictures in different splits that look the same.

    Args:
        first, second: Their ids.
        first_split, second_split: Where they are.
        distance: How many of the 64 bits of their perceptual hashes differ.
    """

    first: str
    second: str
    first_split: str
    second_split: str
    distance: int

    def __str__(self) -> str:
        return f"{self.first} ({self.first_split}) ~ {self.second} ({self.second_split})"


@dataclass(frozen=True)
class Inspection:
    """What was found in a data set.

    Args:
        counts: Examples of each class in each split: `counts["train"]["roses"]`; without classes,
            of each split under the name "".
        bad: Pictures that were left out.
        duplicates: Ids of each content that occurs more than once in one split.
        leaks: Ids of each content that occurs in more than one split.
        near_duplicates: Pictures of different splits that look the same, among those looked at.
        skew: How many times as many training examples the largest class has as the smallest.
        near_empty: Classes with few training examples, and how many.
        sampled: How many pictures were opened for what follows.
        sizes: Smallest, median and largest (width, height) by area, in pixels.
        grey_share: Share of pictures without colour, 0 to 1.
        warnings: What was found while the data was loaded.
    """

    counts: dict[str, dict[str, int]]
    bad: tuple[BadExample, ...]
    duplicates: tuple[tuple[str, ...], ...]
    leaks: tuple[tuple[str, ...], ...]
    near_duplicates: tuple[NearDuplicate, ...]
    skew: float
    near_empty: dict[str, int]
    sampled: int
    sizes: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None
    grey_share: float
    warnings: tuple[str, ...]

    def problems(self) -> list[str]:
        """Returns what a person should look at, a sentence each; empty when all is well."""
        found = []
        if self.bad:
            shown = [f"{example.id} {example.reason}" for example in self.bad]
            found.append(f"{len(self.bad)} pictures cannot be used: {shorten(shown)}.")
        found += self.warnings
        if self.duplicates:
            copies = sum(len(ids) - 1 for ids in self.duplicates)
            shown = shorten((" = ".join(ids[:3]) for ids in self.duplicates), 3)
            found.append(f"{copies} pictures are exact copies in the same split: {shown}.")
        if self.near_duplicates:
            pairs = shorten(map(str, self.near_duplicates), 3)
            found.append(
                f"{len(self.near_duplicates)} pairs of pictures in different splits look almost "
                f"the same: {pairs}. If they show the same thing, scores are too good; keep them "
                "on one side with --group-column."
            )
        if self.near_empty:
            shown = shorten((f"{name} ({count})" for name, count in self.near_empty.items()), 10)
            found.append(
                f"{len(self.near_empty)} classes have fewer than {FEW_EXAMPLES} training "
                f"examples: {shown}."
            )
        if self.sizes and min(self.sizes[0]) < SMALL_SIDE:
            width, height = self.sizes[0]
            found.append(
                f"The smallest picture has {width} x {height} pixels, too few for details."
            )
        return found


def inspect_images(
    splits: Splits, *, sample: int = 2000, progress: Callable[[int, int], None] | None = None
) -> Inspection:
    """Looks at labels and contents of all pictures, and opens some of each split.

    Args:
        splits: From `load_images`.
        sample: How many pictures of each split to open.
        progress: Called with (done, total) while pictures are opened.
    """
    sources = splits.sources()
    names = splits.class_names
    train_counts = class_counts(splits.train.labels, len(names)) if names else np.array([], int)
    duplicates, leaks = _repeated(sources)
    looks = _look(sources, sample, progress)
    shapes = np.concatenate([look.sizes for look in looks.values()])
    grey = np.concatenate([look.grey for look in looks.values()])
    order = np.argsort(shapes.prod(1), kind="stable")
    shown = order[[0, len(order) // 2, -1]] if len(order) else []
    sizes = tuple((int(width), int(height)) for height, width in shapes[shown])
    return Inspection(
        counts={split: _counts(source) for split, source in sources.items()},
        bad=splits.bad,
        duplicates=duplicates,
        leaks=leaks,
        near_duplicates=_near_duplicates(sources, looks),
        skew=findings.skew(splits.train.labels, names)[0],
        near_empty={
            name: int(count)
            for name, count in zip(names, train_counts, strict=True)
            if count < FEW_EXAMPLES
        },
        sampled=len(order),
        sizes=sizes or None,
        grey_share=float(grey.mean()) if len(grey) else 0.0,
        warnings=splits.warnings,
    )


def difference_hash(image: np.ndarray) -> np.ndarray:
    """Returns 64 bits that pictures share which look the same: where brightness grows to the right.

    The picture is scaled to 9 x 8 grey pixels, and each is compared with its right neighbour. This
    is the "dHash" of Neal Krawetz:
    https://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html

    Args:
        image: uint8 `[height, width, 3]`.

    Returns:
        bool `[64]`.
    """
    grey = Image.fromarray(image).convert("L").resize((9, 8), Image.Resampling.BOX)
    pixels = np.asarray(grey, np.int16)
    return (pixels[:, 1:] > pixels[:, :-1]).reshape(-1)


@dataclass(frozen=True)
class _Look:
    """What was seen of the opened pictures of a split."""

    rows: np.ndarray  # int64 [n]
    sizes: np.ndarray  # int64 [n, 2], height and width
    grey: np.ndarray  # bool [n]
    hashes: np.ndarray  # bool [n, 64]


def _look(
    sources: dict[str, ImageSource], sample: int, progress: Callable[[int, int], None] | None
) -> dict[str, _Look]:
    # The smallest hashes are a sample at random that is the same every time.
    chosen = {
        split: np.sort(np.argsort(source.keys, kind="stable")[:sample])
        for split, source in sources.items()
    }
    total, done, looks = sum(map(len, chosen.values())), 0, {}
    for split, rows in chosen.items():
        images = tf.data.Dataset.from_tensor_slices(rows).map(
            sources[split].image, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        seen, sizes, grey, hashes = [], [], [], []
        for row, (image, ok) in zip(rows, images.prefetch(4).as_numpy_iterator(), strict=True):
            done += 1
            if progress:
                progress(done, total)
            if ok:
                seen.append(row)
                sizes.append(image.shape[:2])
                grey.append((image == image[..., :1]).all())
                hashes.append(difference_hash(image))
        looks[split] = _Look(
            np.array(seen, np.int64),
            np.array(sizes, np.int64).reshape(-1, 2),
            np.array(grey, bool),
            np.array(hashes, bool).reshape(-1, 64),
        )
    return looks


def _near_duplicates(
    sources: dict[str, ImageSource], looks: dict[str, _Look]
) -> tuple[NearDuplicate, ...]:
    found = []
    for (first_split, first), (second_split, second) in itertools.combinations(looks.items(), 2):
        one, other = sources[first_split], sources[second_split]
        distances = _distances(first, second)
        for row, column in np.argwhere(distances <= HASH_DISTANCE):
            left, right = first.rows[row], second.rows[column]
            if one.keys[left] != other.keys[right]:  # an exact copy is a leak and not a look-alike
                distance = int(distances[row, column])
                found.append(
                    NearDuplicate(
                        one.ids[left], other.ids[right], first_split, second_split, distance
                    )
                )
    return tuple(sorted(found, key=lambda pair: pair.distance))


def _distances(first: _Look, second: _Look) -> np.ndarray:
    """Returns how many bits differ between any two pictures, `[n, m]`; 64 where that says nothing.

    Hashes of pictures that are very small or of one colour are alike by chance.
    """
    # The product of vectors of 1 and -1 counts equal bits less different ones.
    signs = [np.where(look.hashes, 1, -1).astype(np.float32) for look in (first, second)]
    distances = (64 - signs[0] @ signs[1].T) / 2
    for look, rows in [(first, distances), (second, distances.T)]:
        bits = look.hashes.sum(1)
        rows[(look.sizes.min(1) < SMALL_SIDE) | (bits < 4) | (bits > 60)] = 64
    return distances


def _repeated(sources: dict[str, ImageSource]) -> tuple[tuple, tuple]:
    """Returns the ids of contents that occur again in one split, and of those in several."""
    keys = np.concatenate([source.keys for source in sources.values()])
    ids = [name for source in sources.values() for name in source.ids]
    split_of = np.repeat(np.arange(len(sources)), [len(source) for source in sources.values()])
    within, between = [], []
    for rows in findings.duplicates(keys):
        if len(np.unique(split_of[rows])) > 1:
            between.append(tuple(ids[row] for row in rows))
        for split in np.unique(split_of[rows]):
            same = rows[split_of[rows] == split]
            if len(same) > 1:
                within.append(tuple(ids[row] for row in same))
    return tuple(within), tuple(between)


def _counts(source: ImageSource) -> dict[str, int]:
    if is_number_task(source.labels):
        return {"": len(source)}
    counts = class_counts(source.labels, len(source.class_names)).tolist()
    return dict(zip(source.class_names, counts, strict=True))
