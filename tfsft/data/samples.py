"""A few pictures of a source: to choose a size by, and to show to a person."""

import io

import numpy as np
from PIL import Image

from tfsft.data.sources import ImageSource

PHOTO_SIZE, SMALL_SIZE = 224, 96  # pixels
THUMBNAIL = 160  # pixels of its longer side


def suggest_image_size(source: ImageSource, sample: int = 16) -> int:
    """Returns 224, or 96 when half of some sampled pictures are smaller than 96 pixels on their
    longer side.
    """
    rows = np.linspace(0, len(source) - 1, min(sample, len(source))).astype(int)
    sides = [max(source.image(row)[0].shape[:2]) for row in rows]
    return PHOTO_SIZE if np.median(sides) >= SMALL_SIZE else SMALL_SIZE


def thumbnails(source: ImageSource, ids: list[str]) -> dict[str, bytes]:
    """Returns small PNG pictures of the examples with these ids."""
    rows = {name: row for row, name in enumerate(source.ids)}
    pictures = {}
    for name in ids:
        image, ok = source.image(rows[name])
        if not ok:
            continue
        picture = Image.fromarray(np.asarray(image))
        scale = THUMBNAIL / max(picture.size)
        size = [max(1, round(side * scale)) for side in picture.size]
        # Tiny pictures are shown with their pixels as they are.
        how = Image.Resampling.NEAREST if scale > 4 else Image.Resampling.LANCZOS
        file = io.BytesIO()
        picture.resize(size, how).save(file, "PNG")
        pictures[name] = file.getvalue()
    return pictures
