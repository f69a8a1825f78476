"""What a model sees of a conversation, token by token: learned, only read, cut off, control."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tfsft.data.chat_encoding import ChatEncoder
from tfsft.data.chat_templates import Message

if TYPE_CHECKING:
    from rich.text import Text

STYLES = {"learned": "bold green", "read": "dim", "cut": "red strike"}
MARKS = {"learned": "[{}]", "read": "{}", "cut": "~{}~"}  # where there are no colours


@dataclass(frozen=True)
class XrayToken:
    """One token.

    Args:
        text: What it reads.
        state: "learned", "read" or, beyond the limit, "cut".
        control: Whether it is a control token.
    """

    text: str
    state: str
    control: bool


def token_xray(encoder: ChatEncoder, messages: Sequence[Message]) -> list[XrayToken]:
    """Returns all tokens of a conversation and what becomes of each."""
    ((ids, learned),) = encoder.tokens([messages])
    special = set(encoder.tokenizer.control.values())
    pieces = encoder.tokenizer.pieces(ids)
    tokens = []
    for place, (token, piece) in enumerate(zip(ids.tolist(), pieces, strict=True)):
        # The last token in a row is the target of the one before it, so one more fits.
        if place > encoder.max_length:
            state = "cut"
        else:
            # Nothing comes before the first token that could be learned to bring it.
            state = "learned" if learned[place] and place else "read"
        tokens.append(XrayToken(piece, state, token in special))
    return tokens


def draw_xray(tokens: Sequence[XrayToken], *, colours: bool = True) -> "Text":
    """Returns the tokens as text for the terminal; runs of a state are in brackets without colours.

    Args:
        tokens: From `token_xray`.
        colours: Whether the terminal has any.
    """
    from rich.text import Text

    drawn = Text()
    start = 0
    for place in range(1, len(tokens) + 1):
        if place < len(tokens) and tokens[place].state == tokens[start].state:
            continue
        run, state = tokens[start:place], tokens[start].state
        if colours:
            for token in run:
                underlined = " underline" if token.control else ""
                drawn.append(token.text, STYLES[state] + underlined)
        else:
            drawn.append(MARKS[state].format("".join(token.text for token in run)))
        start = place
    return drawn


def legend(*, colours: bool = True) -> "Text":
    """Returns one line that says what the looks of tokens mean."""
    from rich.text import Text

    said = {"learned": "learned", "read": "only read", "cut": "cut off"}
    drawn = Text()
    for state, words in said.items():
        drawn.append(words if colours else MARKS[state].format(words), STYLES[state])
        drawn.append(" · ")
    drawn.append("control token" if colours else "control tokens in angle brackets", "underline")
    return drawn
