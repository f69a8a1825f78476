"""What text files are written in."""

import codecs

from tfsft.errors import UserError

ENCODINGS = {"utf8": "UTF-8", "utf-16": "UTF-16", "cp1252": "Latin-1 (Windows-1252)"}


def find_encoding(path: str) -> str:
    """Returns how a file's text is encoded, as Python names it: utf8, utf-16 or cp1252.

    Raises:
        UserError: It is no text.
    """
    with open(path, "rb") as file:
        start = file.read(len(codecs.BOM_UTF8))
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            if _undecodable(path, "utf-16"):
                raise _unknown_encoding(path)
            return "utf-16"
        if is_binary(start + file.read(1 << 16)):
            raise _no_text(path)
        block = _undecodable(path, "utf8")
        if not block:
            return "utf8"
        # One broken letter in a file of UTF-8 does not make it another encoding.
        text = block.decode("utf8", "replace")
        broken = text.count("\ufffd")
        if sum(letter > "\x7f" for letter in text) - broken > broken:
            file.seek(0)
            for number, line in enumerate(file, 1):
                try:
                    line.decode("utf8")
                except UnicodeDecodeError:
                    raise UserError(
                        f"{path} is UTF-8, but line {number} holds bytes that are not: "
                        f"{shortened(line.decode('utf8', 'replace'))}",
                        "Text in one encoding: UTF-8, UTF-16 or Latin-1.",
                        "Save that line again as UTF-8.",
                    ) from None
    if _undecodable(path, "cp1252"):
        raise _unknown_encoding(path)
    return "cp1252"


def _undecodable(path: str, encoding: str) -> bytes:
    """Returns the first block of a file that is no text in this encoding; nothing if all are."""
    decoder = codecs.getincrementaldecoder(encoding)()
    with open(path, "rb") as file:
        block = file.read(1 << 20)
        while block:
            following = file.read(1 << 20)
            try:
                decoder.decode(block, final=not following)
            except UnicodeDecodeError:
                return block
            block = following
    return b""


def is_binary(block: bytes) -> bool:
    """Says whether the beginning of a file shows that it is no text."""
    odd = sum(block[:65536].count(code) for code in (*range(1, 9), *range(14, 27)))
    return b"\0" in block or odd > len(block[:65536]) / 50


def _unknown_encoding(path: str) -> UserError:
    return UserError(
        f"{path} is text in an encoding that is not known, or ends early.",
        "Text in UTF-8, UTF-16 (with byte order mark) or Latin-1.",
        "Save it again as UTF-8.",
    )


def _no_text(path: str) -> UserError:
    return UserError(
        f"{path} is no text but binary data.",
        "Text in UTF-8, UTF-16 (with byte order mark) or Latin-1.",
        "Unpack it if it is an archive; save it as CSV or JSONL if it is a spreadsheet.",
    )


def first_letter(path: str) -> str:
    """Returns the first letter that is no space."""
    with open(path, encoding=find_encoding(path)) as file:
        return file.read(4096).lstrip("\ufeff \t\r\n")[:1]


def shortened(text: str, length: int = 80) -> str:
    """Returns the beginning of a text on one line."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 4].rstrip() + " ..."
