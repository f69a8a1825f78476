"""`tfsft serve`: a finished run behind HTTP, with a page to try it."""

import re
from pathlib import Path
from typing import Any

import click

from tfsft.cli.tensorflow_start import starting_tensorflow
from tfsft.errors import UsageError


@click.command("serve")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--port", type=click.IntRange(0, 65535), default=8501, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--token",
    envvar="TFSFT_TOKEN",
    help="What clients must know; needed where other machines can ask. TFSFT_TOKEN is safer, as "
    "others on this machine can read a command.",
)
@click.option("--name", help="Of the model, in addresses; by default that of the folder.")
@click.option(
    "--feedback",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Add what people say of answers to this file, as data to train on.",
)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="A name by which this machine is called, beside its own.",
)
@click.option("--batch", type=click.IntRange(1), help="Most examples at once.")
@click.option("--wait", type=click.FloatRange(0, 1), help="Seconds that one waits for others.")
@click.option("--queue", type=click.IntRange(1), help="Most examples that wait.")
@click.option("--streams", type=click.IntRange(1), help="Most chats that are written at once.")
@click.option("--max-body", type=click.IntRange(1), help="Bytes of a request.")
@click.option("--max-pixels", type=click.IntRange(1), help="Pixels of a picture.")
@click.option("--max-text", type=click.IntRange(1), help="Characters of a text.")
@click.option("--max-new-tokens", type=click.IntRange(1), help="Tokens of an answer.")
@click.option("--timeout", type=click.FloatRange(1), help="Seconds for a request.")
@click.option("--debug", is_flag=True, help="Show tracebacks and TensorFlow's own messages.")
@click.pass_obj
def command(call: Any, run: Path, debug: bool, **options: Any) -> int:
    """Serve the finished run RUN to programs, and to people on a page.

    It speaks TensorFlow Serving's REST API, the Open Inference Protocol, for assistants OpenAI's
    chat completions, and plain JSON. Ctrl-C finishes what is under way.
    """
    given = {name: value for name, value in options.items() if value is not None}
    with starting_tensorflow(debug or call.debug):
        from tfsft.export.predictor import read_task
        from tfsft.export.serving import Server, Settings, model_name
    task = read_task(run)
    given.setdefault("name", model_name(run))
    if not re.fullmatch(r"[A-Za-z0-9._-]+", given["name"]):
        raise UsageError(f"--name is {given['name']!r}.", "Letters, digits and . _ - alone.")
    server = Server(run, task, Settings(**given), on_ready=_say_where)
    click.echo(f"Loading {run} for {server.address} ...", err=True)
    number = server.answer()
    click.echo("Stopped; what was under way is finished.", err=True)
    return 128 + number if number else 0


def _say_where(address: str) -> None:
    click.echo(f"Ready: {address}  (Ctrl-C stops)", err=True)
