"""A run that measures a few steps of each phase instead of training, for `tfsft check`."""

import io
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tfsft.data.token_xray import XrayToken, token_xray
from tfsft.training.console import Console
from tfsft.training.run import Phase, Run
from tfsft.training.strategy import peak_memory


@dataclass
class Measurement:
    """What one phase costs.

    Args:
        name: The phase.
        parameters: Trained in it.
        steps: Updates in one pass over the examples that were tried.
        step_seconds: One update, after the first.
        first_step_seconds: The first update, with the tracing of its graph.
        features_seconds: Time to compute one frozen example; 0 where nothing is cached.
        batch: Examples in the largest batch that was tried.
        memory: Most bytes in use before the phase, and at its end.
    """

    name: str
    parameters: int = 0
    steps: int = 0
    step_seconds: float = 0.0
    first_step_seconds: float = 0.0
    features_seconds: float = 0.0
    batch: int = 0
    memory: tuple[int, int] = (0, 0)

    def largest_batch(self, usable: int) -> int:
        """Returns how many examples fit, the longest among them; 0 where that was not to be seen.

        What a batch takes grows with its examples. A tenth of the memory stays free.
        """
        before, after = self.memory
        if after - before < 16 << 20:  # noise, against what was held before
            return 0
        return int((0.9 * usable - before) * self.batch / (after - before))


class TrialRun(Run):
    """Lets a recipe's `main` train a few batches into a folder that is thrown away, and times them.

    `measured` has what each phase costs, `tokens` those of a few conversations by their names.
    """

    def __init__(self, recipe: str, settings: Any, **options: Any):
        self._folder = tempfile.TemporaryDirectory(prefix="tfsft-check-")
        super().__init__(recipe, settings, run_dir=self._folder.name, **options)
        self.console = Console(stream=io.StringIO())
        self.measured: list[Measurement] = []
        self.tokens: dict[str, list[XrayToken]] = {}
        self._features = 0.0

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._folder.cleanup()

    def progress(self, title: str, unit: str = "") -> Callable[[int, int], None]:
        """Times what would be shown as a bar."""
        timed = {"start": time.monotonic(), "done": 0}

        def progress(done: int, total: int) -> None:
            now = time.monotonic()
            # The first batch traces the graph, so it is not counted.
            if timed["done"] and "frozen" in title and "training" in title:
                self._features = (now - timed["start"]) / (done - timed["done"])
            timed.update(start=now, done=done)

        return progress

    def show_tokens(self, encoder: Any, source: Any) -> None:
        """Keeps the tokens of a short, a middling and a long conversation."""
        lengths = [sum(len(m["content"]) for m in row) for row in source.column("messages")]
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        for row in dict.fromkeys((order[0], order[len(order) // 2], order[-1])):
            (messages,) = source.column("messages", [row])
            self.tokens[source.ids[row]] = token_xray(encoder, messages)

    def phase(self, name: str, **options: Any) -> Phase:
        """Returns a phase that is timed as well."""
        options["patience"] = None
        phase = super().phase(name, **options)
        self.measured.append(Measurement(name))
        phase.extra_callbacks = [_StepTimer(self.measured[-1], self, phase)]
        return phase

    def evaluate(self, *args: Any, **kwargs: Any) -> list:
        """A few batches say nothing about quality."""
        return []

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is kept."""

    def report(self, thumbnails: Mapping[str, bytes] | None = None) -> None:
        """There is nothing to report."""


class _StepTimer(keras.callbacks.Callback):
    def __init__(self, measured: Measurement, run: TrialRun, phase: Phase):
        super().__init__()
        self.measured = measured
        self.run = run
        self.phase = phase
        self._times: list[float] = []

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.measured.memory = (peak_memory()[1], 0)

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self._start = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self._times.append(time.monotonic() - self._start)

    def on_train_end(self, logs: dict | None = None) -> None:
        weights = self.model.trainable_variables
        self.measured.steps = self.phase.steps
        self.measured.parameters = sum(int(tf.size(w.value)) for w in weights)
        self.measured.memory = (self.measured.memory[0], peak_memory()[1])
        self.measured.batch = self.phase.batch_size
        self.measured.first_step_seconds = self._times[0]
        self.measured.step_seconds = sorted(self._times[1:] or self._times)[
            len(self._times[1:]) // 2
        ]
        self.measured.features_seconds, self.run._features = self.run._features, 0.0
