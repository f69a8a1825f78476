"""`tfsft predict`: answers of a finished run."""

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import click

from tfsft.cli.out_path import OutPath
from tfsft.cli.tensorflow_start import starting_tensorflow
from tfsft.errors import UsageError

ID_WIDTH = 60  # characters; a text stands for itself


@click.command("predict")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("inputs", nargs=-1, metavar="INPUT...", type=click.Path())
@click.option(
    "--csv",
    "table",
    type=click.Path(),
    help="Take the inputs from a table: paths of pictures from its first column, texts from the "
    "columns text, pair, question, context.",
)
@click.option(
    "--out",
    type=OutPath(),
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
    """Predict with the finished run RUN.

    INPUT are pictures or folders of them; or texts in quotes, text files, or - for a text in each
    line of the standard input. A pair is two texts, a question comes with its context.
    """
    if not inputs and table is None:
        raise UsageError(
            "No INPUT was given.",
            "Pictures or folders of pictures; texts in quotes; or a table with --csv.",
            f'tfsft predict {run} picture.jpg, or "a text".',
        )
    with starting_tensorflow(debug or call.debug):
        from tfsft.export import load_predictor
        from tfsft.training.console import Console
    console = Console(stream=sys.stderr)
    predictor = load_predictor(run)
    examples = predictor.read(inputs, table)
    progress = console.quiet_reporter("Predicting", predictor.nouns[1])
    answers, bad = predictor.answer(examples, progress)
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
    from rich.cells import cell_len

    from tfsft.evaluation.plots import shorten  # imports matplotlib

    def cells(answer: dict) -> tuple[str, str, str]:
        probability = answer.get("probability")
        said = answer["prediction"]
        return (
            shorten(answer["id"], ID_WIDTH),
            f"{said:.6g}" if isinstance(said, float) else said,
            "" if probability is None else f"{probability:.1%}",
        )

    rows = [cells(answer) for answer in answers]
    widths = [max((cell_len(row[i]) for row in rows), default=0) for i in range(2)]
    padded = ([cell + " " * (w - cell_len(cell)) for cell, w in zip(row, widths, strict=False)]
              + [row[2]] for row in rows)  # fmt: skip
    return "".join("  ".join(row).rstrip() + "\n" for row in padded)
