"""Asks a language model at every evaluation: fixed prompts to read, held-out ones to score."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras

from tfsft import evaluation
from tfsft.training.callbacks.tensorboard import write_texts


class Answers(keras.callbacks.Callback):
    """Adds figures of generated answers to the logs of an epoch, and keeps samples.

    Comes before the callbacks of the phase, which then judge, write and show these figures too.

    Args:
        folder: Of the run: samples go to samples.json and to TensorBoard.
        prompts: What the fixed prompts are called in the report.
        ask: Returns the answers to the fixed prompts.
        score: Returns figures of the answers to held-out conversations, by name.
        updates: How many updates came before this phase.
        phase: Its name.
    """

    def __init__(
        self,
        folder: Path,
        prompts: Sequence[str],
        ask: Callable[[], list[str]],
        score: Callable[[], Mapping[str, float | None]],
        updates: int,
        phase: str,
    ):
        super().__init__()
        self.folder = folder
        self.prompts = list(prompts)
        self.ask = ask
        self.score = score
        self.updates = updates
        self.phase = phase

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Asks, and writes down what comes."""
        if logs is not None:
            found = self.score()
            logs |= {f"val_{name}": value for name, value in found.items() if value is not None}
        step = self.updates + int(self.model.optimizer.iterations.numpy())
        keep_answers(
            self.folder, self.prompts, self.ask(), step=step, epoch=epoch + 1, phase=self.phase
        )


def keep_answers(
    folder: Path,
    prompts: Sequence[str],
    answers: Sequence[str],
    *,
    step: int,
    epoch: int,
    phase: str,
) -> None:
    """Adds the answers to the fixed prompts to samples.json, and as text to TensorBoard."""
    evaluation.add_samples(folder, prompts, answers, step=step, epoch=epoch, phase=phase)
    page = {"answers": evaluation.samples_as_markdown(prompts, answers)}
    write_texts(folder / "tensorboard" / "train", step, page)
