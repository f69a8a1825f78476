"""The conversations of the package chatterbot-corpus, which are always at hand."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from tfsft.data.chat_files import ChatFile, Row
from tfsft.data.topics import corpus_files

NAME = "chatterbot"
SEVERAL_ANSWERS = ("computers", "emotion")  # files in which all lines after the first answer it


def is_chatterbot(data: str) -> bool:
    """Says whether `data` is `chatterbot` or `chatterbot:LANGUAGE`."""
    return data == NAME or data.startswith(NAME + ":")


def open_chatterbot(data: str) -> ChatFile:
    """Returns the conversations of one language, each once.

    Args:
        data: `chatterbot`, which is English, or `chatterbot:LANGUAGE`.

    Raises:
        UsageError: There is no such language.
    """
    files = corpus_files(data, NAME)
    rows, copies = _conversations(files)
    language = files[0].parent.name
    about = f"those of the package chatterbot-corpus, {language}"
    if copies:
        about += f"; {copies} exact copies were left out"

    def read(columns: Sequence[str] | None) -> Iterator[Row]:
        return iter(rows)

    name = f"{NAME}-{language}"
    head = [cells for _, cells, _ in rows[:200]]
    return ChatFile(data, name, [str(path) for path in files], "YAML", read, head, about)


def _conversations(files: Sequence[Path]) -> tuple[list[Row], int]:
    """Returns different conversations, and how many were the same as others."""
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # `Yes` and `1984` are texts
    rows: dict[tuple[str, ...], Row] = {}
    copies = 0
    for path in files:
        content = yaml.load(path.read_text("utf8"), loader)
        for entry in content.get("conversations") or ():
            texts = [_text(part) for part in entry] if isinstance(entry, list) else []
            texts = [text for text in texts if text]
            told = [texts]
            if path.stem in SEVERAL_ANSWERS:
                told = [[texts[0], answer] for answer in texts[1:]]
            elif len(texts) % 2:
                told = [texts[:-1]]  # a last statement without an answer
            for lines in told:
                if len(lines) < 2:
                    continue
                copies += tuple(lines) in rows
                messages = [
                    {"role": ("user", "assistant")[place % 2], "content": text}
                    for place, text in enumerate(lines)
                ]
                number = len(rows) + 1
                rows.setdefault(tuple(lines), (number, {"messages": messages}, None))
    return list(rows.values()), copies


def _text(part: object) -> str:
    if isinstance(part, dict):  # a text with a colon
        part = ", ".join(f"{key}: {value}" for key, value in part.items())
    return " ".join(str(part).split())
