"""`tfsft export`: a finished run for programs that know nothing of tfsft."""

import sys
from pathlib import Path
from typing import Any

import click

from tfsft.cli.tensorflow_start import starting_tensorflow


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--format",
    type=click.Choice(["saved_model"]),
    default="saved_model",
    show_default=True,
    help="saved_model: for TensorFlow, TensorFlow Serving and what else reads it.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder to make; by default RUN/saved_model."
)
@click.option("--debug", is_flag=True, help="Show tracebacks and TensorFlow's own messages.")
@click.pass_obj
def command(call: Any, run: Path, format: str, out: Path | None, debug: bool) -> None:
    """Write the model of the finished run RUN for use without tfsft.

    What comes out takes raw texts or pictures, and has been compared with `tfsft predict`.
    """
    with starting_tensorflow(debug or call.debug):
        from tfsft.export import export_saved_model
        from tfsft.training.console import Console
    console = Console(stream=sys.stderr)
    console.say(f"Exporting {run}; this takes a moment.")
    exported = export_saved_model(run, out or run / format)
    console.say(
        f"Wrote {exported.folder}. On {exported.samples} examples it answers as `tfsft predict` "
        f"does: the largest difference is {exported.difference:.1g}. Use it so:"
    )
    click.echo(exported.usage)
