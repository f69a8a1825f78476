"""Data sets of tensorflow-datasets, as encoded pictures in one file that is mapped into memory."""

import errno
import hashlib
import os
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from tfsft.cache import cache_folder, made_once
from tfsft.data.folders import SPLIT_NAMES
from tfsft.data.labels import index_labels, number_labels
from tfsft.data.pipeline import as_planned
from tfsft.data.sources import BlobStorage, Listing
from tfsft.errors import UsageError, UserError, nearest

PREFIX = "tfds:"
FORMAT = 1  # of the cache; another number leaves older caches alone


def list_tfds(
    data: str,
    *,
    task: str = "single",
    tfds_dir: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    class_names: tuple[str, ...] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Listing:
    """Lists the pictures of a tensorflow-datasets data set, which is downloaded where needed.

    The pictures stay encoded as they are. Shards can only be read from front to back, so the first
    use copies the pictures into one file in the cache folder, from which any of them can be
    fetched.

    Args:
        data: `tfds:NAME` or `tfds:NAME:CONFIG`.
        task: "single" (a ClassLabel), "multi" (a sequence of them) or "regression" (a number).
        tfds_dir: Where prepared data sets lie, or this one; None is tensorflow-datasets' own
            folder.
        image_column, label_column, group_column: Names of features; None finds the first two.
        class_names: The classes to use; None takes the data set's.
        progress: Called with (done, total) while pictures are copied.

    Raises:
        UserError: There is no such data set, it cannot be downloaded, or it has no such features.
    """
    builder = prepared(data, tfds_dir)
    splits = split_sides(data, builder.info.splits)
    image, label = _features(data, builder.info, task, image_column, label_column, group_column)
    folder = _cached(builder, list(splits), image, label, group_column, progress)
    table = pyarrow.parquet.read_table(folder / "examples.parquet")
    labelled = np.flatnonzero(table["label"].is_valid())
    warnings = []
    if len(labelled) < len(table):
        warnings.append(
            f"{len(table) - len(labelled)} pictures of {data} have no label and were not used."
        )
    cells, ids = (table[name].take(labelled).to_pylist() for name in ("label", "id"))
    if task == "regression":
        labels, names = number_labels(cells, ids.__getitem__), ()
    else:
        known = class_feature(builder.info.features[label]).names
        rows = cells if task == "multi" else [[cell] for cell in cells]
        labels, names = index_labels(rows, task, class_names or tuple(known), ids.__getitem__)
    side_of = np.array(list(splits.values()), np.int8)
    sides = side_of[table["split"].to_numpy()[labelled]]
    ends = table["end"].to_numpy()
    starts = np.concatenate([[0], ends[:-1]])
    return Listing(
        BlobStorage(folder / "pictures.bin", starts[labelled], ends[labelled]),
        ids,
        labels,
        names,
        np.array(table["group"].take(labelled).to_pylist()) if group_column else None,
        sides if sides.any() else None,
        warnings,
    )


def prepared(data: str, tfds_dir: str | None) -> Any:
    """Returns the builder of the data set, downloaded and ready to be read.

    Raises:
        UserError: There is no such data set, or it cannot be downloaded.
    """
    import tensorflow_datasets as tfds  # slow to import

    name, _, config = data.removeprefix(PREFIX).partition(":")
    if not name:
        raise UsageError(
            f"--data {data} names no data set.",
            "tfds:NAME or tfds:NAME:CONFIG.",
            "Try tfds:tf_flowers.",
        )
    mark = ":" if re.fullmatch(r"[0-9.*]+", config) else "/"  # a version or a configuration
    try:
        if tfds_dir and os.path.exists(os.path.join(tfds_dir, "dataset_info.json")):
            return tfds.builder_from_directory(tfds_dir)
        builder = tfds.builder(name + (mark + config if config else ""), data_dir=tfds_dir)
    except tfds.core.DatasetNotFoundError as error:
        names = tfds.list_builders(with_community_datasets=False)
        if tfds_dir and os.path.isdir(tfds_dir):
            names += os.listdir(tfds_dir)
        raise UserError(
            f"tensorflow-datasets knows no data set {name!r}.{nearest(name, names)}",
            "A name from https://www.tensorflow.org/datasets/catalog, or of a data set in "
            "--tfds-dir.",
            "Check the name and --tfds-dir.",
        ) from error
    except Exception as error:  # what a data set's own code raises can be anything
        raise UserError(
            f"{data} cannot be opened: {error}",
            "A data set of tensorflow-datasets.",
            "Check name and configuration.",
        ) from error
    if not builder.is_prepared():
        _download(builder, data)
    return builder


def _download(builder: Any, data: str) -> None:
    try:
        hosts = {urllib.parse.urlsplit(url).hostname for url in builder.url_infos or ()} - {None}
        if hosts and not urllib.request.getproxies() and not any(map(_is_known, hosts)):
            # Without a network, tensorflow-datasets would go on trying for minutes.
            raise ConnectionError(f"no network: {hosts.pop()} cannot be found")
        builder.download_and_prepare()
    except Exception as error:  # what a data set's own code raises can be anything
        raise UserError(
            f"{data} is not prepared in {builder.data_dir}, and could not be downloaded: {error}",
            "A data set that is prepared already, or a way to download it.",
            f"Prepare it where there is a network (tfds build {builder.name} --data_dir FOLDER), "
            "copy the folder here and give --tfds-dir FOLDER.",
        ) from error


def _is_known(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, 443))
    except OSError:
        return False


def split_sides(data: str, found: dict) -> dict[str, int]:
    """Returns the side of each split to read, by its name in the data set.

    Raises:
        UserError: None of them is for training.
    """
    sides = {name: SPLIT_NAMES[name] for name in found if name in SPLIT_NAMES}
    if 0 in sides.values():
        return sides
    if len(found) == 1:
        return dict.fromkeys(found, 0)
    raise UserError(
        f"{data} has no split called train; it has: {', '.join(found) or 'none'}.",
        "A data set with a train split, or with one split only.",
        "Use another data set or configuration.",
    )


def _features(
    data: str, info: Any, task: str, image: str | None, label: str | None, group: str | None
) -> tuple[str, str]:
    """Returns the names of the features with picture and label."""
    import tensorflow_datasets as tfds

    def is_image(feature: Any) -> bool:
        return isinstance(feature, tfds.features.Image) and feature.np_dtype in (
            np.uint8,
            np.uint16,
        )

    def is_label(feature: Any) -> bool:
        if task == "regression":
            plain = isinstance(feature, tfds.features.Tensor) and not class_feature(feature)
            return plain and feature.shape == () and np.issubdtype(feature.np_dtype, np.number)
        several = isinstance(feature, tfds.features.Sequence)
        return several == (task == "multi") and class_feature(feature) is not None

    features = info.features if isinstance(info.features, tfds.features.FeaturesDict) else {}
    keys = info.supervised_keys if isinstance(info.supervised_keys, tuple) else ()
    chosen = []
    for name, fits in [(image, is_image), (label, is_label)]:
        fitting = [key for key in features if fits(features[key])]
        usual = [key for key in fitting if key in keys]
        candidates = [name] if name else usual[:1] or fitting
        chosen.append(candidates[0] if len(candidates) == 1 and candidates[0] in fitting else None)
    if None in chosen or (group and group not in features):
        kinds = {
            "single": "a ClassLabel",
            "multi": "a Sequence of ClassLabel",
            "regression": "a number",
        }
        listed = ", ".join(f"{key} ({type(feature).__name__})" for key, feature in features.items())
        raise UserError(
            f"{data} has these features: {listed or type(info.features).__name__}.",
            f"An Image and a label ({kinds[task]}), one of each or named.",
            "Name them with --image-column, --label-column and --group-column, or use another "
            "data set.",
        )
    return chosen[0], chosen[1]


def class_feature(feature: Any) -> Any:
    """Returns the ClassLabel that a feature is or is a sequence of, or None."""
    import tensorflow_datasets as tfds

    feature = getattr(feature, "feature", feature)
    return feature if isinstance(feature, tfds.features.ClassLabel) else None


def _cached(
    builder: Any,
    splits: list[str],
    image: str,
    label: str,
    group: str | None,
    progress: Callable[[int, int], None] | None,
) -> Path:
    """Returns the folder with the copy of the data set, made now if it is not there."""
    shards = [Path(path) for split in splits for path in builder.info.splits[split].filepaths]
    identity = [FORMAT, builder.info.full_name, image, label, group]
    for shard in shards:
        status = shard.stat()
        identity += [str(shard), status.st_size, status.st_mtime_ns]
    digest = hashlib.blake2b(repr(identity).encode(), digest_size=16).hexdigest()
    folder = cache_folder() / "tfds" / f"{builder.name}-{digest}"
    try:
        return made_once(
            folder,
            lambda beside: _copy(beside, builder, splits, image, label, group, progress),
        )
    except OSError as error:
        full = error.errno == errno.ENOSPC
        raise UserError(
            f"The pictures of {builder.name} cannot be copied to {folder.parent}: "
            f"{error.strerror or error}.",
            f"Space for {builder.info.dataset_size} of pictures."
            if full
            else "A folder that can be written.",
            "Make room there, or set TFSFT_CACHE to a folder elsewhere.",
        ) from error


def _copy(
    folder: Path,
    builder: Any,
    splits: list[str],
    image: str,
    label: str,
    group: str | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Writes `pictures.bin`, the encoded pictures, and `examples.parquet`, a row for each."""
    columns = {"id": [], "split": [], "end": [], "label": [], "group": []}
    label_class = class_feature(builder.info.features[label])
    group_class = class_feature(builder.info.features[group]) if group else None
    features = [image, label, *([group] if group else [])]
    total = sum(builder.info.splits[split].num_examples for split in splits)
    end = 0
    with open(folder / "pictures.bin", "wb") as file:
        for number, split in enumerate(splits):
            for row, example in enumerate(examples(builder, split, features, [image])):
                end += file.write(example[image])
                columns["id"].append(f"{builder.name}/{split}/{row}")
                columns["split"].append(number)
                columns["end"].append(end)
                columns["label"].append(_cell(example[label], label_class))
                columns["group"].append(str(_cell(example[group], group_class)) if group else "")
                if progress and len(columns["id"]) % 100 == 0:
                    progress(len(columns["id"]), total)
        file.flush()
        os.fsync(file.fileno())
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "examples.parquet")


def examples(
    builder: Any, split: str, features: Iterable[str], encoded: Iterable[str] = ()
) -> Iterator[dict]:
    """Yields the examples of a split, in order, as NumPy values.

    Args:
        builder: Of a data set that is ready to be read.
        split: Its name.
        features: Which to read.
        encoded: Which to leave as they are stored.
    """
    import tensorflow_datasets as tfds

    decoders = tfds.decode.PartialDecoding(
        dict.fromkeys(features, True), dict.fromkeys(encoded, tfds.decode.SkipDecoding())
    )
    order = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    dataset = builder.as_dataset(
        split=split, decoders=decoders, shuffle_files=False, read_config=order
    )
    return as_planned(dataset).as_numpy_iterator()


def _cell(value: Any, known: Any) -> Any:
    """Returns a feature's value as class names, text or a number; None where it is not known."""
    if known is None:
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value.item()
    if np.ndim(value):
        return [known.int2str(int(index)) for index in value]
    return known.int2str(int(value)) if value >= 0 else None
