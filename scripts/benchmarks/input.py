"""Pictures a second from JPEG bytes to the network's input, against TensorFlow's bare operations.

    python scripts/benchmarks/input.py
    python scripts/benchmarks/input.py --size 500 --threads 8 --augment flip,crop,color

The bare operations neither honour EXIF nor survive a damaged file; the ratio is what that costs.
On 2 shared CPU cores, from 500 x 375 to 224 x 224 pixels: decoding 0.71 x, with resizing 0.90 x
(706 pictures a second), with flip, crop and color 381 pictures a second.
"""

import argparse
import io
import time

import numpy as np
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_images

from tfsft.data import Augmenter, decode_image, resize


def make_jpegs(count: int, size: int) -> list[bytes]:
    """Returns different crops of two photographs, `size` pixels wide."""
    rng = np.random.default_rng(0)
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    files = []
    for number in range(count):
        x, y = rng.integers(0, 160, 2)
        crop = photos[number % 2].crop((x, y, x + 480, y + 267))
        file = io.BytesIO()
        crop.resize((size, size * 3 // 4)).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=500, help="width of the files, in pixels")
    parser.add_argument("--image-size", type=int, default=224, help="what the network takes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--count", type=int, default=1000, help="pictures in one measurement")
    parser.add_argument("--repeats", type=int, default=5, help="the fastest one counts")
    parser.add_argument("--augment", default="flip,crop,color")
    args = parser.parse_args()

    augmenter = Augmenter(args.augment, args.image_size)
    sides = [args.image_size, args.image_size]

    def bare(data):  # noqa: ANN001
        return tf.io.decode_jpeg(data, channels=3)

    def bare_resized(data):  # noqa: ANN001
        return tf.cast(tf.image.resize(bare(data), sides, antialias=True), tf.uint8)

    def tfsft(data):  # noqa: ANN001
        return decode_image(data)[0]

    def tfsft_resized(data):  # noqa: ANN001
        return resize(tfsft(data), args.image_size)

    def tfsft_augmented(data):  # noqa: ANN001
        seed = tf.stack([tf.strings.to_hash_bucket_fast(data, 1 << 30), 0])
        return augmenter.image(tfsft_resized(data), tf.cast(seed, tf.int32))

    steps = {
        "decode, bare": bare,
        "decode": tfsft,
        "decode and resize, bare": bare_resized,
        "decode and resize": tfsft_resized,
        f"and augment ({args.augment})": tfsft_augmented,
    }
    files = tf.data.Dataset.from_tensor_slices(make_jpegs(50, args.size)).repeat()
    options = tf.data.Options()
    options.threading.private_threadpool_size = args.threads

    def pictures_per_second(step) -> float:  # noqa: ANN001
        # One number a picture, in batches, so that Python counts little.
        dataset = files.map(lambda data: step(data)[0, 0, 0], num_parallel_calls=args.threads)
        batches = iter(dataset.batch(50).prefetch(2).with_options(options))
        next(batches)
        start = time.perf_counter()
        for _ in range(args.count // 50):
            next(batches)
        return args.count // 50 * 50 / (time.perf_counter() - start)

    best = dict.fromkeys(steps, 0.0)
    for _ in range(args.repeats):  # taking turns, so that other load hits all alike
        for name, step in steps.items():
            best[name] = max(best[name], pictures_per_second(step))
    references = [best["decode, bare"]] * 2 + [best["decode and resize, bare"]] * 3
    for (name, rate), reference in zip(best.items(), references, strict=True):
        print(f"{name:40} {rate:8.0f} pictures/s {rate / reference:6.2f} x bare")


if __name__ == "__main__":
    main()
