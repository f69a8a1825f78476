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
    type=click.Choice(["saved_model", "keras", "hf"]),
    default="saved_model",
    show_default=True,
    help="saved_model: for TensorFlow, TensorFlow Serving and what else reads it. Of runs about "
    "conversations keras: a preset of KerasHub; hf: a folder of Hugging Face.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder to make; by default RUN/FORMAT."
)
@click.option("--debug", is_flag=True, help="Show tracebacks and TensorFlow's own messages.")
@click.pass_obj
def command(call: Any, run: Path, format: str, out: Path | None, debug: bool) -> None:
    """Write the model of the finished run RUN for use without tfsft.

    saved_model takes raw texts or pictures, and has been compared with `tfsft predict`; keras and
    hf hold the model of a chat run, its tokenizer, template and stop tokens, and have been loaded
    again and compared with it.
    """
    with starting_tensorflow(debug or call.debug):
        from tfsft.export import export_language_model, export_saved_model
        from tfsft.training.console import Console
    console = Console(stream=sys.stderr)
    console.say(f"Exporting {run}; this takes a moment.")
    out = out or run / format
    if format == "saved_model":
        exported = export_saved_model(run, out)
        compared = f"On {exported.samples} examples it answers as `tfsft predict` does:"
    else:
        exported = export_language_model(run, out, format)
        compared = f"On {exported.samples} prompts its logits are those of the run:"
    for note in exported.notes:
        console.say(note)
    console.say(
        f"Wrote {exported.folder}. {compared} the largest difference is "
        f"{exported.difference:.1g}. Use it so:"
    )
    click.echo(exported.usage)
