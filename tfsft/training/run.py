"""One run of a recipe: its folder, seed, devices, phases, checkpoints, and what it leaves."""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import platform
import shlex
import shutil
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfsft
from tfsft import evaluation, models
from tfsft.config import without_options
from tfsft.data.image_feed import explain_unreadable
from tfsft.data.pipeline import Pipeline
from tfsft.data.replay import called_wrong
from tfsft.errors import UsageError, UserError
from tfsft.evaluation import plots
from tfsft.evaluation.atomic_write import atomic_write
from tfsft.evaluation.mistakes import mistakes_as_markdown
from tfsft.evaluation.predictions import order
from tfsft.evaluation.wording import duration
from tfsft.training import strategy as strategies
from tfsft.training.callbacks import KeepBest
from tfsft.training.callbacks.history import write_history
from tfsft.training.callbacks.tensorboard import (
    cut_events,
    event_lengths,
    write_hyperparameters,
    write_images,
    write_texts,
)
from tfsft.training.changes import changed_data, changed_recipe, changed_values
from tfsft.training.checkpoints import (
    Checkpoint,
    Checkpoints,
    digest,
    restore,
    state_of,
    weights_of,
)
from tfsft.training.console import Console
from tfsft.training.features import FrozenTrunk, above_frozen
from tfsft.training.finetuner import FineTuner
from tfsft.training.forward import Forward
from tfsft.training.phase import Phase
from tfsft.training.saver import Saver
from tfsft.training.signals import Signals
from tfsft.training.tensor_files import sync
from tfsft.training.workers import Workers, private_folder
from tfsft.untrusted import read_json

FORMAT = 1
MISTAKES_SHOWN = 24  # as text in TensorBoard
MAY_CHANGE = ("epochs", "max_steps")  # settings that may differ when a run is resumed


class Run:
    """Owns everything around the training of one recipe; used as a context manager.

    Args:
        recipe: Name of the recipe.
        settings: The recipe's Config.
        run_dir: Folder of the run; by default `runs/RECIPE-DATE-TIME`. Must be new.
        resume: Folder of a run to go on with, instead of `run_dir`.
        url: Where the folder is copied to, if it is: what a person is told in its place.
        recipe_file: The recipe, copied into the run folder.
        strategy: One of `training.STRATEGIES`, with `devices` and `tpu` as in
            `training.make_strategy`. Of several workers the first, the chief, alone writes the
            run folder and speaks.
        precision: One of `training.PRECISIONS`.
        jit: Compiles what lies between matrix products by XLA: "on", "off", or "auto", where it
            pays.
        command: What was typed, to print the command that goes on.
        debug: Leaves TensorFlow's own messages on.
        checkpoint_minutes: Time between two checkpoints.
        checkpoint_steps: Steps between two checkpoints, whatever the time.
        keep_checkpoints: How many of the newest are kept.
        deterministic: Uses only operations that give the same bits every time; None does on a CPU,
            and as it was where a run goes on.
        allow_changed: Goes on even if recipe, settings, data or devices are not what they were.
        earlier: A finished run whose model is trained further, an `export.EarlierRun`.

    Raises:
        UsageError: For a folder that exists, or one that is no run, or one of another run.
    """

    def __init__(
        self,
        recipe: str,
        settings: Any = None,
        *,
        run_dir: str | Path | None = None,
        resume: str | Path | None = None,
        url: str | None = None,
        recipe_file: str | Path | None = None,
        strategy: str = "auto",
        devices: str | None = None,
        tpu: str | None = None,
        precision: str = "auto",
        jit: str = "auto",
        command: list[str] | None = None,
        debug: bool = False,
        checkpoint_minutes: float = 1.0,
        checkpoint_steps: int | None = None,
        keep_checkpoints: int = 2,
        deterministic: bool | None = None,
        allow_changed: bool = False,
        earlier: Any = None,
    ):
        strategies.require_tensorflow()
        self.recipe = recipe
        self.settings = dataclasses.asdict(settings) if settings is not None else {}
        self.recipe_file = Path(recipe_file) if recipe_file else None
        self.resuming = resume is not None
        self.dir = Path(resume or run_dir or time.strftime(f"runs/{recipe}-%Y%m%d-%H%M%S"))
        self.place = url or str(self.dir)
        self.command = command or ["tfsft", "run", str(recipe_file or recipe)]
        self.strategy = strategies.make_strategy(strategy, devices, tpu)
        self.workers = Workers(self.strategy)
        self._check_folder()
        self._check_batch_size()
        if not self.workers.is_chief:
            self._private = private_folder(self.dir, self.resuming)  # as long as this run lives
            self.dir = Path(self._private.name)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.console = Console(self.dir / "log.txt", quiet=not self.workers.is_chief)
        self.signals = Signals(self.dir / "STOP")
        self.checkpoints = Checkpoints(self.dir / "checkpoints", keep_checkpoints)
        self.checkpoint_seconds = checkpoint_minutes * 60
        self.checkpoint_steps = checkpoint_steps
        self.saver = Saver(self._write_checkpoint, self.say, self._checkpoint_written)
        self.allow_changed = allow_changed
        self.jit = jit
        self.compiled: set[keras.layers.Layer] = set()  # in training, so in what follows too
        self._forwards: dict[tuple, Forward] = {}
        path = self.dir / "config.json"
        self.config = json.loads(path.read_text()) if self.resuming else {}
        before = self.config.get("device", {})
        if precision == "auto":
            precision = before.get("precision", precision)
        self.precision, reason = strategies.set_precision(precision, self.strategy)
        if reason:
            self.say(reason)
        if deterministic is None:
            deterministic = before.get("deterministic")
        self.deterministic = strategies.set_determinism(deterministic)
        self.seed = int(self.settings.get("seed", 0))
        keras.utils.set_random_seed(self.seed)
        self.model: keras.Model | None = None
        self.frozen: FrozenTrunk | None = None  # what the last phase has left out
        self.metrics: dict = {"format": FORMAT}
        self.earlier = earlier
        # Of the run that goes on, or of the earlier one; what `begin` is given from then on.
        self.task: dict = dict(earlier.task) if earlier else {}
        if earlier:
            self.config["from"] = earlier.facts
        self._phases: list[Phase] = []
        self._started = time.monotonic()
        self._resumed = None
        self._trained: set[int] = set()  # places of the weights that any phase has trained
        self._hashed: tuple[set[int], str] = set(), digest(())  # some weights, as `id`
        self._facts = {
            "finished": {},
            "updates": 0,
            "history": [],
            "pages": {},
            "seconds": {},
            "total_seconds": 0.0,
        }
        if self.resuming:
            self._go_on()
        # Nobody writes before all have read.
        self.workers.check_same(self.settings, "settings")
        self.workers.check_same(self._resumed.facts if self._resumed else {}, "checkpoint")
        self._write_config()
        copy = self.dir / "recipe.py"
        if self.recipe_file is not None and not (copy.exists() and copy.samefile(self.recipe_file)):
            shutil.copyfile(self.recipe_file, copy)

    def __enter__(self) -> "Run":
        self.signals.__enter__()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        self.signals.__exit__()
        for phase in self._phases:
            phase.close()
        with contextlib.suppress(UserError) if error is not None else contextlib.nullcontext():
            self.saver.wait()
        if error is not None:
            self.console.note(f"{kind.__name__}: {error}")
            if isinstance(error, UserError):
                self._leave_nothing()
            explained = explain_unreadable(error) or self.workers.explain_lost(error)
            if explained is not None:
                raise explained from error
            return
        self.workers.leave()  # none leaves before the chief is done

    # What the run says

    def say(self, message: str) -> None:
        """Prints a sentence and keeps it in log.txt."""
        self.console.say(message)

    def progress(self, title: str, unit: str = "") -> Callable[[int, int], None]:
        """Returns `progress(done, total)` that draws a bar while something long goes on."""
        return self.console.reporter(title, unit)

    @property
    def resume_command(self) -> str | None:
        """What a person types to go on, once there is something to go on from."""
        words = without_options(self.command, ("--resume", "--run-dir"))  # the folder is named anew
        return shlex.join([*words, "--resume", self.place])

    def show_tokens(self, encoder: Any, source: Any) -> None:
        """Shows what a model sees of a few conversations; only `tfsft check` does.

        Args:
            encoder: A `data.ChatEncoder`.
            source: The conversations.
        """

    # Begin

    def load(self, load_data: Callable[..., Any], settings: Any) -> Any:
        """Returns the examples, with those of the run that this one goes on from.

        Args:
            load_data: The recipe's.
            settings: The recipe's Config.
        """
        wrong = called_wrong(getattr(settings, "data", ""))
        if wrong.is_file():
            count = len(wrong.read_bytes().splitlines())
            self.say(
                f"{count} answers were called wrong without a right one; they are not trained on. "
                f"They are in {wrong}."
            )
        if self.earlier is None:
            return load_data(settings)
        return self.earlier.load(load_data, settings, self.say)

    def take_over(self, model: keras.Model) -> None:
        """Gives a new model the weights of the run that this one goes on from, if there is one."""
        if self.earlier is not None:
            self.earlier.restore(model)

    def base(self, backbone: str) -> str:
        """Returns what to call the weights that training begins with: a backbone's, or those of the
        model that is trained further.
        """
        return backbone if self.earlier is None else str(self.earlier.run / "model.keras")

    def begin(
        self,
        model: keras.Model,
        *,
        task: Mapping[str, Any],
        data: Mapping[str, Any],
    ) -> None:
        """Takes the recipe's model, and writes down what it is for and what data it sees.

        When a run is resumed, the model's weights are those of the checkpoint from here on.

        Args:
            model: What `build_model` returned.
            task: What predict, serve and export need to know: task, class_names, ...
            data: Facts for config.json: fingerprint, sizes of the splits, warnings.
        """
        self.model = model
        if self.earlier is not None:
            self.earlier.check(task)
        self.workers.check_same({"fingerprint": data.get("fingerprint")}, "data")
        before, names = self.config.get("data"), self.task.get("class_names", ())
        if before:
            self._refuse(
                changed_data(before, data, names, task.get("class_names", ())),
                f"The data is not what {self.place} was trained on",
                "A resumed run sees the same examples.",
                "Bring back the data as it was",
                UserError,
            )
        self.task = {"format": FORMAT, **task}
        _write_json(self.dir / "task.json", self.task)
        self.config["data"] = dict(data)
        self.config["model"] = {"parameters": int(model.count_params())}
        self._write_config()
        if self._resumed is not None:
            self._restore_model(self._resumed)
            self.say(f"Going on from {_place(self._resumed.facts)}.")
        for warning in data.get("warnings", ()):
            self.say(f"Note: {warning}")

    # Phases

    def phase(
        self,
        name: str,
        *,
        monitor: str = "val_loss",
        patience: int | None = None,
        max_updates: int | None = None,
        class_names: tuple[str, ...] = (),
    ) -> Phase:
        """Returns a named phase of training, for `FineTuner.fit(phase=...)`.

        Args:
            name: Names it in checkpoints, history.csv and on screen; unique within the run.
            monitor: What its best epoch is judged by.
            patience: Epochs without a better value until it ends; None trains them all.
            max_updates: Ends it after so many updates.
            class_names: For the confusion matrix of each epoch in TensorBoard.
        """
        if any(phase.name == name for phase in self._phases):
            raise ValueError(f"There is a phase '{name}' already.")
        if self.config.get("monitor") != monitor:
            self.config["monitor"] = monitor
            self._write_config()
        phase = Phase(self, name, KeepBest(monitor, patience), max_updates, class_names)
        self._phases.append(phase)
        return phase

    @property
    def updates(self) -> int:
        """How many updates the finished phases have made."""
        return self._facts["updates"]

    def remember(self, name: str, make: Callable[[], Any]) -> Any:
        """Returns what `make` returned when the run began: plain data, kept in config.json."""
        if name not in self.config:
            self.config[name] = _plain(make())
            self._write_config()
        return self.config[name]

    def model_state(self) -> dict[str, np.ndarray]:
        """Returns all of the model that training may have changed so far.

        What has been frozen all the time is as it was loaded: a pretrained backbone under an
        adapter would make a checkpoint a hundred times as large.
        """
        return state_of("model", self.model.variables, self._as_loaded())

    def save_checkpoint(
        self,
        arrays: Mapping[str, np.ndarray],
        facts: dict,
        best: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Begins to write a checkpoint for `--resume` to go on from.

        Args:
            arrays: A copy of every variable.
            facts: Plain data.
            best: The best weights so far.
        """
        if not self.workers.is_chief:
            return
        facts = {
            **facts,
            "trained": sorted(self._trained),
            "frozen_sha256": self._digest_of(self._as_loaded()),
            "events": event_lengths(self.dir / "tensorboard"),
        }
        self.saver.start(arrays, _plain(facts), best)

    def _write_checkpoint(self, arrays: Mapping, facts: dict, best: Mapping | None) -> None:
        for name in facts["events"]:
            sync(self.dir / "tensorboard" / name)
        self.checkpoints.save(arrays, facts, best)

    def _checkpoint_written(self) -> None:
        self.signals.resume_command = self.resume_command

    # End

    def evaluate(
        self,
        model: keras.Model,
        pipelines: Mapping[str, Pipeline | None],
        score: Callable[..., tuple[dict, list[evaluation.Prediction]]],
        sources: Mapping[str, Any] | None = None,
    ) -> list[evaluation.Prediction]:
        """Scores a model on held-out splits; writes metrics.json and predictions.csv.

        Args:
            model: From a pipeline's inputs to answers.
            pipelines: By split: "validation", "test"; None where there is none. The predictions
                written are those of the last one that is there.
            score: `training.score_labels` or another of `training.scoring`, with what it needs to
                know about the task.
            sources: The examples by split, for their names and texts.

        Returns:
            The rows of predictions.csv, worst mistakes first.
        """
        rows = []
        for split, pipeline in pipelines.items():
            self.metrics[split] = None
            if pipeline is None:
                continue
            start = time.monotonic()
            source = (sources or {}).get(split)
            network, batches = above_frozen(self, model, pipeline, split)
            forward = self.forward(network)
            self.metrics[split], rows = score(forward, batches, source, strategy=self.strategy)
            self._facts["seconds"][f"evaluate {split}"] = round(time.monotonic() - start, 3)
            self.say(f"{split}: {_headline(self.metrics[split])}")
        if rows:
            rows = order(rows)
            kind = self.task["labels"]
            evaluation.write_rows(self.dir / "predictions.csv", rows, kind=kind)
        self.write_metrics()
        return rows

    def forward(self, network: keras.Model, *, features: bool = False) -> Forward:
        """Returns what computes the answers of a network, and is traced once whoever asks for it.

        Args:
            network: From the inputs of a pipeline on.
            features: Whether what its head decides by comes before the answers, which it does
                wherever a layer `pooling` makes it.
        """
        features = features or models.pools(network)
        key = (features, *sorted(id(weight) for weight in network.weights))
        if key not in self._forwards:
            with self.strategy.scope():
                network = models.with_features(network) if features else network
            self._forwards[key] = Forward(network, self.strategy, self.compiled)
        return self._forwards[key]

    def save(self, model: keras.Model, tokenizer: Any = None) -> Path:
        """Writes model.keras, with task.json inside the archive as well.

        Args:
            model: Made of Keras and KerasHub layers only.
            tokenizer: Of a model of tokens; it goes into the folder `tokenizer` beside.
        """
        if tokenizer is not None:
            tokenizer.save(self.dir / "tokenizer")
        path = self.dir / "model.keras"
        beside = self.dir / ".writing-model.keras"
        model.save(beside)
        with zipfile.ZipFile(beside, "a") as archive:
            archive.writestr("task.json", json.dumps(self.task, indent=1))
        if self.earlier is not None:
            self.earlier.hold_back(self.dir)
        os.replace(beside, path)
        return path

    def show_pictures(self, title: str, pictures: Any, captions: Sequence[str] = ()) -> None:
        """Adds a page of pictures, uint8 `[height, width, 3]` each, to TensorBoard."""
        page = plots.picture_grid([np.asarray(picture) for picture in pictures], captions)
        folder = self.dir / "tensorboard" / "train"
        # A run that goes on shows once more what it showed at its beginning.
        step = self._facts["pages"].setdefault(title, self._facts["updates"])
        write_images(folder, step, {title: plots.to_png(page)})

    def report(self, thumbnails: Mapping[str, bytes] | None = None) -> Path:
        """Writes metrics.json, the HParams page of TensorBoard and report.html, and says where
        things are.

        Args:
            thumbnails: PNG pictures of examples by their ids, for the worst mistakes.

        Raises:
            Forgotten: It does too badly what the run did that this one goes on from.
        """
        refusal = None
        if self.earlier is not None and self.workers.is_chief:
            self.metrics["from"], refusal = self.earlier.judge(self.dir, self.say)
        self._facts["total_seconds"] += time.monotonic() - self._started
        self._started = time.monotonic()
        self.write_metrics()
        split = "test" if self.metrics.get("test") else "validation"
        final = {
            f"{split}/{name}": value
            for name, value in (self.metrics.get(split) or {}).items()
            if isinstance(value, int | float)
        }
        write_hyperparameters(self.dir / "tensorboard", self.settings, final)
        thumbnails = dict(thumbnails or {})
        table = self.dir / "predictions.csv"
        rows = evaluation.read_predictions(table) if table.exists() else []
        texts = [row for row in rows if row.text and not row.correct][:MISTAKES_SHOWN]
        if texts:
            folder = self.dir / "tensorboard" / "train"
            page = {"worst mistakes": mistakes_as_markdown(texts)}
            write_texts(folder, self._facts["updates"], page)
        mistakes = [row for row in rows if row.id in thumbnails and not row.correct]
        if mistakes:
            pictures = [tf.io.decode_png(thumbnails[row.id], channels=3) for row in mistakes]
            said = [f"is {row.label}\nsaid {row.prediction}" for row in mistakes]
            self.show_pictures("worst mistakes", pictures, said)
        path = evaluation.write_report(self.dir, thumbnails=thumbnails)
        self.say(f"Took {duration(self._facts['total_seconds'])}. Report: {self.place}/{path.name}")
        if refusal is not None:
            raise refusal
        if self.place == str(self.dir):
            self.say(f"Use it: tfsft predict {self.dir} INPUT")
        return path

    def write_metrics(self) -> None:
        """Writes metrics.json from `metrics`, which a recipe may add to."""
        facts = self._facts
        phases = {name: done["seconds"] for name, done in facts["finished"].items()}
        trained = [done["trained_parameters"] for done in facts["finished"].values()]
        total = facts["total_seconds"] + time.monotonic() - self._started
        speeds, updates = (
            {name: done.get(fact) for name, done in facts["finished"].items()}
            for fact in ("learned_per_second", "update_seconds")
        )
        _, memory = strategies.peak_memory()
        self.metrics["timing"] = {
            "total_seconds": round(total, 3),
            "first_step_seconds": facts.get("first_step_seconds"),
            "phases": phases,
            "update_seconds": updates,
            "learned_per_second": speeds,
            "peak_memory_bytes": memory,
            **{f"{k.replace(' ', '_')}_seconds": v for k, v in facts["seconds"].items()},
        }
        self.metrics["parameters"] = {
            "total": self.config.get("model", {}).get("parameters"),
            "trained": max(trained, default=0),
        }
        _write_json(self.dir / "metrics.json", self.metrics)

    # Inside

    def _check_folder(self) -> None:
        if self.resuming:
            if not (self.dir / "config.json").is_file():
                raise UsageError(
                    f"{self.dir} is not the folder of a run.",
                    "--resume takes a folder that tfsft run has made; it holds a config.json.",
                    "Check the path, or start a new run without --resume.",
                )
            return
        if not self.workers.is_chief:
            return
        if self.dir.exists() and (not self.dir.is_dir() or any(self.dir.iterdir())):
            raise UsageError(
                f"The run folder {self.dir} exists already.",
                "A new run gets a folder of its own, so that nothing is overwritten.",
                f"Go on with it by --resume {self.dir}, or choose another --run-dir.",
            )

    def _leave_nothing(self) -> None:
        """Removes the folder of a run that was refused before it had begun."""
        new = not self.resuming and not self.task
        if new and self.workers.is_chief and self.place == str(self.dir):
            shutil.rmtree(self.dir, ignore_errors=True)

    def _check_batch_size(self) -> None:
        if self.settings.get("batch_tokens"):
            return  # whose plan keeps to the replicas and parts
        replicas = self.strategy.num_replicas_in_sync
        parts = replicas * self.settings.get("accumulate", 1)
        size = self.settings.get("batch_size", parts)
        if size % parts:
            raise UsageError(
                f"--batch-size {size} cannot be cut into {parts} equal parts.",
                f"There are {replicas} replicas, each with --accumulate {parts // replicas}.",
                f"Use --batch-size {-(-size // parts) * parts}.",
            )

    def _go_on(self) -> None:
        """Reads what an earlier process has left, and refuses what would become another run."""
        grown = self._compare()
        if self.signals.stop_file.exists():
            self.signals.stop_file.unlink()
            self.say("The file STOP, which ends a run, was still there and is removed.")
        for left_over in self.dir.glob("features-*"):
            shutil.rmtree(left_over, ignore_errors=True)
        if (self.dir / "task.json").is_file():
            self.task = read_json(self.dir / "task.json")
        for checkpoint in self.checkpoints.newest_first():
            # With more epochs to train, the state before a phase's end is the one to go on from.
            if grown and checkpoint.facts["phase"] is None:
                last = self._resumed
                self._resumed = last or checkpoint
                continue
            if grown or self._resumed is None:
                self._resumed = checkpoint
            break
        for path, reason in self.checkpoints.damaged.items():
            self.say(f"A checkpoint is damaged and was passed over: {path.name}: {reason}")
        if self._resumed is None:
            cut_events(self.dir / "tensorboard", {})
            self.say("No checkpoint was written before; starting from the beginning.")
            return
        self._facts = dict(self._resumed.facts)
        self.signals.resume_command = self.resume_command
        cut_events(self.dir / "tensorboard", self._facts["events"])
        write_history(self.dir / "history.csv", self._facts["history"])

    def _compare(self) -> bool:
        """Refuses what would make the resumed run another one; returns whether epochs grew."""
        before = self.config.get("settings", {})
        settings = {name: v for name, v in self.settings.items() if name not in MAY_CHANGE}
        self._refuse(
            changed_values(before, settings),
            f"These settings differ from those of {self.place}",
            f"A resumed run keeps its settings; only {' and '.join(MAY_CHANGE)} may change.",
            "Leave them out",
        )
        if self.config.get("recipe_sha256") not in (None, _sha256(self.recipe_file)):
            mine = self.dir / "recipe.py"
            self._refuse(
                changed_recipe(mine, self.recipe_file) if self.recipe_file else ["it has no file"],
                f"The recipe is not that of {self.place}",
                "A resumed run goes on with the recipe it began with.",
                f"Go on with {mine}",
            )
        names = ("strategy", "replicas", "precision", "deterministic")
        self._refuse(
            changed_values(self.config.get("device", {}), self._device(), names),
            f"The devices or the number format are not those of {self.place}",
            "A resumed run keeps --strategy, --devices, --precision and --deterministic.",
            "Give the options that the run began with",
        )
        for line in (
            *changed_values(self.config.get("versions", {}), _versions()),
            *changed_values(self.config.get("device", {}), self._device(), ("devices",)),
        ):
            self.say(f"Note: {line}; results may differ in their last digits.")
        grown = [self._grows(name, before.get(name)) for name in MAY_CHANGE]
        return any(grown)

    def _refuse(
        self,
        lines: list[str],
        came: str,
        expected: str,
        fix: str,
        kind: type[UserError] = UsageError,
    ) -> None:
        """Raises an error that shows what differs; says it only where changes are allowed."""
        if not lines:
            return
        shown = f"{came}:\n" + "\n".join(f"  {line}" for line in lines)
        if not self.allow_changed:
            raise kind(shown, expected, f"{fix}, start a new run, or add --allow-changed.")
        self.say(f"Note: {shown}")

    def _grows(self, name: str, old: int | None) -> bool:
        new = self.settings.get(name)
        if old is None or new is None or new == old:
            return False
        option = "--" + name.replace("_", "-")
        limit = {"epochs": new, "max_steps": new or math.inf}[name]
        if limit < {"epochs": old, "max_steps": old or math.inf}[name]:
            self.say(f"{option} {new} is less than the {old} of before: phases end earlier.")
            return False
        self.say(
            f"{option} grows from {old} to {new}: learning-rate schedules are stretched over the "
            "longer training, so the rate jumps up to where such a schedule would be now. Phases "
            "that were followed by another stay as they are."
        )
        return True

    def _as_loaded(self) -> set[int]:
        """`id` of each weight that no phase has trained, up to now."""
        variables = enumerate(self.model.variables)
        trained = {id(v) for place, v in variables if place in self._trained}
        return set(weights_of(self.model)) - trained

    def _will_train(self, tuner: FineTuner) -> None:
        """Notes the weights that a phase is about to change, and hashes all others."""
        places = {id(v): place for place, v in enumerate(self.model.variables)}
        self._trained |= {places[id(v)] for v in tuner.trainable_variables if id(v) in places}
        self._digest_of(self._as_loaded())

    def _digest_of(self, chosen: set[int]) -> str:
        """Hash of weights that nobody changes; computed once while they are the same ones."""
        if chosen != self._hashed[0]:
            self._hashed = chosen, digest(v for v in self.model.variables if id(v) in chosen)
        return self._hashed[1]

    def _restore_model(self, checkpoint: Checkpoint) -> None:
        self._trained = set(checkpoint.facts["trained"])
        left_out = self._as_loaded()
        restore("model", self.model.variables, checkpoint.arrays, left_out)
        if self._digest_of(left_out) != checkpoint.facts["frozen_sha256"]:
            raise UserError(
                "The pretrained weights are not those that this run began with.",
                "What is frozen is not in the checkpoints: it is loaded again when a run goes on.",
                "Bring back the backbone as it was, or start a new run.",
            )

    def _device(self) -> dict[str, Any]:
        names = [device.name for device in tf.config.list_logical_devices()]
        return {
            "devices": [name.removeprefix("/device:").lower() for name in names],
            "strategy": type(self.strategy).__name__,
            "replicas": self.strategy.num_replicas_in_sync,
            "workers": self.workers.count,
            "precision": self.precision,
            "deterministic": self.deterministic,
            "cpu_count": os.cpu_count(),
            "platform": platform.platform(),
        }

    def _write_config(self) -> None:
        self.config |= {
            "format": FORMAT,
            "recipe": self.recipe,
            "recipe_sha256": _sha256(self.recipe_file),
            "settings": {name: _plain(value) for name, value in self.settings.items()},
            "seed": self.seed,
            "device": self._device(),
            "versions": _versions(),
        }
        _write_json(self.dir / "config.json", self.config)

    def _note_first_step(self) -> None:
        seconds = round(time.monotonic() - self._started, 3)
        self._facts.setdefault("first_step_seconds", seconds)


def _place(facts: dict) -> str:
    if facts["phase"] is None:
        return f"the end of phase '{list(facts['finished'])[-1]}'"
    return f"phase '{facts['phase']}', epoch {facts['epoch'] + 1}, step {facts['step'] + 1}"


def _headline(metrics: dict) -> str:
    names = ("accuracy", "balanced_accuracy", "f1_macro", "log_loss", "mae", "rmse", "r2")
    names += ("pearson", "precision", "recall", "f1", "exact")
    names += ("perplexity", "token_accuracy", "chrf", "bleu", "rougeL", "exact_match")
    return " · ".join(f"{n} {metrics[n]:.4f}" for n in names if metrics.get(n) is not None)


def _versions() -> dict[str, str]:
    return {
        "tfsft": tfsft.__version__,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _sha256(path: Path | None) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path else None


def _write_json(path: Path, content: dict) -> None:
    atomic_write(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
