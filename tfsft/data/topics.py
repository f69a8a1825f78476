"""The topics of utterances in the package chatterbot-corpus: texts that are always at hand."""

import importlib.resources
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import yaml

from tfsft.data.labels import shorten
from tfsft.errors import UsageError, nearest

TOPICS = "topics"
LEAST = 3  # texts of a class, one for each split


def is_topics(data: str) -> bool:
    """Says whether `data` is `topics` or `topics:LANGUAGE`."""
    return data == TOPICS or data.startswith(TOPICS + ":")


def topic_files(data: str) -> list[Path]:
    """Returns the files of one language, in the order of their names.

    Args:
        data: `topics`, which is English, or `topics:LANGUAGE`.

    Raises:
        UsageError: There is no such language.
    """
    return corpus_files(data, TOPICS, least=2)


def corpus_files(data: str, name: str, least: int = 1) -> list[Path]:
    """Returns the files of one language of chatterbot-corpus, in the order of their names.

    Args:
        data: The name, which is English, or `NAME:LANGUAGE`.
        name: What the data is called.
        least: Files that a language must have.

    Raises:
        UsageError: There is no such language.
    """
    folder = Path(str(importlib.resources.files("chatterbot_corpus"))) / "data"
    languages = sorted(path.name for path in folder.iterdir() if len(_files(path)) >= least)
    language = data.partition(":")[2].lower() or "english"
    if language not in languages:
        hint = nearest(language, languages)
        raise UsageError(
            f"--data {data}: there are no {'topics' if name == TOPICS else 'conversations'} in "
            f"{language!r}.{hint}",
            f"One of {', '.join(languages)}.",
            f"Try --data {name}:{hint[15:-2] or 'english'}.",
        )
    return _files(folder / language)


def read_topics(files: list[Path]) -> tuple[list[tuple[str, str, str]], list[str]]:
    """Reads every question and answer once.

    Args:
        files: From `topic_files`; each is a class of its name.

    Returns:
        (id, text, class) of each text, and what was left out, in sentences.
    """
    rows: dict[tuple[str, str], str] = {}
    for path in files:
        for number, text in enumerate(_utterances(path), 1):
            rows.setdefault((text, path.stem), f"{path.stem}:{number}")
    classes = defaultdict(set)
    for text, name in rows:
        classes[text].add(name)
    several = {text for text, names in classes.items() if len(names) > 1}
    sizes = Counter(name for text, name in rows if text not in several)
    small = sorted(name for _, name in rows if sizes[name] < LEAST)
    left_out = []
    if several:
        left_out.append(
            f"{len(several)} utterances stand under more than one topic and were left out, for "
            f"example {shorten(map(repr, sorted(several, key=len)), 3)}."
        )
    if small:
        left_out.append(
            f"Topics with fewer than {LEAST} utterances were left out: "
            f"{shorten(dict.fromkeys(small))}."
        )
    kept = [
        (place, text, name)
        for (text, name), place in rows.items()
        if text not in several and sizes[name] >= LEAST
    ]
    return kept, left_out


def own_folder_warning() -> list[str]:
    """Returns a warning where a folder or file has the same name."""
    if not os.path.exists(TOPICS):
        return []
    return [f"{TOPICS} means chatterbot-corpus; for your own of this name give --data ./{TOPICS}."]


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.yml"))


def _utterances(path: Path) -> Iterator[str]:
    # The base loader: `Yes` and `1984` are texts.
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    content = yaml.load(path.read_text("utf8"), loader)
    for conversation in content.get("conversations") or ():
        for utterance in conversation if isinstance(conversation, list) else [conversation]:
            if isinstance(utterance, dict):  # a text with a colon
                utterance = ", ".join(f"{key}: {value}" for key, value in utterance.items())
            text = " ".join(str(utterance).split())
            if text:
                yield text
