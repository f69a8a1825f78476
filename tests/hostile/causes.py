"""The corpus of damaged files: how each is made, who reads it, and what a person is told."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tfsft.errors import UserError

# What is expected and how to fix it, where several messages say so. These are copies: a message
# that has become worse in the library is to be noticed here.
_SKIP = "with --on-bad skip at most one in ten may be bad."
_LEAVE = "Mend or remove them, or leave them out with --on-bad skip."
BAD_PICTURES = (f"Every picture can be opened; {_SKIP}", _LEAVE)
BAD_TEXTS = (f"Every row has a text and a label; {_SKIP}", _LEAVE)
BAD_TAGS = (f"Every word has a tag, and tags follow their scheme; {_SKIP}", _LEAVE)
BAD_QUESTIONS = (f"Every answer is a part of its context, or there is none; {_SKIP}", _LEAVE)
BAD_CHATS = (f"Every row has a message of the user and an answer to it; {_SKIP}", _LEAVE)
_TABLE = (
    "A table with the names of its columns in the first line (CSV, TSV; UTF-8), one object a line "
    "(JSONL), a list of objects (JSON), or Parquet."
)
FILL = (_TABLE, "Fill it.")
SAVE_AGAIN = (_TABLE, "Mend the file, or save it again in one of these formats.")
MEND_LINE = (_TABLE, "Mend that line; if each line is an object of its own, call the file .jsonl.")
REWRITE = (_TABLE, "Write it in another way: text and label are enough.")
DOWNLOAD = (
    _TABLE,
    "Download it again; a page that asks to sign in is often saved instead of a file.",
)
_TEXT = "Text in UTF-8, UTF-16 (with byte order mark) or Latin-1."
UNPACK = (
    _TEXT,
    "Unpack it if it is an archive; save it as CSV or JSONL if it is a spreadsheet.",
)
ENCODE = (_TEXT, "Save it again as UTF-8.")
WHOLE_ROWS = (
    "Every row is whole: a cell for each column; text with commas in quotation marks.",
    "Mend or remove the row.",
)
CLOSE = (
    'A cell in "quotation marks", those inside of it doubled: "He said ""no""."',
    "Close it, or take it away.",
)
PLAIN = (
    "A single text or number in each row.",
    "Name another column, or write the parts into columns of their own.",
)
NAME_COLUMNS = (
    "A first line such as text,label.",
    "Write the names of the columns above the first row.",
)
ARCHIVE = (
    "Expected: A model that Keras saved: config.json and model.weights.h5, as large as they are "
    "stored.",
    "Get the file again from where it comes: it may have been cut off.",
)
LAYERS = (
    "Expected a model of layers of Keras and KerasHub, without code of its own.",
    "Save it again, with the versions of Keras and KerasHub that are installed here.",
)
JSON = ("Expected a JSON file.", "Get the file again from where it comes.")

CASES: dict[str, "Cause"] = {}


@dataclass(frozen=True)
class Cause:
    """One cause of damage.

    Args:
        make: Writes the file into an empty folder; returns what the reader is given.
        read: The reader.
        said: The message: what came, what was expected, how to fix it; DIR is the folder, and
            [...] are words of a library.
    """

    make: Callable[[Path], object]
    read: Callable[[object], object]
    said: tuple[str, str, str]

    @property
    def patterns(self) -> list[str]:
        """The parts of the message as regular expressions."""
        return [re.escape(part).replace(re.escape("[...]"), "(?s:.*)") for part in self.said]

    def fits(self, found: tuple[str, str, str]) -> bool:
        """Says whether an outcome is the message."""
        return all(map(re.fullmatch, self.patterns, found))

    def outcome(self, folder: Path) -> tuple[str, str, str]:
        """Returns the message that the damage gives; raises what is no message."""
        given = self.make(folder)
        try:
            read = self.read(given)
        except UserError as error:
            parts = error.came, error.expected, error.fix
            return tuple(part.replace(str(folder), "DIR") for part in parts)
        return (f"Read as {read!r}.", "", "")


def damage(
    read: Callable[[object], object], came: str = "", expected: str = "", fix: str = ""
) -> Callable[[Callable], Callable]:
    """Adds a function that makes a damaged file to the corpus, under its name."""

    def add(make: Callable[[Path], object]) -> Callable[[Path], object]:
        if make.__name__ in CASES:
            raise ValueError(f"two causes are called {make.__name__}")
        CASES[make.__name__] = Cause(make, read, (came, expected, fix))
        return make

    return add


def unusable(count: str, *reasons: str) -> str:
    """Returns the first part of the message about examples that cannot be used."""
    return "\n".join([f"{count} cannot be used:", *(f"  {reason}" for reason in reasons)])


def unprivileged(read: Callable[[object], object]) -> Callable[[object], object]:
    """Returns a reader that may read no more than others may, even if root runs the tests."""

    def read_as_nobody(given: object) -> object:
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            return read(given)
        finally:
            os.seteuid(user)

    return read_as_nobody


def write(folder: Path, name: str, content: str | bytes, encoding: str = "utf-8") -> str:
    """Writes a file; returns its path."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return os.fspath(path)
