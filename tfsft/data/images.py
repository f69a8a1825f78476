"""One encoded picture to RGB pixels, and what is wrong with it if that cannot work."""

import contextlib
import functools
import io
import struct
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp"})
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")
MAX_PIXELS = 178_956_970  # Pillow's own limit against decompression bombs: half a gigabyte of RGB
# A small file must not become a large picture: so many pixels are free, and so many for each byte.
# A white page has 85 as JPEG; zeros have 343 as PNG, and 8,000 in black and white.
FREE_PIXELS = 8_000_000  # take up to 0.2 gigabytes, with transparency
PIXELS_PER_BYTE = 200

# Of large pictures and damaged EXIF; the first have a limit here, the second do no harm.
warnings.filterwarnings("ignore", module=r"PIL\.")


@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
def decode_image(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes a JPEG, PNG, BMP, GIF (first frame) or WebP file in graph; never raises.

    Grey, palette, CMYK and 16-bit pictures become 8-bit RGB, transparency is put on white, and the
    orientation in EXIF is applied. The result is what Pillow decodes, bit for bit: TensorFlow's
    faster decoder, told to use the same arithmetic, takes JPEG files without metadata.

    Args:
        encoded: The bytes of the file, a string scalar.

    Returns:
        The pixels, uint8 `[height, width, 3]`, and whether they could be decoded, bool; if not,
        the picture is one black pixel.
    """
    # Python can catch an error of a decoder, a graph cannot but by operations with a state, which
    # keep data sets from working in parallel where operations are to be deterministic.
    types = (tf.uint8, tf.bool)
    image, ok = tf.numpy_function(_decode, [encoded], types, stateful=False)
    return tf.ensure_shape(image, [None, None, 3]), tf.ensure_shape(ok, [])


def resize(image: tf.Tensor, size: int) -> tf.Tensor:
    """Scales pictures to squares exactly as the layer inside a saved model does.

    Args:
        image: uint8 `[height, width, 3]` or `[batch, height, width, 3]`.
        size: Height and width of the result, in pixels.

    Returns:
        uint8 `[size, size, 3]` or `[batch, size, size, 3]`.
    """
    return _resizing(size)(image)


def load_image(path: str, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Reads one picture file as the network wants it.

    Args:
        path: An existing file.
        size: Height and width of the result, in pixels.

    Returns:
        uint8 `[size, size, 3]`, and whether the picture could be decoded.
    """
    image, ok = decode_image(tf.io.read_file(path))
    return resize(image, size), ok


def inspect_image(data: bytes) -> str | None:
    """Looks at the frame of a picture file, without decoding it.

    Args:
        data: The whole file.

    Returns:
        Why it cannot be used, in words that follow its name, or None if it looks good.
    """
    if not data:
        return "is empty"
    name = _format_name(data)
    if name not in FORMATS:
        return f"is not a picture that can be read: it seems to be {name}"
    try:
        if not _COMPLETE[name](data):
            return f"ends early ({name}): it was cut off"
        width, height = _open(data).size
    except (IndexError, struct.error):  # a field lies beyond the end
        return f"ends early ({name}): it was cut off"
    except Image.DecompressionBombError:
        return f"has more than {MAX_PIXELS // 10**6} million pixels"
    except Exception:  # damaged files make Pillow raise nearly anything
        return f"has a damaged header ({name})"
    if width * height > MAX_PIXELS:
        return f"has {width} x {height} pixels, more than {MAX_PIXELS // 10**6} million"
    if width * height > _most_pixels(len(data)):
        return f"has {width} x {height} pixels in {len(data)} bytes, as only a bomb has"
    return None


def _most_pixels(length: Any) -> Any:
    return FREE_PIXELS + PIXELS_PER_BYTE * length


# Decoding


def _decode(data: bytes) -> tuple[np.ndarray, bool]:
    if _is_plain_jpeg(data):
        options = {"dct_method": "INTEGER_ACCURATE", "fancy_upscaling": True}  # as Pillow does
        with contextlib.suppress(tf.errors.InvalidArgumentError):
            return tf.io.decode_jpeg(data, channels=3, **options).numpy(), True
    return _decode_with_pillow(data)


def _is_plain_jpeg(data: bytes) -> bool:
    # Nothing or a short JFIF segment before the first table: no word on rotation or colour spaces.
    bare = data.startswith(b"\xff\xd8\xff\xdb") or (
        data.startswith(b"\xff\xd8\xff\xe0\0\x10JFIF") and data[20:22] == b"\xff\xdb"
    )
    if not bare:
        return False
    try:
        height, width, channels = tf.io.extract_jpeg_shape(data, tf.int64).numpy()
    except tf.errors.InvalidArgumentError:
        return False
    fits = height * width <= min(_most_pixels(len(data)), MAX_PIXELS)
    return bool(fits) and channels != 4  # four channels are CMYK


def _decode_with_pillow(data: bytes) -> tuple[np.ndarray, bool]:
    try:
        image = _open(data)
        if image.width * image.height <= min(_most_pixels(len(data)), MAX_PIXELS):
            return _rgb(image), True
    except Exception:
        pass
    return np.zeros([1, 1, 3], np.uint8), False


def _open(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=FORMATS)


def _rgb(image: Image.Image) -> np.ndarray:
    image.load()
    with contextlib.suppress(Exception):  # damaged EXIF does not make the picture bad
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):  # 16-bit grey: Pillow would cut it off at 255
        wide = np.asarray(image)
        grey = np.where(wide == image.info.get("transparency", -1), 255, wide >> 8)
        return np.repeat(grey[..., None].astype(np.uint8), 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


@functools.cache
def _resizing(size: int) -> keras.layers.Layer:
    return keras.layers.Resizing(size, size, antialias=True, dtype="uint8")


# Looking at a file

_MAGIC = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\0": "a TIFF picture",
    b"MM\0*": "a TIFF picture",
    b"8BPS": "a Photoshop file",
    b"\0\0\1\0": "an icon",
    b"\xff\x0a": "a JPEG XL picture",
    b"\0\0\0\x0cJXL ": "a JPEG XL picture",
    b"\0\0\0\x0cjP  ": "a JPEG 2000 picture",
    b"%PDF": "a PDF document",
    b"PK\3\4": "a ZIP archive or office document",
    b"\x1f\x8b": "a gzip archive",
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"version https://git-lfs": "a Git LFS pointer: fetch the real file with `git lfs pull`",
}
_TEXT_MARKS = {
    b"<svg": "an SVG drawing",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"<?xml": "XML",
}


def _format_name(data: bytes) -> str:
    for magic, name in _MAGIC.items():
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        brands = {b"avif": "an AVIF picture", b"heic": "a HEIC picture", b"mif1": "a HEIC picture"}
        return brands.get(data[8:12], "a video")
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for mark, name in _TEXT_MARKS.items():
        if start.startswith(mark):
            return name
    if not any(data[:512]):
        return "nothing but zeros"
    return "text" if all(byte >= 32 or byte in b"\t\r\n" for byte in start) else "other data"


def _jpeg_complete(data: bytes) -> bool:
    place = 2  # segments lead to the pixels, in which an end marker cannot occur by chance
    while data[place + 1] != 0xDA:
        if data[place] != 0xFF:
            raise ValueError("no marker where one belongs")
        filler = data[place + 1] == 0xFF
        place += 1 if filler else 2 + struct.unpack_from(">H", data, place + 2)[0]
    return data.find(b"\xff\xd9", place) >= 0


def _png_complete(data: bytes) -> bool:
    place = 8
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        place += 12 + length
        if kind == b"IEND":
            return place <= len(data)
    return False


def _gif_complete(data: bytes) -> bool:
    return data.rstrip(b"\0").endswith(b";")


def _webp_complete(data: bytes) -> bool:
    return len(data) >= 8 + struct.unpack_from("<I", data, 4)[0]


def _bmp_complete(data: bytes) -> bool:
    # The file size in the header is often wrong; what the pixels take is not, unless compressed.
    total, _, start, header = struct.unpack_from("<IIII", data, 2)
    if header == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    if compression in (1, 2):  # run-length encoded
        return len(data) >= total
    return len(data) >= start + (width * bits + 31) // 32 * 4 * abs(height)


_COMPLETE = {
    "JPEG": _jpeg_complete,
    "PNG": _png_complete,
    "GIF": _gif_complete,
    "WEBP": _webp_complete,
    "BMP": _bmp_complete,
}
