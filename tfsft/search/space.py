"""What a search may try of each setting: `learning_rate=1e-5..1e-3:log`, `batch_size=16,32,64`."""

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from tfsft.config import Field, option_name
from tfsft.errors import UsageError, nearest

EXPECTED = (
    "A space is NAME=LOW..HIGH, NAME=LOW..HIGH:log, or NAME=A,B,C "
    "(NAME=A|B|C where values have commas)."
)
# With other examples to judge by, figures of trials could not be compared.
NOT_TRIED = (
    *("data", "seed", "limit", "on_bad", "tfds_dir", "validation_fraction", "test_fraction"),
    *("group_column", "label_column", "multi_label", "regression"),
)
# The loss itself has other values with them, whatever the model says.
CHANGES_LOSS = ("label_smoothing", "l1", "l2")


@dataclass(frozen=True)
class Dimension:
    """What may be tried of one setting.

    Args:
        field: The setting.
        choices: Its values, or () for a range.
        low, high: The ends of a range; both may be tried.
        log: Whether equal factors of a range are as likely as each other, and not equal steps.
    """

    field: Field
    choices: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    log: bool = False

    @property
    def name(self) -> str:
        """The setting's name."""
        return self.field.name

    def distribution(self) -> Any:
        """Returns it as Optuna has it."""
        from optuna import distributions

        if self.choices:
            return distributions.CategoricalDistribution(self.choices)
        if self.field.kind is int:
            return distributions.IntDistribution(self.low, self.high, log=self.log)
        return distributions.FloatDistribution(self.low, self.high, log=self.log)


def read_space(
    fields: Sequence[Field], texts: Sequence[str], typed: Collection[str] = ()
) -> tuple[Dimension, ...]:
    """Reads what a person has typed behind `--space`.

    Args:
        fields: The recipe's settings.
        texts: One for each `--space`.
        typed: Settings that have a value from elsewhere.

    Raises:
        UsageError: An unknown setting, a value that it does not take, or a text that is no space.
    """
    if not texts:
        raise UsageError(
            "No --space was given.", EXPECTED, "For example: --space learning_rate=1e-5..1e-3:log"
        )
    space: dict[str, Dimension] = {}
    for text in texts:
        dimension = _read(fields, text)
        if dimension.name in space:
            raise UsageError(f"--space {dimension.name} was given twice.", EXPECTED)
        if dimension.name in typed:
            raise UsageError(
                f"{dimension.field.option} has a value, and --space {dimension.name} tries others.",
                "A setting is either fixed or searched for.",
                "Leave one of them out.",
            )
        space[dimension.name] = dimension
    return tuple(space.values())


def _read(fields: Sequence[Field], text: str) -> Dimension:
    name, equals, values = (part.strip() for part in text.partition("="))
    name = name.lstrip("-").replace("-", "_")
    field = {field.name: field for field in fields}.get(name)
    if not (equals and name and values):
        raise UsageError(f"--space {text} is no space.", EXPECTED)
    if field is None:
        names = [field.name for field in fields if field.name not in NOT_TRIED]
        guess = nearest(name, names).strip()
        listed = "" if guess else f"There are: {', '.join(names)}."
        raise UsageError(f"--space {text}: no setting is called {name}.", listed, guess)
    if name in NOT_TRIED:
        raise UsageError(
            f"--space {text}: {name} says which examples a trial is trained and judged on.",
            "Trials can be compared on the same examples.",
            f"Give {option_name(name)} one value.",
        )
    if ".." in values:
        return _range(field, text, values)
    choices = [part.strip() for part in values.split("|" if "|" in values else ",")]
    found = tuple(field.check(part, f"--space {text}: a value") for part in choices)
    if len(set(found)) < len(found) or len(found) < 2:
        raise UsageError(
            f"--space {text} has {'one value' if len(found) < 2 else 'a value twice'}.", EXPECTED
        )
    return Dimension(field, choices=found)


def _range(field: Field, text: str, values: str) -> Dimension:
    match = re.fullmatch(r"(.+?)\.\.(.+?)(:\w*)?", values)
    if match is None or match[3] not in (None, ":log"):
        fix = "The only word behind a range is :log." if match else ""
        raise UsageError(f"--space {text} is no space.", EXPECTED, fix)
    if field.kind not in (int, float) or field.choices:
        raise UsageError(
            f"--space {text}: {field.name} is no number with a range.",
            f"It must be {field.allowed}.",
            f"List its values: --space {field.name}=A,B",
        )
    ends = (match[1].strip(), match[2].strip())
    low, high = (field.check(end, f"--space {text}: an end") for end in ends)
    log = match[3] is not None
    if low is None or high is None or not low < high:
        raise UsageError(f"--space {text}: {match[1]} is not below {match[2]}.", EXPECTED)
    if log and low <= 0:
        raise UsageError(
            f"--space {text}: a logarithmic range cannot begin at {match[1]}.",
            "Its lower end is above 0.",
            "Give another one, or leave out :log.",
        )
    return Dimension(field, low=low, high=high, log=log)


def combinations(space: Sequence[Dimension]) -> float:
    """Returns how many trials can differ; infinity where a range is among the dimensions."""
    return math.prod(len(d.choices) if d.choices else math.inf for d in space)
