"""Damaged pictures and folders of pictures."""

import io
import os
import struct
import zlib
from functools import partial
from pathlib import Path

import numpy as np
from causes import BAD_PICTURES, damage, unprivileged, unusable, write
from PIL import Image

from tfsft import data


def encoded(number: int, kind: str = "PNG", size: tuple[int, int] = (9, 8), **options) -> bytes:
    """Returns a small picture that is like no other, as a file."""
    pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int) -> bytes:
    """Returns a PNG file that claims a size, with one row of pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 64)
    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def flowers(folder: Path, **more: bytes) -> str:
    """Writes four roses and four tulips, and other files beside the roses; returns the folder."""
    for number in range(8):
        write(folder, f"flowers/{('roses', 'tulips')[number % 2]}/{number}.png", encoded(number))
    for name, content in more.items():
        write(folder, f"flowers/roses/{name.replace('_', '.')}", content)
    return os.fspath(folder / "flowers")


@damage(
    data.load_images,
    unusable("1 of 9 pictures in DIR/flowers", "roses/x.jpg ends early (JPEG): it was cut off"),
    *BAD_PICTURES,
)
def jpeg_cut_off(folder):
    return flowers(folder, x_jpg=encoded(9, "JPEG", (40, 40))[:-200])


@damage(
    data.load_images,
    unusable("1 of 9 pictures in DIR/flowers", "roses/x.jpg ends early (JPEG): it was cut off"),
    *BAD_PICTURES,
)
def jpeg_cut_off_in_header(folder):
    return flowers(folder, x_jpg=encoded(9, "JPEG")[:30])


@damage(
    data.load_images,
    unusable("1 of 9 pictures in DIR/flowers", "roses/x.jpg has a damaged header (JPEG)"),
    *BAD_PICTURES,
)
def jpeg_without_marker(folder):
    content = bytearray(encoded(9, "JPEG"))
    content[20] = 0
    return flowers(folder, x_jpg=bytes(content))


@damage(
    data.load_images,
    unusable("1 of 9 pictures in DIR/flowers", "roses/x.png ends early (PNG): it was cut off"),
    *BAD_PICTURES,
)
def png_cut_off(folder):
    return flowers(folder, x_png=encoded(9)[:-30])


@damage(
    data.load_images,
    unusable("1 of 9 pictures in DIR/flowers", "roses/x.gif ends early (GIF): it was cut off"),
    *BAD_PICTURES,
)
def gif_cut_off(folder):
    return flowers(folder, x_gif=encoded(9, "GIF")[:-30])


@damage(
    data.load_images,
    unusable("1 of 9 pictures in DIR/flowers", "roses/x.webp ends early (WEBP): it was cut off"),
    *BAD_PICTURES,
)
def webp_cut_off(folder):
    return flowers(folder, x_webp=encoded(9, "WEBP")[:-30])


@damage(
    data.load_images,
    unusable("1 of 9 pictures in DIR/flowers", "roses/x.bmp ends early (BMP): it was cut off"),
    *BAD_PICTURES,
)
def bmp_cut_off(folder):
    return flowers(folder, x_bmp=encoded(9, "BMP")[:-30])


@damage(
    data.load_images,
    unusable("1 of 9 pictures in DIR/flowers", "roses/x.png has a damaged header (PNG)"),
    *BAD_PICTURES,
)
def png_with_damaged_header(folder):
    content = bytearray(encoded(9))
    content[24] = 77  # bits of a colour
    return flowers(folder, x_png=bytes(content))


def decoded(path: str) -> object:
    """Reads pictures and decodes them, as training does."""
    feed = data.ImageFeed(data.load_images(path).everything(), 8)
    return next(iter(feed.pipeline(4).epoch()))


@damage(
    decoded,
    "1 of 9 pictures cannot be decoded: roses/x.png",
    "Every picture must be readable; with --on-bad skip, up to one in ten may be bad.",
    "Repair or remove these files (`tfsft check` lists all of them), or add --on-bad skip.",
)
def png_with_damaged_pixels(folder):
    content = bytearray(encoded(9))
    content[50:60] = bytes(10)
    return flowers(folder, x_png=bytes(content))


@damage(
    data.load_images,
    unusable("1 of 9 pictures in DIR/flowers", "roses/x.png has a damaged header (PNG)"),
    *BAD_PICTURES,
)
def picture_of_no_pixels(folder):
    return flowers(folder, x_png=png(0, 0))


@damage(
    data.load_images,
    unusable("1 of 9 pictures in DIR/flowers", "roses/x.png has more than 178 million pixels"),
    *BAD_PICTURES,
)
def picture_of_gigantic_size(folder):
    return flowers(folder, x_png=png(60_000, 60_000))


@damage(
    data.load_images,
    unusable("1 of 9 pictures in DIR/flowers", "roses/x.jpg is empty"),
    *BAD_PICTURES,
)
def picture_of_no_bytes(folder):
    return flowers(folder, x_jpg=b"")


@damage(
    data.load_images,
    unusable(
        "1 of 9 pictures in DIR/flowers",
        "roses/x.jpg is not a picture that can be read: it seems to be nothing but zeros",
    ),
    *BAD_PICTURES,
)
def picture_of_zeros(folder):
    return flowers(folder, x_jpg=bytes(100))


@damage(
    data.load_images,
    unusable(
        "1 of 9 pictures in DIR/flowers",
        "roses/x.jpg is not a picture that can be read: it seems to be text",
    ),
    *BAD_PICTURES,
)
def text_called_jpg(folder):
    return flowers(folder, x_jpg=b"This is my cat.\n")


@damage(
    data.load_images,
    unusable(
        "1 of 9 pictures in DIR/flowers",
        "roses/x.jpg is not a picture that can be read: it seems to be a web page",
    ),
    *BAD_PICTURES,
)
def web_page_called_jpg(folder):
    return flowers(folder, x_jpg=b"<!DOCTYPE html>\n<html><body>404</body></html>")


@damage(
    data.load_images,
    unusable(
        "1 of 9 pictures in DIR/flowers",
        "roses/x.jpg is not a picture that can be read: it seems to be a Git LFS "
        "pointer: fetch the real file with `git lfs pull`",
    ),
    *BAD_PICTURES,
)
def git_lfs_pointer(folder):
    return flowers(folder, x_jpg=b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")


@damage(
    data.load_images,
    unusable(
        "1 of 9 pictures in DIR/flowers",
        "roses/x.jpg is not a picture that can be read: it seems to be a TIFF picture",
    ),
    *BAD_PICTURES,
)
def tiff_called_jpg(folder):
    return flowers(folder, x_jpg=encoded(9, "TIFF"))


@damage(
    data.load_images,
    unusable(
        "1 of 9 pictures in DIR/flowers",
        "roses/x.jpg is not a picture that can be read: it seems to be a HEIC picture",
    ),
    *BAD_PICTURES,
)
def heic_called_jpg(folder):
    return flowers(folder, x_jpg=b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")


@damage(
    data.load_images,
    unusable(
        "1 of 9 pictures in DIR/flowers",
        "roses/x.jpg is not a picture that can be read: it seems to be a video",
    ),
    *BAD_PICTURES,
)
def video_called_jpg(folder):
    return flowers(folder, x_jpg=b"\0\0\0\x18ftypisom\0\0\0\0isomiso2")


@damage(
    data.load_images,
    unusable(
        "1 of 9 pictures in DIR/flowers",
        "roses/x.png cannot be read: Too many levels of symbolic links",
    ),
    *BAD_PICTURES,
)
def link_in_a_circle(folder):
    root = flowers(folder)
    os.symlink("x.png", f"{root}/roses/x.png")
    return root


@damage(
    data.load_images,
    unusable("1 of 9 pictures in DIR/flowers", "roses/x.png does not exist"),
    *BAD_PICTURES,
)
def link_to_nothing(folder):
    root = flowers(folder)
    os.symlink("gone.png", f"{root}/roses/x.png")
    return root


@damage(
    partial(data.load_images, on_bad="skip"),
    unusable(
        "2 of 10 pictures in DIR/flowers",
        "roses/x.jpg is empty",
        "roses/y.jpg is not a picture that can be read: it seems to be text",
    ),
    "Every picture can be opened; with --on-bad skip at most one in ten may be bad.",
    "Mend or remove them.",
)
def more_than_one_bad_picture_in_ten(folder):
    return flowers(folder, x_jpg=b"", y_jpg=b"text")


@damage(
    data.load_images,
    "DIR holds 2 pictures but no class folders.",
    "One sub-folder for each class: FOLDER/roses/1.jpg, FOLDER/tulips/2.jpg.",
    "Make a folder for each class and move its pictures there.",
)
def pictures_without_class_folders(folder):
    write(folder, "2.png", encoded(2))
    write(folder, "1.png", encoded(1))
    return os.fspath(folder)


@damage(
    data.load_images,
    "DIR holds no class folders.",
    "One sub-folder for each class: FOLDER/roses/1.jpg, FOLDER/tulips/2.jpg.",
    "Make a folder for each class and move its pictures there.",
)
def empty_folder(folder):
    return os.fspath(folder)


@damage(
    data.load_images,
    "DIR/flowers holds one class folder only: roses.",
    "At least two classes. One sub-folder for each class: FOLDER/roses/1.jpg, FOLDER/tulips/2.jpg.",
    "Add a folder with pictures of something else.",
)
def one_class_folder(folder):
    write(folder, "flowers/roses/1.png", encoded(1))
    return os.fspath(folder / "flowers")


@damage(
    data.load_images,
    "DIR holds one class folder only: flowers.",
    "At least two classes. One sub-folder for each class: FOLDER/roses/1.jpg, FOLDER/tulips/2.jpg.",
    "Give --data DIR/flowers, if the classes are in there.",
)
def class_folders_too_deep(folder):
    flowers(folder)
    return os.fspath(folder)


@damage(
    data.load_images,
    "1 class folders hold no pictures: DIR/flowers/lilies.",
    "Every class has pictures. 1 files in DIR/flowers were passed over, because "
    "they are not pictures of a known kind (1 with .tiff); known are .bmp, .gif, "
    ".jfif, .jpe, .jpeg, .jpg, .png, .webp.",
    "Add pictures, or remove these folders.",
)
def class_folder_without_pictures(folder):
    root = flowers(folder)
    write(folder, "flowers/lilies/1.tiff", encoded(1, "TIFF"))
    return root


@damage(
    data.load_images,
    "Too few different pictures in DIR/flowers to split them: lilies (1).",
    "At least 3 different pictures of each class, one for every split.",
    "Add pictures, remove these classes, or make fewer splits: --test-fraction 0.",
)
def too_few_pictures_of_a_class(folder):
    root = flowers(folder)
    write(folder, "flowers/lilies/1.png", encoded(20))
    write(folder, "flowers/lilies/2.png", encoded(20))  # the same again
    return root


@damage(
    data.load_images,
    "DIR holds val/ and no train/.",
    "A data set with its own splits has train/, and validation/ and test/ where there are any.",
    "Rename the folder with the pictures to learn from to train/.",
)
def validation_folder_alone(folder):
    write(folder, "val/roses/1.png", encoded(1))
    return os.fspath(folder)


@damage(
    data.load_images,
    "DIR holds train/, val/, valid/, of which two mean the same.",
    "A data set has one train/, one validation/ (or val/, valid/) and one test/.",
    "Join them, or move one away.",
)
def two_folders_of_one_split(folder):
    flowers(folder)
    (folder / "flowers").rename(folder / "train")
    for name in ("val", "valid"):
        write(folder, f"{name}/roses/1.png", encoded(1))
    return os.fspath(folder)


@damage(
    data.load_images,
    "The class 'rosas' of the folder DIR/val/rosas is unknown.",
    "The classes are: roses, tulips. Did you mean 'roses'?",
    "Rename it, or leave these examples out.",
)
def class_of_validation_alone(folder):
    flowers(folder)
    (folder / "flowers").rename(folder / "train")
    write(folder, "val/rosas/1.png", encoded(1))
    return os.fspath(folder)


@damage(
    partial(data.load_images, task="regression"),
    "DIR/flowers is a folder, and its pictures are to be labelled with numbers.",
    "Numbers come from a table: CSV, TSV, JSONL or Parquet, with a path in each row.",
    "Write such a table into the folder and give its name as --data.",
)
def class_folders_for_numbers(folder):
    return flowers(folder)


@damage(
    data.load_images,
    "DIR/x.jpg is a single picture.",
    "One sub-folder for each class: FOLDER/roses/1.jpg, FOLDER/tulips/2.jpg.",
    "Give the folder above the classes.",
)
def picture_instead_of_folder(folder):
    return write(folder, "x.jpg", encoded(1, "JPEG"))


@damage(
    data.load_images,
    "DIR/flowers.zip is a file of an unknown kind.",
    "A folder, or a table: .csv, .tsv, .jsonl, .ndjson, .parquet.",
    "Unpack it if it is an archive; save it as CSV if it is a table.",
)
def archive_instead_of_folder(folder):
    return write(folder, "flowers.zip", b"PK\3\4" + bytes(20))


@damage(
    data.load_images,
    "There is no DIR/flwoers. Did you mean 'flowers'?",
    "--data is a folder, a CSV, TSV, JSONL or Parquet file, tfds:NAME, or digits.",
    "Check the name; DIR holds: flowers.",
)
def misspelt_folder(folder):
    return flowers(folder).replace("flowers", "flwoers")


@damage(
    unprivileged(data.load_images),
    "DIR/flowers cannot be read: permission denied.",
    "--data is a folder, a CSV, TSV, JSONL or Parquet file, tfds:NAME, or digits.",
    "Change its permissions, or those of the folders above it.",
)
def folder_that_may_not_be_read(folder):
    root = flowers(folder)
    os.chmod(root, 0)
    return root
