"""`tfsft explain`: why a finished run answers as it does."""

import sys
from pathlib import Path
from typing import Any

import click

from tfsft.cli.out_path import OutPath
from tfsft.cli.tensorflow_start import starting_tensorflow


@click.command("explain")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("inputs", nargs=-1, metavar="[INPUT]...", type=click.Path())
@click.option("--csv", "table", type=click.Path(), help="Take the inputs from a table.")
@click.option(
    "--worst",
    type=click.IntRange(0, 100),
    help="How many of the run's worst mistakes to explain, from the data it was trained on; by "
    "default 12, of conversations 4.",
)
@click.option(
    "--out", type=OutPath(folder=True), help="Folder of pages; by default RUN/explanations."
)
@click.option("--debug", is_flag=True, help="Show tracebacks and TensorFlow's own messages.")
@click.pass_obj
def command(
    call: Any,
    run: Path,
    inputs: tuple[str, ...],
    table: str | None,
    worst: int | None,
    out: Path | None,
    debug: bool,
) -> int:
    """Explain what the finished run RUN says of each INPUT, and its worst mistakes.

    INPUT is as for `tfsft predict`. Of pictures, heat maps show where the model looks (Grad-CAM and
    integrated gradients); of texts, words are coloured by what they add to the answer; of
    conversations, tokens of the prompt. Each gets a page of its own.
    """
    with starting_tensorflow(debug or call.debug):
        from tfsft.export import explain_run
        from tfsft.training.console import Console
    console = Console(stream=sys.stderr)
    progress = console.quiet_reporter("Explaining", "examples")
    found = explain_run(run, inputs, table, out=out, worst=worst, progress=progress)
    for example in found.bad:
        console.say(f"Skipped {example.id}: {example.reason}.")
    for note in found.notes:
        console.say(f"Note: {note}")
    for path in found.pages:
        click.echo(str(path))
    return 0 if found.pages else 1
