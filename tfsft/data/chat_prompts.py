"""System prompts with placeholders that are filled from the columns of each row."""

import os
import re
from collections.abc import Collection, Mapping

from tfsft.data.plain_texts import read_text
from tfsft.data.tables import cell_text
from tfsft.errors import UsageError, nearest

PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
PROMPT_SUFFIXES = (".txt", ".md", ".prompt")


def read_prompt(given: str) -> str:
    """Returns a system prompt: the text of a file where `given` names one, else `given` itself.

    Raises:
        UsageError: It looks like the name of a file that is not there, or the file is empty.
    """
    path = os.path.expanduser(given)
    try:
        found = os.path.isfile(path)
    except ValueError:  # no path can hold such a character
        found = False
    if found:
        text = read_text(path).strip()
        if not text:
            raise UsageError(f"{given} is empty.", "A file with the prompt.", "Write it there.")
        return text
    if given.endswith(PROMPT_SUFFIXES) and not re.search(r"\s", given):
        raise UsageError(
            f"--system-prompt {given}: there is no such file.",
            "A text, or the name of a file that holds it.",
            "Check the name.",
        )
    return given


def placeholders(template: str) -> list[str]:
    """Returns the names in braces, each once, in the order of their first appearance.

    Raises:
        UsageError: A brace has no partner, or nothing is between them.
    """
    names = [_name(template, part) for part in PART.finditer(template)]
    return list(dict.fromkeys(name for name in names if name))


def fill_prompt(template: str, values: Mapping[str, object]) -> str:
    """Puts values in the place of their names: `You are {persona}.`

    Doubled braces stand for single ones; what a value holds is left as it is.

    Args:
        template: The prompt.
        values: By name; what is missing (None) is an empty text.

    Raises:
        UsageError: A placeholder has no value, or a brace no partner.
    """
    check_placeholders(template, values)

    def filled(part: re.Match) -> str:
        name = _name(template, part)
        if not name:
            return part[0][0]
        value = values[name]
        return ", ".join(map(cell_text, value)) if isinstance(value, list) else cell_text(value)

    return PART.sub(filled, template)


def check_placeholders(template: str, names: Collection[str]) -> None:
    """Raises `UsageError` unless every placeholder is one of `names`, such as columns."""
    for name in placeholders(template):
        if name not in names:
            have = f"are: {', '.join(names)}" if names else "is none"
            raise UsageError(
                f"The system prompt holds {{{name}}}, and there is no column {name!r}."
                f"{nearest(name, names)}",
                f"A placeholder is the name of a column; there {have}.",
                "Correct the name; double the braces, {{ and }}, if they are part of the text.",
            )


def _name(template: str, part: re.Match) -> str:
    """Returns the name of a placeholder, or nothing for doubled braces."""
    if part[0] in ("{{", "}}"):
        return ""
    name = (part[1] or "").strip()
    if not name:
        near = template[max(part.start() - 20, 0) : part.end() + 20]
        raise UsageError(
            f"The system prompt has a brace that encloses no name: ... {near} ...",
            "{column} for a placeholder; {{ and }} for the braces themselves.",
            "Double the brace.",
        )
    return name
