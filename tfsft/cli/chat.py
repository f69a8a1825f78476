"""`tfsft chat`: talk to the assistant of a finished run."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from tfsft.cli.tensorflow_start import starting_tensorflow
from tfsft.errors import UsageError

HELP = "/reset begins anew · /system TEXT changes who it is · /save FILE · /help · /quit"


@click.command("chat")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--system", help="Another system prompt than that of the run.")
@click.option(
    "--temperature",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="How freely it draws its words; 0 takes the likeliest.",
)
@click.option("--top-k", type=click.IntRange(0), default=0, help="Draw from so many tokens.")
@click.option(
    "--top-p",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    help="Draw from the fewest tokens that are this likely together.",
)
@click.option(
    "--repetition-penalty",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    help="Above 1 makes what was said before less likely.",
)
@click.option("--max-new-tokens", type=click.IntRange(1), default=512, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, help="Of what is drawn.")
@click.option("--debug", is_flag=True, help="Show tracebacks and TensorFlow's own messages.")
@click.pass_obj
def command(call: Any, run: Path, system: str | None, debug: bool, **sampling: Any) -> None:
    """Talk to the assistant of the finished run RUN.

    Ctrl-C ends an answer; Ctrl-D, or /quit, the conversation. What is piped in is answered line by
    line.
    """
    with starting_tensorflow(debug or call.debug):
        from tfsft.export import load_predictor
    predictor = load_predictor(run)
    if not hasattr(predictor, "chat"):
        raise UsageError(
            f"The run {run} is about '{predictor.task['task']}'.",
            "A run of chat_sft, that can be talked to.",
            f"Use tfsft predict {run} INPUT.",
        )
    chat = predictor.chat()
    if system is not None:
        chat.system(system)
    terminal = sys.stdin.isatty()
    if terminal:
        click.echo(HELP, err=True)
    while (line := _line(terminal)) is not None:
        text = line.strip()
        if text.startswith("/"):
            if _obey(chat, text):
                return
        elif text:
            _answer(chat, text, sampling)
            sampling["seed"] += 1  # or the same question would always be answered alike


def _line(terminal: bool) -> str | None:
    """Returns what is typed next; None at the end of it."""
    try:
        if terminal:
            return click.prompt("you", prompt_suffix="> ", default="", show_default=False)
        return sys.stdin.readline() or None
    except (EOFError, KeyboardInterrupt, click.Abort):
        click.echo(err=True)
        return None


def _answer(chat: Any, text: str, sampling: dict[str, Any]) -> None:
    pieces = chat.say(text, **sampling)
    try:
        for piece in pieces:
            click.echo(piece, nl=False)
    except KeyboardInterrupt:
        pieces.close()
        click.echo(" ...", nl=False)
    click.echo()


def _obey(chat: Any, text: str) -> bool:
    """Does what a command says; returns whether the conversation is over."""
    word, _, rest = text.partition(" ")
    rest = rest.strip()
    if word in ("/quit", "/exit"):
        return True
    if word == "/reset":
        chat.reset()
        click.echo("A new conversation.", err=True)
    elif word == "/system":
        chat.system(rest)
        click.echo("A new conversation, with that system prompt.", err=True)
    elif word == "/save":
        _save(chat, rest)
    else:
        click.echo(HELP if word == "/help" else f"There is no {word}. {HELP}", err=True)
    return False


def _save(chat: Any, name: str) -> None:
    """Adds the conversation to a file as a line that `chat_sft --data` reads."""
    path = Path(name or "chat.jsonl")
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"messages": chat.messages}, ensure_ascii=False) + "\n")
        click.echo(f"Added to {path}.", err=True)
    except OSError as error:
        click.echo(f"{path} cannot be written: {error.strerror}.", err=True)
