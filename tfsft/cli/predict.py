"""`tfsft predict`: answers of a finished run."""

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import click

from tfsft.cli.tensorflow_start import starting_tensorflow
from tfsft.errors import UsageError


@click.command("predict")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("inputs", nargs=-1, metavar="INPUT...", type=click.Path())
@click.option(
    "--csv",
    "table",
    type=click.Path(),
    help="Take the inputs from the first column of this CSV file.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Write a CSV file (JSON if it ends in .json) instead of a table.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, with the probability of every class."
)
@click.option("--debug", is_flag=True, help="Show tracebacks and TensorFlow's own messages.")
@click.pass_obj
def command(
    call: Any,
    run: Path,
    inputs: tuple[str, ...],
    table: str | None,
    out: Path | None,
    as_json: bool,
    debug: bool,
) -> int:
    """Predict with the finished run RUN: INPUT are pictures, or folders of them."""
    inputs = (*inputs, *(_first_column(table) if table else ()))
    if not inputs:
        raise UsageError(
            "No INPUT was given.",
            "Pictures or folders of pictures.",
            f"tfsft predict {run} picture.jpg",
        )
    with starting_tensorflow(debug or call.debug):
        from tfsft.export import ImagePredictor, find_pictures
        from tfsft.training.console import Console
    console = Console(stream=sys.stderr)
    predictor = ImagePredictor(run)
    paths = find_pictures(inputs)
    progress = console.quiet_reporter("Predicting", "pictures")
    rows, scores, bad = predictor.predict(paths, progress)
    answers = []
    for row, score in zip(rows, scores, strict=True):
        answer: dict[str, Any] = {"id": row.id, "prediction": row.prediction}
        if predictor.class_names:
            answer["probability"] = row.probability
            answer["probabilities"] = dict(
                zip(predictor.class_names, map(float, score), strict=True)
            )
        answers.append(answer)
    if as_json or (out is not None and out.suffix == ".json"):
        text = json.dumps(answers, indent=1, ensure_ascii=False) + "\n"
    else:
        text = _csv(answers) if out is not None else _table(answers)
    if out is None:
        click.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")
        console.say(f"Wrote {len(answers)} predictions to {out}.")
    for example in bad:
        console.say(f"Skipped {example.id}: {example.reason}.")
    return 1 if bad and not answers else 0


def _first_column(table: str) -> list[str]:
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            rows = [row[0] for row in csv.reader(file) if row]
    except OSError as error:
        raise UsageError(
            f"{table} cannot be read: {error.strerror}.", "A CSV file of paths."
        ) from error
    # A header is not a path.
    return rows[1:] if rows and not Path(rows[0]).exists() else rows


def _csv(answers: list[dict]) -> str:
    text = io.StringIO()
    columns = (
        [name for name in ("id", "prediction", "probability") if name in answers[0]]
        if answers
        else ["id"]
    )
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(answers)
    return text.getvalue()


def _table(answers: list[dict]) -> str:
    def cells(answer: dict) -> tuple[str, str, str]:
        probability = answer.get("probability")
        said = answer["prediction"]
        return (
            answer["id"],
            f"{said:.6g}" if isinstance(said, float) else said,
            "" if probability is None else f"{probability:.1%}",
        )

    rows = [cells(answer) for answer in answers]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(2)]
    return "".join(f"{a:{widths[0]}}  {b:{widths[1]}}  {c}".rstrip() + "\n" for a, b, c in rows)
