import io
import struct
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image

from tfsft.data import images
from tfsft.data.images import decode_image, inspect_image, load_image, resize


@pytest.fixture(scope="module")
def photo():
    """A real photograph with an odd height and width."""
    return Image.fromarray(load_sample_image("flower.jpg")).resize((75, 49))


@pytest.fixture(scope="module")
def ramp():
    """Red, green and blue that grow slowly, with transparency from 0 to 255."""
    y, x = np.mgrid[:32, :48]
    return np.stack([x * 5, y * 7, x + y, (x * y * 255) // (31 * 47)], -1).astype(np.uint8)


def encoded(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def decoded(data):
    image, ok = decode_image(data)
    assert image.dtype == tf.uint8
    assert bool(ok)
    return image.numpy()


def pillow(data):
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return np.asarray(white)
    return np.asarray(image.convert("RGB"))


def with_orientation(number):
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def png_chunk(kind, content):
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png(width, height, bits, colour_type, rows, *chunks):
    """A PNG file written by hand, for what Pillow does not write; rows start with a filter byte."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [
            png_chunk(b"IHDR", header),
            *chunks,
            png_chunk(b"IDAT", zlib.compress(rows)),
            png_chunk(b"IEND", b""),
        ]
    )


# Every format against Pillow. JPEG too is equal to the last bit: both decoders are libjpeg-turbo
# with the accurate integer transform and smooth upscaling of colour, where TensorFlow's default
# differs by up to 16 levels. One level is tolerated, should another version round differently.

JPEG_TOLERANCE = 1


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("quality", [30, 95])
def test_jpeg(photo, quality, subsampling, progressive):
    data = encoded(photo, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive)
    assert images._is_plain_jpeg(data)
    difference = decoded(data).astype(int) - pillow(data)
    assert np.abs(difference).max() <= JPEG_TOLERANCE


def test_grey_jpeg(photo):
    data = encoded(photo.convert("L"), "JPEG")
    assert images._is_plain_jpeg(data)
    np.testing.assert_array_equal(decoded(data), pillow(data))


@pytest.mark.parametrize("adobe", [True, False])
def test_cmyk_jpeg(photo, adobe):
    data = encoded(photo.convert("CMYK"), "JPEG", quality=95)
    if not adobe:  # without Adobe's segment nothing before the frame header tells of four inks
        place = data.index(b"\xff\xee")
        length = struct.unpack_from(">H", data, place + 2)[0]
        data = data[:place] + data[place + 2 + length :]
        assert data[2:4] == b"\xff\xdb"
    assert not images._is_plain_jpeg(data)
    np.testing.assert_array_equal(decoded(data), pillow(data))


def test_adobe_cmyk_is_inverted_and_looks_like_the_photo(photo):
    data = encoded(photo.convert("CMYK"), "JPEG", quality=95)
    assert np.abs(decoded(data).astype(int) - np.asarray(photo)).mean() < 5


def test_jpeg_with_adobe_rgb(photo):
    data = encoded(photo, "JPEG", keep_rgb=True, quality=95)
    np.testing.assert_array_equal(decoded(data), pillow(data))
    assert np.abs(decoded(data).astype(int) - np.asarray(photo)).mean() < 5


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
@pytest.mark.parametrize("format", ["PNG", "BMP", "GIF"])
def test_lossless(photo, format, mode):
    data = encoded(photo.convert(mode), format)
    np.testing.assert_array_equal(decoded(data), pillow(data))
    if format != "GIF" or mode != "RGB":  # GIF has 256 colours
        np.testing.assert_array_equal(decoded(data), photo.convert(mode).convert("RGB"))


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 80}])
def test_webp(photo, options):
    data = encoded(photo, "WEBP", **options)
    np.testing.assert_array_equal(decoded(data), pillow(data))
    if "lossless" in options:
        np.testing.assert_array_equal(decoded(data), photo)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_first_frame(photo, format):
    options = {"lossless": True} if format == "WEBP" else {}
    frames = [photo.convert("P"), ImageOps.invert(photo).convert("P")]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(decoded(data), frames[0].convert("RGB"))


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_alpha_is_put_on_white(ramp, format):
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    data = encoded(Image.fromarray(ramp), format, **options)
    alpha = ramp[..., 3:] / 255
    expected = ramp[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(decoded(data) - expected).max() <= 1  # Pillow composites in whole numbers
    assert (decoded(data)[0] == 255).all()  # fully transparent


def test_grey_with_alpha(ramp):
    data = encoded(Image.fromarray(ramp).convert("LA"), "PNG")
    assert np.abs(decoded(data).astype(int) - pillow(data)).max() <= 1


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_transparent_palette_colour(format):
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    data = encoded(image, format, transparency=1)
    expected = [[[10, 20, 30], [255] * 3], [[70, 80, 90], [255] * 3]]
    np.testing.assert_array_equal(decoded(data), expected)


def test_palette_with_alpha():
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([0, 0, 0, 100, 0, 200, 9, 9, 9])
    data = encoded(image, "PNG", transparency=bytes([255, 128, 0]))
    expected = [[[0, 0, 0], [177, 127, 227], [255, 255, 255]]]  # (100 * 128 + 255 * 127) / 255 ...
    np.testing.assert_allclose(decoded(data), expected, atol=1)


def test_transparent_colour_of_a_true_colour_png():
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    data = encoded(image, "PNG", transparency=(1, 2, 3))
    np.testing.assert_array_equal(decoded(data), [[[255] * 3, [4, 5, 6]]])


def test_16_bit_grey_keeps_the_high_byte():
    values = np.array([[0, 255, 256, 32768, 65280, 65535]], np.uint16)
    data = encoded(Image.fromarray(values), "PNG")
    np.testing.assert_array_equal(decoded(data)[0, :, 1], [0, 0, 1, 128, 255, 255])


def test_16_bit_grey_with_a_transparent_value():
    rows = b"\0" + struct.pack(">3H", 1000, 2000, 65535)
    data = png(3, 1, 16, 0, rows, png_chunk(b"tRNS", struct.pack(">H", 2000)))
    np.testing.assert_array_equal(decoded(data)[0, :, 0], [3, 255, 255])


@pytest.mark.parametrize("transparent", [(), (png_chunk(b"tRNS", b"\xff\xff\0\0\0\0"),)])
def test_16_bit_rgb(transparent):
    rows = b"\0" + struct.pack(">6H", 256, 512, 65535, 40000, 0, 300)
    data = png(2, 1, 16, 2, rows, *transparent)
    np.testing.assert_array_equal(decoded(data), [[[1, 2, 255], [156, 0, 1]]])


def test_16_bit_rgba():
    rows = b"\0" + struct.pack(">8H", 256, 512, 65535, 65535, 9, 9, 9, 0)
    np.testing.assert_array_equal(decoded(png(2, 1, 16, 6, rows)), [[[1, 2, 255], [255] * 3]])


UPRIGHT = {  # how to put each stored orientation right, by the EXIF standard
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("number", UPRIGHT)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_orientation(photo, format, number):
    options = {"lossless": True} if format == "WEBP" else {}
    stored = pillow(encoded(photo, format, **options))
    data = encoded(photo, format, exif=with_orientation(number), **options)
    np.testing.assert_array_equal(decoded(data), pillow(data))
    np.testing.assert_array_equal(decoded(data), UPRIGHT[number](stored))


def test_orientation_in_xmp_alone(photo):
    tag = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6"/></x:xmpmeta>'
    data = encoded(photo, "JPEG", xmp=tag)
    assert decoded(data).shape == (75, 49, 3)


def test_orientation_after_a_large_colour_profile(photo):
    options = {"exif": with_orientation(6), "icc_profile": bytes(200_000)}
    data = encoded(photo, "JPEG", **options)
    assert decoded(data).shape == (75, 49, 3)


def test_damaged_exif_does_not_make_a_picture_bad(photo):
    data = encoded(photo, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xffgarbage")
    np.testing.assert_array_equal(decoded(data), pillow(encoded(photo, "JPEG")))


# What cannot be decoded


def bad_files(photo):
    jpeg, whole_png = encoded(photo, "JPEG"), encoded(photo, "PNG")
    return {
        "empty": b"",
        "one byte": b"x",
        "text": b"not a picture at all, but a line of text",
        "only a marker": b"\xff\xd8\xff\xdb",
        "start of a jpeg": jpeg[:21],
        "half a jpeg": jpeg[: len(jpeg) // 2],
        "jpeg header": jpeg[: jpeg.index(b"\xff\xda")],
        "half a png": whole_png[: len(whole_png) // 2],
        "damaged png": whole_png.replace(b"IDAT", b"IDAT\xff\xff\xff"),
        "half a gif": encoded(photo, "GIF")[:1500],
        "half a bmp": encoded(photo, "BMP")[:1500],
        "half a webp": encoded(photo, "WEBP")[:300],
        "tiff": encoded(photo, "TIFF"),
        "wrong huffman table": jpeg.replace(
            b"\xff\xc4\x00\x1f\x00\x00", b"\xff\xc4\x00\x1f\x00\xff"
        ),
    }


def test_what_cannot_be_decoded_is_one_black_pixel(photo):
    for name, data in bad_files(photo).items():
        image, ok = decode_image(data)
        assert not ok, name
        np.testing.assert_array_equal(image, np.zeros([1, 1, 3]))


def test_bad_pictures_do_not_stop_or_shift_a_pipeline(photo):
    good = [encoded(photo, "JPEG"), encoded(photo, "PNG"), encoded(photo, "BMP")]
    files, expected = [], []
    for number, data in enumerate(bad_files(photo).values()):
        files += [data, good[number % 3]]
        expected += [None, pillow(good[number % 3])]
    dataset = tf.data.Dataset.from_tensor_slices(files)
    dataset = dataset.map(decode_image, num_parallel_calls=tf.data.AUTOTUNE)
    assert dataset.element_spec[0].shape.as_list() == [None, None, 3]
    for (image, ok), wanted in zip(dataset, expected, strict=True):
        assert ok == (wanted is not None)
        np.testing.assert_array_equal(image, np.zeros([1, 1, 3]) if wanted is None else wanted)


def bombs(photo):
    header = struct.pack(">II", 20_000, 20_000)
    whole_png = encoded(photo, "PNG")
    body = b"IHDR" + header + whole_png[24:29]
    yield whole_png[:12] + body + struct.pack(">I", zlib.crc32(body)) + whole_png[33:]
    jpeg = encoded(photo, "JPEG")
    place = jpeg.index(b"\xff\xc0") + 5
    yield jpeg[:place] + struct.pack(">HH", 20_000, 20_000) + jpeg[place + 4 :]
    bmp = encoded(photo, "BMP")
    yield bmp[:18] + struct.pack("<ii", 20_000, 20_000) + bmp[26:]


def test_gigantic_pictures_are_refused_before_decoding(photo, monkeypatch):
    files = list(bombs(photo))
    monkeypatch.setattr(images, "_rgb", lambda image: pytest.fail("was decoded"))
    for data in files:
        assert not decode_image(data)[1]
        assert inspect_image(data) is not None
    assert inspect_image(files[0]) == "has more than 178 million pixels"
    assert inspect_image(files[1]) == "has more than 178 million pixels"


def test_a_limit_below_pillows_own_holds_too(photo, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    data = encoded(photo, "PNG")
    assert inspect_image(data).startswith("has 75 x 49 pixels")
    assert not decode_image(data)[1]


def test_the_fast_decoder_refuses_gigantic_pictures(photo):
    jpeg = list(bombs(photo))[1]
    assert not images._is_plain_jpeg(jpeg)


# Looking at a file without decoding it


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "GIF", "WEBP"])
def test_whole_files_are_good_and_cut_files_end_early(photo, format):
    data = encoded(photo, format)
    assert inspect_image(data) is None
    for length in [len(data) - 1, len(data) - 2, len(data) // 2, 200, 60, 13]:
        reason = inspect_image(data[:length])
        assert reason is not None, length
        assert reason == f"ends early ({format}): it was cut off"


def test_what_follows_the_end_does_no_harm(photo):
    for format in ["JPEG", "PNG", "BMP", "WEBP"]:
        data = encoded(photo, format) + b"something of the camera's own"
        assert inspect_image(data) is None, format
        np.testing.assert_array_equal(decoded(data), pillow(encoded(photo, format)))
    assert inspect_image(encoded(photo, "GIF") + b"\0\0") is None


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA"])
def test_bmp_needs_all_its_pixels(photo, mode):
    data = encoded(photo.convert(mode), "BMP")
    assert inspect_image(data) is None
    assert "ends early" in inspect_image(data[:-1])
    assert inspect_image(data[:2] + b"\xff\xff\xff\xff" + data[6:]) is None  # a wrong file size


def test_a_thumbnail_does_not_hide_that_a_jpeg_was_cut(photo):
    exif = Image.Exif()
    exif[0x010E] = "\xff\xd9"
    data = encoded(photo, "JPEG", exif=exif.tobytes() + encoded(photo.resize((8, 8)), "JPEG"))
    assert inspect_image(data) is None
    assert "ends early" in inspect_image(data[:-2])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"\n <!DOCTYPE html><html>Not found", "web page"),
        (b'<?xml version="1.0"?><svg/>', "XML"),
        (b"<svg/>", "SVG"),
        (b"PK\x03\x04....", "ZIP"),
        (b"\0\0\0\x18ftypheic....", "HEIC"),
        (b"\0\0\0\x18ftypisom....", "video"),
        (b"II*\0....", "TIFF"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"a,b,c\n1,2,3\n", "text"),
        (bytes(2000), "zeros"),
        (bytes(range(256)), "other data"),
    ],
)
def test_what_a_file_seems_to_be(data, words):
    assert words in inspect_image(data)


def test_a_wrong_suffix_is_no_reason(photo, tmp_path):
    path = tmp_path / "really_a_png.jpg"
    path.write_bytes(encoded(photo, "PNG"))
    assert inspect_image(path.read_bytes()) is None
    np.testing.assert_array_equal(decoded(tf.io.read_file(str(path))), photo)


# Size


@pytest.mark.parametrize("size", [16, 64, 96])
def test_resize_is_the_layer_of_a_saved_model(photo, size, tmp_path):
    model = keras.Sequential(
        [
            keras.Input((None, None, 3), dtype="uint8"),
            keras.layers.Resizing(size, size, antialias=True, dtype="uint8"),
        ]
    )
    model.save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    pixels = np.asarray(photo)
    expected = model(pixels[None])[0].numpy()
    assert expected.dtype == np.uint8
    np.testing.assert_array_equal(resize(pixels, size), expected)
    dataset = tf.data.Dataset.from_tensors(encoded(photo, "PNG"))
    dataset = dataset.map(lambda data: resize(decode_image(data)[0], size))
    assert dataset.element_spec.shape.as_list() == [size, size, 3]
    np.testing.assert_array_equal(dataset.get_single_element(), expected)


def test_resize_is_close_to_pillow(photo):
    expected = np.asarray(photo.resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(resize(np.asarray(photo), 32).numpy() - expected).max() <= 2


def test_load_image(photo, tmp_path):
    photo.save(tmp_path / "photo.png")
    image, ok = load_image(str(tmp_path / "photo.png"), 32)
    assert ok
    np.testing.assert_array_equal(image, resize(np.asarray(photo), 32))
    (tmp_path / "bad.png").write_bytes(b"bad")
    image, ok = load_image(str(tmp_path / "bad.png"), 32)
    assert not ok
    np.testing.assert_array_equal(image, np.zeros([32, 32, 3]))
