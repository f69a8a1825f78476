"""A look at a data set before training on it: what is in it and what is wrong with it."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from PIL import Image

from tfsft.data import findings
from tfsft.data.labels import class_counts, is_number_task, shorten
from tfsft.data.pipeline import as_planned
from tfsft.data.sources import ImageSource
from tfsft.data.splits import BadExample, Source, Splits

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

    def summary(self) -> list[str]:
        """Returns what there is to say about good examples, a sentence each."""
        if not self.sizes:
            return []
        smallest, middle, largest = (f"{width} x {height}" for width, height in self.sizes)
        if smallest == largest:
            return [f"Pictures: all {smallest} pixels."]
        return [f"Pictures: {smallest} to {largest} pixels, half of them up to {middle}."]

    def problems(self) -> list[str]:
        """Returns what a person should look at, a sentence each; empty when all is well."""
        found = []
        found += describe_bad(self.bad, "pictures")
        found += self.warnings
        found += describe_copies(self.duplicates, "pictures")
        if self.near_duplicates:
            pairs = shorten(map(str, self.near_duplicates), 3)
            found.append(
                f"{len(self.near_duplicates)} pairs of pictures in different splits look almost "
                f"the same: {pairs}. If they show the same thing, scores are too good; keep them "
                "on one side with --group-column."
            )
        found += describe_near_empty(self.near_empty)
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
    duplicates, leaks = repeated_ids(sources)
    looks = _look(sources, sample, progress)
    shapes = np.concatenate([look.sizes for look in looks.values()])
    grey = np.concatenate([look.grey for look in looks.values()])
    order = np.argsort(shapes.prod(1), kind="stable")
    shown = order[[0, len(order) // 2, -1]] if len(order) else []
    sizes = tuple((int(width), int(height)) for height, width in shapes[shown])
    return Inspection(
        counts={split: counts_by_class(source) for split, source in sources.items()},
        bad=splits.bad,
        duplicates=duplicates,
        leaks=leaks,
        near_duplicates=_near_duplicates(sources, looks),
        skew=findings.skew(splits.train.labels, names)[0],
        near_empty=near_empty_classes(splits.train),
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
        for row, (image, ok) in zip(rows, as_planned(images).as_numpy_iterator(), strict=True):
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


def repeated_ids(sources: dict[str, Source]) -> tuple[tuple, tuple]:
    """Returns the ids of contents that occur again in one split, and of those in several."""
    parts = list(sources.values())
    keys = np.concatenate([source.keys for source in parts])
    split_of = np.repeat(np.arange(len(parts)), [len(source) for source in parts])
    starts = np.concatenate([[0], np.cumsum([len(source) for source in parts])])

    def ids(rows: np.ndarray) -> tuple[str, ...]:
        return tuple(parts[split_of[row]].ids[row - starts[split_of[row]]] for row in rows)

    within, between = [], []
    for rows in findings.duplicates(keys):
        if len(np.unique(split_of[rows])) > 1:
            between.append(ids(rows))
        for split in np.unique(split_of[rows]):
            same = rows[split_of[rows] == split]
            if len(same) > 1:
                within.append(ids(same))
    return tuple(within), tuple(between)


def counts_by_class(source: Source) -> dict[str, int]:
    """Returns how many examples each class has; of numbers, how many there are under ""."""
    if is_number_task(source.labels):
        return {"": len(source)}
    counts = class_counts(source.labels, len(source.class_names)).tolist()
    return dict(zip(source.class_names, counts, strict=True))


def near_empty_classes(train: Source) -> dict[str, int]:
    """Returns the classes with few training examples, and how many."""
    if not train.class_names:
        return {}
    return {name: count for name, count in counts_by_class(train).items() if count < FEW_EXAMPLES}


def describe_bad(bad: Sequence[BadExample], things: str) -> list[str]:
    """Returns a sentence about examples that were left out."""
    if not bad:
        return []
    shown = [f"{example.id} {example.reason}" for example in bad]
    return [f"{len(bad)} {things} cannot be used: {shorten(shown)}."]


def describe_copies(duplicates: Sequence[Sequence[str]], things: str) -> list[str]:
    """Returns a sentence about contents that occur more than once in one split."""
    if not duplicates:
        return []
    copies = sum(len(ids) - 1 for ids in duplicates)
    shown = shorten((" = ".join(ids[:3]) for ids in duplicates), 3)
    return [f"{copies} {things} are exact copies in the same split: {shown}."]


def describe_near_empty(classes: dict[str, int]) -> list[str]:
    """Returns a sentence about classes with few training examples."""
    if not classes:
        return []
    shown = shorten((f"{name} ({count})" for name, count in classes.items()), 10)
    return [f"{len(classes)} classes have fewer than {FEW_EXAMPLES} training examples: {shown}."]
