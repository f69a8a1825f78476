"""`tfsft export`: a finished run for programs that know nothing of tfsft."""

import sys
from pathlib import Path
from typing import Any

import click

from tfsft.cli.tensorflow_start import starting_tensorflow
from tfsft.errors import UsageError

PORTABLE = ("onnx", "litert")


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--format",
    type=click.Choice(["saved_model", *PORTABLE, "keras", "hf"]),
    default="saved_model",
    show_default=True,
    help="saved_model: for TensorFlow, TensorFlow Serving and what else reads it. onnx, litert: "
    "for ONNX Runtime and LiteRT, without TensorFlow. Of chat_sft and seq2seq keras: a preset "
    "of KerasHub; hf: a folder of Hugging Face.",
)
@click.option(
    "--quantize",
    type=click.Choice(["int8", "dynamic", "float16"]),
    help="onnx, litert: int8 computes in integers, measured with training data; dynamic and "
    "float16 make the weights smaller.",
)
@click.option("--data", help="Other held-out data than the run's test split.")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    help="Largest difference of an output, by default 1e-4; with --quantize largest "
    "loss of accuracy, by default 0.01.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder to make; by default RUN/FORMAT."
)
@click.option("--debug", is_flag=True, help="Show tracebacks and TensorFlow's own messages.")
@click.pass_obj
def command(
    call: Any,
    run: Path,
    format: str,
    out: Path | None,
    debug: bool,
    **options: Any,
) -> None:
    """Write the model of the finished run RUN for use without tfsft.

    saved_model takes raw texts or pictures; onnx and litert take tokens or pixels, and tokenizer
    and an example lie beside them. keras and hf hold a model that writes texts, its
    tokenizer, template and stop tokens. A certificate says how they do on held-out examples.
    """
    quantize = options.pop("quantize")
    if quantize and format not in PORTABLE:
        raise UsageError(
            f"--quantize was given with --format {format}.",
            f"It goes with --format {', '.join(PORTABLE)}.",
            "Leave it out, or choose one of these.",
        )
    with starting_tensorflow(debug or call.debug):
        from tfsft.export import export_language_model, export_portable, export_saved_model
        from tfsft.training.console import Console
    console = Console(stream=sys.stderr)
    console.say(f"Exporting {run}; this takes a moment.")
    out = out or run / (f"{format}-{quantize}" if quantize else format)
    options["progress"] = console.quiet_reporter("Reading", "examples")
    if format in PORTABLE:
        exported = export_portable(run, out, format, quantize=quantize, **options)
    elif format == "saved_model":
        exported = export_saved_model(run, out, certified=True, **options)
    else:
        exported = export_language_model(run, out, format, certified=True, **options)
    for note in exported.notes:
        console.say(note)
    console.say(f"Wrote {exported.folder}. {exported.certificate.summary()} Use it so:")
    click.echo(exported.usage)
