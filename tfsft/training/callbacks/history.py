"""history.csv: one row an epoch, the same whether a run was interrupted or not."""

import csv
import io
from pathlib import Path

import keras

from tfsft.errors import going_on_with_a_full_disk
from tfsft.evaluation.atomic_write import atomic_write
from tfsft.training.optimizers import current_rate


class History(keras.callbacks.Callback):
    """Adds a row for every epoch of a phase; holds no wall times.

    Args:
        path: The file, written anew after each epoch.
        phase: Name of the phase.
        rows: Rows of the phases before; this one's are added to the list.
    """

    def __init__(self, path: Path, phase: str, rows: list[dict]):
        super().__init__()
        self.path = path
        self.phase = phase
        self.rows = rows

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Adds the epoch's row."""
        row = {"phase": self.phase, "epoch": epoch + 1}
        row["learning_rate"] = current_rate(self.model.optimizer)
        row |= {name: float(value) for name, value in (logs or {}).items()}
        self.rows.append(row)
        with going_on_with_a_full_disk():  # after the next epoch all rows are written again
            write_history(self.path, self.rows)


def write_history(path: Path, rows: list[dict]) -> None:
    """Writes all rows, with every column that any of them has."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(path, text.getvalue())
