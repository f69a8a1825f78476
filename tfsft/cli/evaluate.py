"""`tfsft evaluate`: how good a finished run is on other labelled data."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from tfsft.cli.tensorflow_start import starting_tensorflow


@click.command("evaluate")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", "folder", required=True, help="Labelled pictures, as for `tfsft run`.")
@click.option(
    "--split",
    type=click.Choice(["all", "train", "validation", "test"]),
    help="Part of the data, where it has parts; by default its test part, else all.",
)
@click.option("--image-column", help="Column with the path of the picture.")
@click.option("--label-column", help="Column with the label.")
@click.option("--tfds-dir", help="Folder of prepared tensorflow-datasets.")
@click.option(
    "--on-bad",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    help="What to do about unreadable pictures.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
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
    image_column: str | None,
    label_column: str | None,
    tfds_dir: str | None,
    on_bad: str,
    out: Path | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Score the finished run RUN on other labelled data, with the run's classes."""
    with starting_tensorflow(debug or call.debug):
        from tfsft import evaluation
        from tfsft.export import ImagePredictor
        from tfsft.training.console import Console
    console = Console(stream=sys.stderr)
    predictor = ImagePredictor(run)
    source, bad = predictor.labelled(
        folder,
        split=split,
        image_column=image_column,
        label_column=label_column,
        tfds_dir=tfds_dir,
        on_bad=on_bad,
        progress=console.quiet_reporter("Reading", "pictures"),
    )
    metrics, rows = predictor.evaluate(source, console.quiet_reporter("Predicting", "pictures"))
    for example in bad:
        console.say(f"Skipped {example.id}: {example.reason}.")
    if out is not None:
        evaluation.write_rows(out, rows, kind=predictor.labels)
    if as_json:
        click.echo(json.dumps(metrics, indent=1, ensure_ascii=False, allow_nan=False))
        return
    click.echo(f"{len(source)} pictures of {folder}")
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
