"""Toy: a recipe that only prints its settings.

    tfsft run toy_recipe.py --epochs 2

It exists for the tests of the command line and imports nothing heavy.
"""

import json
from dataclasses import asdict, dataclass
from typing import Annotated, Literal


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the toy.

    Args:
        data: A folder with one sub-folder per class,
            or `digits`.
        epochs: How often all examples are seen.
        learning_rate: Step size.
        dropout: Fraction of features dropped.
        schedule: How the learning rate falls.
        limit: Use this many examples only.
        early_stopping: Stop when validation gets no better.
        batch_size: Examples per step.
        seed: Fixes every random choice.
    """

    data: str = "digits"
    epochs: Annotated[int, "1.."] = 3
    learning_rate: Annotated[float, ">0.."] = 1e-3
    dropout: Annotated[float, "0..<1"] = 0.2
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    limit: Annotated[int, "1.."] | None = None
    early_stopping: bool = True
    batch_size: Literal[8, 16, 32] = 32
    seed: int = 0


def load_data(config):
    return config.data


def build_model(num_classes):
    return num_classes


def main(config, run):
    print(json.dumps(asdict(config)))
