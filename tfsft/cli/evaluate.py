"""`tfsft evaluate`: how good a finished run is on other labelled data."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from tfsft.cli.out_path import OutPath
from tfsft.cli.tensorflow_start import starting_tensorflow
from tfsft.errors import UsageError


@click.command("evaluate")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", "folder", required=True, help="Labelled data, as for `tfsft run`.")
@click.option(
    "--split",
    type=click.Choice(["all", "train", "validation", "test"]),
    help="Part of the data, where it has parts; by default its test part, else all.",
)
@click.option("--image-column", help="Column with the path of the picture.")
@click.option("--text-column", help="Column with the text.")
@click.option("--text-pair-column", help="Column with the second text of each pair.")
@click.option("--label-column", help="Column with the label.")
@click.option("--tfds-dir", help="Folder of prepared tensorflow-datasets.")
@click.option(
    "--on-bad",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    help="What to do about examples that cannot be used.",
)
@click.option(
    "--out",
    type=OutPath(),
    help="Also write every prediction to this CSV file, worst mistakes first.",
)
@click.option("--json", "as_json", is_flag=True, help="Print all metrics as JSON.")
@click.option("--debug", is_flag=True, help="Show tracebacks and TensorFlow's own messages.")
@click.pass_obj
def command(
    call: Any,
    run: Path,
    folder: str,
    split: str | None,
    out: Path | None,
    as_json: bool,
    debug: bool,
    **options: str | None,
) -> None:
    """Score the finished run RUN on other labelled data, with the run's classes."""
    with starting_tensorflow(debug or call.debug):
        from tfsft import evaluation
        from tfsft.export import load_predictor
        from tfsft.training.console import Console
    console = Console(stream=sys.stderr)
    predictor = load_predictor(run, refused_too=True)
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in predictor.options:
            raise UsageError(
                f"--{name.replace('_', '-')} was given for a run about {predictor.nouns[1]}.",
                "Its data is named by "
                + ", ".join(f"--{option.replace('_', '-')}" for option in predictor.options)
                + ".",
                "Leave it out.",
            )
    reading = console.quiet_reporter("Reading", predictor.nouns[1])
    source, bad = predictor.labelled(folder, split=split, progress=reading, **given)
    predicting = console.quiet_reporter("Predicting", predictor.nouns[1])
    metrics, rows = predictor.evaluate(source, predicting)
    for example in bad:
        console.say(f"Skipped {example.id}: {example.reason}.")
    if out is not None:
        evaluation.write_rows(out, rows, kind=predictor.labels)
    if as_json:
        click.echo(json.dumps(metrics, indent=1, ensure_ascii=False, allow_nan=False))
        return
    click.echo(f"{len(source)} {predictor.nouns[1]} of {folder}")
    for name, value in metrics.items():
        if isinstance(value, int):
            click.echo(f"{name:28} {value}")
        elif isinstance(value, float):
            click.echo(f"{name:28} {value:.4f}")
    for row in metrics.get("per_class") or []:
        figures = "  ".join(
            f"{name} {'-' if row.get(name) is None else format(row[name], '.3f')}"
            for name in ("precision", "recall", "f1")
        )
        click.echo(f"  {row['class']:26} {figures}  of {row['support']}")
