"""Small files that say they are gigantic pictures."""

import functools
import io
import struct
import zlib

from PIL import Image

NAMES = ("zeros.png", "black.png", "header.png", "flat.jpg", "exif.jpg", "frame.gif", "flat.webp")
SIDE = 12_000  # 144 million pixels, fewer than the limit for any picture


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(side, depth, colour, row):
    """A picture of zeros, written row by row."""
    packer, packed = zlib.compressobj(9), b""
    rows = bytes((1 + row) * (side // 10))
    for _ in range(10):
        packed += packer.compress(rows)
    packed += packer.flush()
    header = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)
    chunks = _chunk(b"IHDR", header), _chunk(b"IDAT", packed), _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _larger(png):
    """The file of a small picture with the header of a large one."""
    return png[:8] + _chunk(b"IHDR", struct.pack(">II", SIDE, SIDE) + png[24:29]) + png[33:]


def _jpeg(height, width, exif=b""):
    """The file of a small picture whose header says that it is a large one."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "JPEG", exif=exif)
    data = buffer.getvalue()
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


def _gif(width, height):
    """A screen of one pixel, and a frame that is far larger."""
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\x00"
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6) + frame + b";"


def _webp():
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "WEBP", lossless=True)
    data = bytearray(buffer.getvalue())
    place = data.index(b"VP8L") + 9
    bits = struct.unpack_from("<I", data, place)[0]
    bits = (bits & ~0xFFFFFFF) | (SIDE - 1) | (SIDE - 1) << 14
    struct.pack_into("<I", data, place, bits)
    return bytes(data)


@functools.cache
def bombs():
    """By file name, the bytes."""
    orientation = Image.Exif()
    orientation[0x0112] = 6
    return {
        "zeros.png": _png(SIDE, 8, 2, 3 * SIDE),
        "black.png": _png(SIDE, 1, 0, SIDE // 8),
        "header.png": _larger(_png(60, 8, 2, 180)),
        "flat.jpg": _jpeg(SIDE, SIDE),
        "exif.jpg": _jpeg(SIDE, SIDE, orientation.tobytes()),
        "frame.gif": _gif(SIDE, SIDE),
        "flat.webp": _webp(),
    }
