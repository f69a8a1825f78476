"""`tfsft check`: looks at the data and a few steps before any training."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import click

from tfsft.cli.recipe_files import import_recipe, is_installed
from tfsft.cli.recipe_group import RecipeGroup
from tfsft.cli.tensorflow_start import starting_tensorflow
from tfsft.config import RecipeInfo, make_config, to_dict

BATCHES = 4  # of training data that are tried


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """How to look.

    Args:
        config: Take settings from this file, as for `tfsft run`.
        strategy: As for `tfsft run`.
        devices: As for `tfsft run`.
        precision: As for `tfsft run`.
        data_only: Look at the data alone; try no steps.
        debug: Show tracebacks and TensorFlow's own messages.
    """

    config: str | None = None
    strategy: Literal["auto", "one", "mirrored", "tpu"] = "auto"
    devices: str | None = None
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    data_only: bool = False
    debug: bool = False


def check(info: RecipeInfo, values: dict[str, Any], options: CheckOptions) -> int:
    """Prints what is wrong with the data, and what training would cost.

    Returns:
        0; 1 where examples cannot be used.
    """
    call = click.get_current_context().obj
    config = make_config(info, values, files=[options.config] if options.config else [])
    with starting_tensorflow(call.debug):
        from tfsft import data
        from tfsft.training.console import Console
        from tfsft.training.strategy import peak_memory
        from tfsft.training.trial import TrialRun

        module = import_recipe(info)
    config = module.Config(**to_dict(config))
    call.settings = config
    call.recipe = None if is_installed(info) else info.path.absolute()
    console = Console()

    # Every bad example is wanted, not the first; so they are skipped here and counted below.
    looked_at = dataclasses.replace(config, on_bad="list") if hasattr(config, "on_bad") else config
    splits = module.load_data(looked_at)
    looking = console.quiet_reporter("Looking", "examples")
    _show_data(splits, data.inspect(splits, progress=looking))
    if options.data_only:
        return 1 if splits.bad else 0

    click.echo("\nTrying a few steps ...")
    few = {
        name: source.subset(_few(source, config.batch_size, BATCHES if name == "train" else 1))
        for name, source in splits.sources().items()
    }
    module.load_data = lambda config: dataclasses.replace(splits, **few)
    # Pictures that only decoding finds bad weigh nothing here; they were listed above.
    on_bad = {"on_bad": "skip"} if hasattr(config, "on_bad") else {}
    short = dataclasses.replace(config, epochs=1, **on_bad)
    trial = TrialRun(
        info.name,
        short,
        strategy=options.strategy,
        devices=options.devices,
        precision=options.precision,
    )
    with trial as run:
        module.main(short, run)
    _show_tokens(run.tokens)
    _show_cost(run, len(splits.train), len(few["train"]), config, peak_memory())
    return 1 if splits.bad else 0


def _few(source: Any, batch_size: int, batches: int) -> list[int]:
    """Returns the rows to try: the first ones; of texts those of all lengths, with the longest,
    which need the most memory.
    """
    from tfsft.training.answering import spread

    count = min(len(source), batch_size * batches)
    if batches == 1 or not hasattr(source, "column"):
        return list(range(count))
    name = next(name for name in ("messages", "text", "context") if source.has(name))
    lengths = [
        sum(len(message["content"]) for message in cell) if name == "messages" else len(cell)
        for start in range(0, len(source), 8192)
        for cell in source.column(name, slice(start, start + 8192))
    ]
    by_length = sorted(range(len(source)), key=lengths.__getitem__)
    return sorted(by_length[place] for place in spread(len(source), count))


def _show_data(splits: Any, found: Any) -> None:
    parts = ", ".join(f"{len(source)} {name}" for name, source in splits.sources().items())
    classes = f"; {len(splits.class_names)} classes" if splits.class_names else ""
    click.echo(f"Data: {parts}{classes}.")
    counts = found.counts["train"]
    if splits.class_names and len(counts) <= 30:
        width = max(map(len, counts))
        for name, count in counts.items():
            click.echo(
                f"  {name:{width}}  {count:6}  {'#' * round(40 * count / max(counts.values()))}"
            )
    for sentence in found.summary():
        click.echo(sentence)
    problems = found.problems()
    click.echo("No problems found." if not problems else f"{len(problems)} things to look at:")
    for problem in problems:
        click.echo(f"  - {problem}")
    for example in splits.bad:
        click.echo(f"    {example.id}: {example.reason}")


def _show_tokens(conversations: dict[str, Any]) -> None:
    """Prints what the model sees of a few conversations."""
    if not conversations:
        return
    from rich.console import Console

    from tfsft.data.token_xray import draw_xray, legend

    console = Console(highlight=False)
    colours = console.color_system is not None
    console.print(legend(colours=colours))
    for name, tokens in conversations.items():
        learned = sum(token.state == "learned" for token in tokens)
        cut = sum(token.state == "cut" for token in tokens)
        said = f"{name}: {len(tokens):,} tokens, {learned:,} learned, {cut:,} cut off"
        console.print(f"\n{said}", style="bold", markup=False)
        console.print(draw_xray(tokens, colours=colours))
    console.print()


def _show_cost(run: Any, size: int, tried: int, config: Any, memory: tuple[str, int]) -> None:
    from tfsft.evaluation.wording import duration
    from tfsft.training.strategy import usable_memory

    total = 0.0
    for phase in run.measured:
        # An example may be several rows, and a batch so many tokens.
        updates = config.epochs * math.ceil(phase.steps * size / tried)
        updates = min(updates, getattr(config, "max_steps", 0) or updates)
        seconds = phase.first_step_seconds + updates * phase.step_seconds
        seconds += size * phase.features_seconds
        total += seconds
        click.echo(
            f"{phase.name}: trains {phase.parameters:,} parameters, "
            f"{phase.step_seconds * 1000:.0f} ms a step, at most {updates} steps: about "
            f"{duration(seconds)}."
        )
    where, peak = memory
    click.echo(f"Peak memory of {where}: {peak / 2**20:,.0f} MiB.")
    usable = usable_memory()
    if fitting := min(filter(None, (p.largest_batch(usable) for p in run.measured)), default=0):
        click.echo(
            f"Batches of up to about {fitting:,} examples need nine tenths of the "
            f"{usable / 2**30:.1f} GiB that there are."
        )
    click.echo(f"Time to finish: about {duration(total)}, validation aside.")


command = RecipeGroup(
    "check",
    CheckOptions,
    check,
    help="Look at a recipe's data and a few of its steps before training.",
)
