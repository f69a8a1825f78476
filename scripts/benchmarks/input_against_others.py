"""Pictures and texts on their way to the network: rows a second by tfsft, tf.data and torch.

    python scripts/benchmarks/input_against_others.py prepare
    python scripts/benchmarks/input_against_others.py ours
    python scripts/benchmarks/input_against_others.py tfdata
    .venv-benchmarks/bin/python scripts/benchmarks/input_against_others.py torch
    python scripts/benchmarks/input_against_others.py tokens
    .venv-benchmarks/bin/python scripts/benchmarks/input_against_others.py tokenizers

Pictures: 1,000 JPEGs of 500 x 375 pixels are read, decoded, resized to 224 x 224, flipped, cropped
and changed in colour, and made batches of 32. Texts: 8,056 short sentences become tokens.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

SIZE = 224
BATCH = 32


def main() -> None:
    """Does one step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=[*STEPS])
    parser.add_argument("--folder", type=Path, default=Path("runs/input"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--count", type=int, default=1000, help="pictures")
    args = parser.parse_args()
    figures = STEPS[args.step](args)
    if figures:
        print(json.dumps(figures))


def prepare(args: argparse.Namespace) -> None:
    """Writes photos/ in two classes, and the sentences."""
    from input import make_jpegs

    for number, content in enumerate(make_jpegs(args.count, 500)):
        folder = args.folder / "photos" / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(content)
    script = Path(__file__).with_name("text_against_transformers.py")
    command = [sys.executable, str(script), "prepare", "--folder", str(args.folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def ours(args: argparse.Namespace) -> dict:
    """The pipeline of the recipe image_cls."""
    from tfsft import data

    splits = data.load_images(str(args.folder / "photos"))
    feed = data.ImageFeed(splits.everything(), SIZE)
    pipeline = feed.pipeline(
        BATCH, shuffle=True, seed=0, augmenter=data.Augmenter("flip,crop,color", SIZE)
    )
    return pictures_per_second(lambda epoch: pipeline.epoch(epoch), args.count)


def with_tfdata(args: argparse.Namespace) -> dict:
    """What a person writes with tf.data and Keras's layers."""
    import keras
    import tensorflow as tf

    files = [str(path) for path in sorted((args.folder / "photos").rglob("*.jpg"))]
    layers = [
        keras.layers.RandomFlip("horizontal"),
        keras.layers.RandomCrop(SIZE, SIZE),
        keras.layers.RandomBrightness(0.2),
        keras.layers.RandomContrast(0.2),
    ]

    def read(path):  # noqa: ANN001
        picture = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        return tf.image.resize(picture, [SIZE + 32, SIZE + 32], antialias=True)

    def augment(batch):  # noqa: ANN001
        for layer in layers:
            batch = layer(batch, training=True)
        return batch

    dataset = tf.data.Dataset.from_tensor_slices(files).shuffle(len(files), seed=0)
    dataset = dataset.map(read, tf.data.AUTOTUNE).batch(BATCH).map(augment, tf.data.AUTOTUNE)
    dataset = dataset.prefetch(tf.data.AUTOTUNE)
    return pictures_per_second(lambda epoch: dataset, args.count)


def with_torch(args: argparse.Namespace) -> dict:
    """A DataLoader with two workers."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    torch.set_num_threads(args.threads)
    steps = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE, scale=(0.7, 1)),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(0.2, 0.2, 0.2),
            transforms.ToTensor(),
        ]
    )
    loader = DataLoader(
        datasets.ImageFolder(args.folder / "photos", steps),
        BATCH,
        shuffle=True,
        num_workers=2,
        persistent_workers=True,
    )
    return pictures_per_second(lambda epoch: loader, args.count)


def pictures_per_second(epoch, count: int) -> dict:  # noqa: ANN001
    """Reads three epochs after a first one."""
    best = 0.0
    for number in range(4):
        start = time.perf_counter()
        for _ in epoch(number):
            pass
        if number:
            best = max(best, count / (time.perf_counter() - start))
    return {"pictures_per_second": best}


def tokens(args: argparse.Namespace) -> dict:
    """As the recipe text_cls makes them, on an empty cache."""
    from tfsft import data, models

    backbone = models.load_text_backbone(str(args.folder / "minilm"))
    splits = data.load_texts(str(args.folder / "reviews.csv"))
    encoder = data.TextEncoder(backbone.tokenizer, 128)
    folder = args.folder / "cache"
    shutil.rmtree(folder, ignore_errors=True)
    os.environ["TFSFT_CACHE"] = str(folder)
    start = time.perf_counter()
    data.TextFeed(splits.train, encoder, num_outputs=2)
    return {"rows_per_second": len(splits.train) / (time.perf_counter() - start)}


def with_tokenizers(args: argparse.Namespace) -> dict:
    """The fast tokenizer of transformers, all texts in one call."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(args.folder / "minilm")
    with open(args.folder / "reviews.csv", encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file) if row["split"] == "train"]
    start = time.perf_counter()
    tokenizer(texts, truncation=True, max_length=128)
    return {"rows_per_second": len(texts) / (time.perf_counter() - start)}


STEPS = {
    "prepare": prepare,
    "ours": ours,
    "tfdata": with_tfdata,
    "torch": with_torch,
    "tokens": tokens,
    "tokenizers": with_tokenizers,
}

if __name__ == "__main__":
    main()
