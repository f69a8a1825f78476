"""A smaller model learns to answer as a finished run does.

As in Hinton et al. 2015, arXiv:1503.02531.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from tfsft import models
from tfsft.data.pipeline import Pipeline
from tfsft.errors import UsageError, UserError
from tfsft.evaluation.comparison import compare
from tfsft.evaluation.finished_run import read_task
from tfsft.training.forward import predict

if TYPE_CHECKING:
    from tfsft.training.run import Run

LEAST = 1e-30  # of a probability, whose logarithm is taken
CALLS = 20  # for the time of one answer


class Distillation(keras.losses.Loss):
    """Learning from labels and from a teacher at once.

    With p the student's probabilities, q the teacher's, and p_T the softmax of log(p) / T, which is
    that of the logits / T, an example's loss is

        (1 - alpha) * hard(label, p) + alpha * T^2 * sum(q_T * log(q_T / p_T))

    Targets are `[batch, 2 * classes]`: the label, then q. Those of `[batch, classes]`, without a
    teacher, have the hard loss alone.

    Args:
        hard: Loss of the label.
        temperature: T; the higher, the more the teacher's small probabilities count.
        alpha: Share of the teacher.
    """

    def __init__(self, hard: keras.losses.Loss, temperature: float = 2.0, alpha: float = 0.5):
        super().__init__(name="distillation")
        self.hard = hard
        self.temperature = temperature
        self.alpha = alpha

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of each example."""
        classes = y_pred.shape[-1]
        hard = self.hard.call(labels_of(y_true, y_pred), y_pred)
        if y_true.shape[-1] == classes:
            return hard
        teacher = self._softened(y_true[:, classes:])
        soft = tf.reduce_sum(tf.exp(teacher) * (teacher - self._softened(y_pred)), -1)
        return (1 - self.alpha) * hard + self.alpha * self.temperature**2 * soft

    def _softened(self, probabilities: Any) -> Any:
        """Returns the logarithms of probabilities at the temperature."""
        logits = tf.math.log(tf.maximum(tf.cast(probabilities, "float32"), LEAST))
        return tf.nn.log_softmax(logits / self.temperature)


def labels_of(y_true: Any, y_pred: Any) -> Any:
    """Returns the labels among targets that may hold a teacher's answers as well."""
    return y_true[..., : y_pred.shape[-1]]


class Teacher:
    """A finished run, as a teacher of another model for the same task and classes.

    Args:
        folder: Of the run.
        task: What the student is for, as in task.json.
        labels: Its kind of labels.

    Raises:
        UsageError: The folder is no finished run, or one that cannot teach this.
    """

    def __init__(self, folder: str | Path, task: str, labels: str):
        self.folder = Path(folder)
        self.task = read_task(self.folder)
        about = [(self.task["task"], self.task["labels"]), (task, labels)]
        if about[0] != about[1] or labels != "single":
            said = [f"{name} ({kind} labels)".replace("_", " ") for name, kind in about]
            raise UsageError(
                f"The teacher {folder} is about {said[0]}, the student about {said[1]}.",
                "A student learns the same task, with one class for each example.",
                "Choose another teacher, or train without one.",
            )

    def teach(
        self, run: "Run", train: Pipeline, seen: Pipeline, class_names: Sequence[str]
    ) -> Pipeline:
        """Returns training batches whose targets hold the teacher's answers as well.

        The answers are computed here, once for all epochs.

        Args:
            run: For its strategy and its progress bars.
            train: The student's training batches.
            seen: The same examples, as the teacher takes them.
            class_names: Of the student.

        Raises:
            UserError: The teacher has other classes.
        """
        mine = self.task["class_names"]
        if list(class_names) != mine:
            differ = sorted(set(class_names) ^ set(mine)) or ["their order"]
            raise UserError(
                f"The classes of the data are not those of {self.folder}: {', '.join(differ[:5])}.",
                f"The teacher knows {len(mine)} classes, the data has {len(class_names)}.",
                "Distil on the data that the teacher was trained on.",
            )
        with run.strategy.scope():
            self._model = models.load_model(self.folder / "model.keras")
            self._network = models.from_resized(self._model)
        self._seen, self._train = seen, train
        progress = run.progress("Asking the teacher about training examples", "examples")
        answers, readable = predict(self._network, seen, run.strategy, progress)
        answers[~readable] = 1 / len(mine)  # of weight zero
        labels = np.eye(len(mine), dtype=np.float32)[train.labels]
        return train.with_labels(np.concatenate([labels, answers.astype(np.float32)], -1))

    def compare(self, run: "Run", model: keras.Model) -> None:
        """Writes into metrics.json how a finished student and its teacher differ, for the report.

        Args:
            run: The student's, with its model saved and evaluated.
            model: As trained.
        """
        if not (run.dir / "model.keras").is_file():
            return  # `tfsft check` tries a few steps and saves nothing
        students = (models.from_resized(model), self._train, model, run.dir)
        teachers = (self._network, self._seen, self._model, self.folder)
        facts = {
            name: {
                "parameters": int(whole.count_params()),
                "file_bytes": (folder / "model.keras").stat().st_size,
                "milliseconds": round(1000 * answer_seconds(network, pipeline), 3),
            }
            for name, (network, pipeline, whole, folder) in
            (("teacher", teachers), ("student", students))
        }  # fmt: skip
        run.metrics["distillation"] = {"teacher_run": str(self.folder), **facts}
        run.write_metrics()
        try:
            found = compare([self.folder, run.dir])
        except UsageError as error:
            run.say(f"Teacher and student are not compared: {error.came}")
            return
        taught, student = found.runs
        said = {row.id: row.prediction for row in taught.predictions}
        same = [row.prediction == said[row.id] for row in student.predictions if row.id in said]
        verdict = found.verdicts[0]
        run.metrics["distillation"] |= {
            "split": student.split,
            "examples": found.examples,
            "agreement": float(np.mean(same)),
            "verdict": verdict.word,
            "p": verdict.p,
            "difference": vars(verdict.difference),
        }
        for name, estimate in zip(("teacher", "student"), found.estimates["accuracy"], strict=True):
            run.metrics["distillation"][name]["accuracy"] = vars(estimate)
        run.write_metrics()


def answer_seconds(network: keras.Model, pipeline: Pipeline) -> float:
    """Returns the median time of an answer to one example, as the network takes it."""
    batch = next(iter(pipeline.in_order().epoch()))[0]
    one = tf.nest.map_structure(lambda tensor: tensor[:1], batch)
    answer = tf.function(lambda inputs: network(inputs, training=False))
    times = []
    for _ in range(CALLS + 1):
        start = time.perf_counter()
        tf.nest.map_structure(lambda tensor: tensor.numpy(), answer(one))
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))  # the first has made the graph
