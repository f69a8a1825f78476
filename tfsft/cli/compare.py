"""`tfsft compare`: finished runs side by side, and whether one is better or lucky."""

import json
from pathlib import Path

import click

from tfsft.cli.out_path import OutPath


@click.command("compare")
@click.argument("runs", nargs=-1, metavar="RUN RUN...", type=click.Path(path_type=Path))
@click.option("--out", type=OutPath(), help="Also write a page to read to this HTML file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(runs: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Compare finished runs with the first one, on the test examples that all have answered.

    Says what their settings differ in, their figures with 95% intervals, and how often luck alone
    brings such a difference.
    """
    from tfsft.evaluation.comparison import compare
    from tfsft.evaluation.comparison_page import (
        comparison_as_data,
        comparison_as_text,
        write_comparison,
    )

    found = compare(runs)
    if as_json:
        data = comparison_as_data(found)
        click.echo(json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False))
    else:
        click.echo(comparison_as_text(found), nl=False)
    if out is not None:
        write_comparison(found, out)
        click.echo(f"Wrote {out}.", err=True)
