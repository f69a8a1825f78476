"""One named `fit` of a run: what it calls at each step, and its place in the checkpoints."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np

from tfsft.training.callbacks import (
    Checkpointer,
    History,
    KeepBest,
    LossCheck,
    ProgressDisplay,
    Speed,
    StepLimit,
    TensorBoard,
)
from tfsft.training.checkpoints import restore
from tfsft.training.finetuner import FineTuner

if TYPE_CHECKING:
    from tfsft.training.run import Run


class Phase:
    """One named `fit` of a run: its callbacks, and its place in the checkpoints.

    Made by `Run.phase`. `finished` says whether an earlier process has trained it to its end.
    """

    def __init__(
        self,
        run: "Run",
        name: str,
        best: KeepBest,
        max_updates: int | None,
        class_names: tuple[str, ...],
    ):
        self.run = run
        self.name = name
        self.best = best
        self.max_updates = max_updates
        self.class_names = class_names
        self.checkpointer = Checkpointer(self)
        self.callbacks: list[keras.callbacks.Callback] = []
        self.extra_callbacks: list[keras.callbacks.Callback] = []
        self.seconds = 0.0
        self._display: ProgressDisplay | None = None
        self._tensorboard: TensorBoard | None = None

    @property
    def finished(self) -> bool:
        """Whether it was trained to its end before this run was resumed."""
        return self.name in self.run._facts["finished"]

    @property
    def stopped(self) -> bool:
        """Whether early stopping has ended it."""
        return self.best.stopped

    @property
    def ended(self) -> bool:
        """Whether it has no further step to train, at the point it goes on from."""
        updates = int(self.tuner.optimizer.iterations.numpy())
        return self.stopped or bool(self.max_updates and updates >= self.max_updates)

    def begin(
        self, tuner: FineTuner, *, epochs: int, steps: int, batch_size: int, size: int
    ) -> tuple[int, int]:
        """Prepares the callbacks and puts the state of a checkpoint back.

        Returns:
            The epoch and the step in it to go on with.
        """
        run = self.run
        run._will_train(tuner)
        self.tuner, self.epochs, self.steps = tuner, epochs, steps
        self.batch_size = batch_size
        self._started = time.monotonic()
        self._display = ProgressDisplay(run.console, self.name, batch_size, size)
        self._tensorboard = TensorBoard(
            run.dir / "tensorboard", batch_size, steps, run._facts["updates"], self.class_names
        )
        history = History(run.dir / "history.csv", self.name, run._facts["history"])
        ema = getattr(tuner.optimizer, "inner_optimizer", tuner.optimizer).use_ema
        self.speed = Speed(run._note_first_step)
        self.callbacks = [
            self.speed,
            LossCheck(self),
            *([StepLimit(self.max_updates)] if self.max_updates else []),
            # Validation sees the moving average, training does not.
            *([keras.callbacks.SwapEMAWeights()] if ema else []),
            self.best,
            history,
            self._tensorboard,
            self._display,
            *self.extra_callbacks,
            self.checkpointer,
        ]
        resumed = run._resumed
        if resumed is None or resumed.facts["phase"] != self.name:
            return 0, 0
        facts = resumed.facts
        restore("optimizer", tuner.optimizer.variables, resumed.arrays)
        self.checkpointer.metrics = resumed.arrays if facts["step"] else None
        self.checkpointer.first_step = self._display.first_step = facts["step"]
        self.best.load_state(facts["best"])
        self._tensorboard.load_state(facts["tensorboard"])
        self.best.weights = {k: v for k, v in resumed.arrays.items() if k.startswith("best/")}
        self.seconds = facts["phase_seconds"]
        return facts["epoch"], facts["step"]

    def facts(self, epoch: int, step: int) -> dict:
        """What a checkpoint of this phase says besides its arrays."""
        run = self.run
        self._tensorboard.flush()
        return {
            **run._facts,
            "phase": self.name,
            "epoch": epoch,
            "step": step,
            "best": self.best.state(),
            "tensorboard": self._tensorboard.state() if step else {},
            "phase_seconds": self.seconds + time.monotonic() - self._started,
            "total_seconds": run._facts["total_seconds"] + time.monotonic() - run._started,
        }

    def finish(self) -> None:
        """Writes down that the phase is done, with the weights it ends with."""
        run = self.run
        updates = int(self.tuner.optimizer.iterations.numpy())
        run._facts["updates"] += updates
        run._facts["finished"][self.name] = {
            "epochs": self.epochs,
            "updates": updates,
            "best_epoch": None if self.best.best_epoch is None else self.best.best_epoch + 1,
            "trained_parameters": int(
                sum(np.prod(v.shape) for v in self.tuner.trainable_variables)
            ),
            "seconds": round(self.seconds + time.monotonic() - self._started, 3),
            "learned_per_second": self.speed.per_second,
            "update_seconds": round(self.speed.first_seconds + self.speed.seconds, 3),
        }
        if self.stopped:
            run.say(f"{self.name}: no better for {self.best.patience} epochs, stopped early.")
        if self.best.best_epoch is not None:
            run.say(
                f"{self.name}: the weights of epoch {self.best.best_epoch + 1} are the best and "
                f"are kept."
            )
        total = run._facts["total_seconds"] + time.monotonic() - run._started
        facts = {**run._facts, "phase": None, "total_seconds": total}
        run.saver.wait()
        run.save_checkpoint(run.model_state(), facts)
        run.saver.wait()

    def keep_best_model(self) -> Path | None:
        """Writes model.keras with the last good weights, for a training that fails.

        These are the best of this phase's epochs, else those of the newest checkpoint.
        """
        if self.best.weights:
            self.best.put_back(self.tuner.model)
            return self.run.save(self.run.model)
        self.run.saver.wait()
        checkpoint = self.run.checkpoints.newest()
        if checkpoint is None:
            return None
        self.run._restore_model(checkpoint)
        return self.run.save(self.run.model)

    def close(self) -> None:
        """Takes the bar off the screen and closes the event files."""
        if self._display is not None:
            self._display.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
