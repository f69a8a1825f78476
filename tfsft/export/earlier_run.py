"""A finished run whose model is trained further: its data, its weights, and what was forgotten."""

import inspect
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras

from tfsft import data
from tfsft.errors import Forgotten, UsageError, UserError
from tfsft.evaluation.atomic_write import atomic_write
from tfsft.evaluation.figures import SMALLER_IS_BETTER, TILES, explained, figure_text
from tfsft.evaluation.finished_run import REFUSED, read_task
from tfsft.export.predictor import load_predictor
from tfsft.training.changes import changed_values
from tfsft.untrusted import check_archive, read_json

MUST_STAY = ("task", "labels", "inputs", "class_names", "tags", "image_size", "template", "prefix")


class EarlierRun:
    """What a run takes from the finished one that it goes on from; nothing there is changed.

    Args:
        run: Folder of the finished run.
        max_forgetting: How much worse the new model may be on what the finished run was tested
            with: percentage points of a share, percent of an error or a perplexity.

    Raises:
        UsageError: The folder is no finished run, or its model was refused.
    """

    def __init__(self, run: str | Path, max_forgetting: float = 0.0):
        self.run = Path(run).absolute()
        self.max_forgetting = max_forgetting
        self.task = read_task(self.run)
        self.config = read_json(self.run / "config.json")
        self._held_out: dict[str, Any] = {}
        self._restored = False

    @property
    def facts(self) -> dict[str, Any]:
        """What config.json of the new run says of it."""
        return {"run": str(self.run), "max_forgetting": self.max_forgetting}

    def load(
        self, load_data: Callable[..., data.Splits], settings: Any, say: Callable[[str], None]
    ) -> data.Splits:
        """Returns new data with a share of the old.

        Args:
            load_data: The recipe's.
            settings: Of the new run.
            say: Called with what a person should know.

        Raises:
            UserError: The old data is not what it was, or the new data has other classes.
        """
        old = self._old(load_data, type(settings))
        new = data.apart(self._known(load_data, settings), old)
        self._held_out = {
            "old": old.test if old.test is not None else old.validation,
            "new": new.test if new.test is not None else new.validation,
        }
        mixed = data.with_old(new, old, settings.replay_share, settings.seed)
        say(
            f"{len(new.train)} new training examples, and {len(mixed.train) - len(new.train)} of "
            f"the {len(old.train)} that {self.run} was trained on."
        )
        if self._held_out["new"] is None:
            say("No new example is held out, so what is learned will not be measured.")
        return mixed

    def restore(self, model: keras.Model) -> None:
        """Gives a model the weights, and the unit of the numbers, of this run's."""
        path = self.run / "model.keras"
        check_archive(path)
        try:
            model.load_weights(path)
        except ValueError as error:
            raise UsageError(
                f"The weights of {self.run} do not fit: {str(error)[:300]}",
                "A recipe and settings that make the same model.",
                f"Use its own recipe: tfsft run {self.run / 'recipe.py'} --from {self.run}",
            ) from error
        self._restored = True
        with zipfile.ZipFile(path) as archive:
            layers = json.loads(archive.read("config.json"))["config"].get("layers", ())
        for layer in layers:
            if layer["config"].get("name") == "natural_units":
                own = model.get_layer("natural_units")
                own.scale, own.offset = layer["config"]["scale"], layer["config"]["offset"]

    def check(self, task: Mapping[str, Any]) -> None:
        """Refuses a new run that is about something else, and a recipe that starts afresh."""
        if not self._held_out or not self._restored:
            raise UsageError(
                f"The recipe does not go on from {self.run}.",
                "Its `main` calls run.load(load_data, config), and run.take_over(model) after "
                "build_model.",
                "Change it so, or leave out --from.",
            )
        kept = {name: task[name] for name in MUST_STAY if name in task}
        differing = changed_values(json.loads(json.dumps(self.task)), json.loads(json.dumps(kept)))
        if differing:
            raise UsageError(
                "\n  ".join([f"The run is not about the same as {self.run}:", *differing]),
                "A model that is trained further keeps its task, its classes and its template.",
                "Train a new model without --from.",
            )

    def hold_back(self, run: Path) -> None:
        """Keeps a model that is about to be saved from being used before it is judged."""
        reason = "What it forgot is not measured yet: its run has not come to the end."
        atomic_write(run / REFUSED, reason + "\n")

    def judge(
        self, run: Path, say: Callable[[str], None]
    ) -> tuple[dict[str, Any], Forgotten | None]:
        """Measures old and new model on old and new data.

        Args:
            run: Folder of the new run, with its model.
            say: Called with the figures.

        Returns:
            What metrics.json says about it; and the error, where the model is refused.
        """
        name = TILES[self.task["labels"]][0]
        title, _ = explained(name, self.task["labels"])
        found: dict[str, Any] = {**self.facts, "figure": name, "old": None, "new": None}
        for part, values in self._figures(run, name).items():
            found[part] = values
            shown = {when: figure_text(name, values[when]) for when in ("before", "after")}
            say(
                f"{title} on {part} data ({values['examples']}): {shown['before']} before, "
                f"{shown['after']} after ({_change(name, values['change'])})."
            )
        lost = _loss(name, found["old"])
        found["refused"] = lost > self.max_forgetting
        if not found["refused"]:
            (run / REFUSED).unlink(missing_ok=True)
            return found, None
        unit = "percent" if name in SMALLER_IS_BETTER else "points"
        came = (
            f"{title} on the old data got worse by {lost:.2f} {unit}, "
            f"and at most {self.max_forgetting:g} were allowed."
        )
        atomic_write(run / REFUSED, came + "\n")
        return found, Forgotten(
            f"The new model is refused. {came}",
            f"{self.run} is as it was. The refused model stays in {run} to be looked at.",
            "Try a higher --replay-share, a lower learning rate or fewer epochs; or allow more by "
            "--max-forgetting.",
        )

    def _figures(self, run: Path, name: str) -> dict[str, dict[str, Any]]:
        """Returns one figure before and after for each part of the data that has examples."""
        parts = {part: source for part, source in self._held_out.items() if source is not None}
        found: dict[str, dict[str, Any]] = {
            part: {"examples": len(source)} for part, source in parts.items()
        }
        for when, folder in (("before", self.run), ("after", run)):
            predictor = load_predictor(folder, refused_too=True)
            for part, source in parts.items():
                found[part][when] = predictor.measure(source).get(name)
        for values in found.values():
            before, after = values["before"], values["after"]
            known = before is not None and after is not None
            values["change"] = after - before if known else None
            if known and name in SMALLER_IS_BETTER:
                values["change"] = after / before - 1 if before else None
        return found

    def _old(self, load_data: Callable[..., data.Splits], kind: type) -> data.Splits:
        """Returns all that this run was trained and measured on."""
        names = kind.__dataclass_fields__
        settings = kind(**{k: v for k, v in self.config["settings"].items() if k in names})
        try:
            if "from" in self.config:
                first = EarlierRun(self.config["from"]["run"])
                before = first._old(load_data, kind)
                added = data.apart(first._known(load_data, settings), before)
                found = data.with_old(added, before)
                seen = data.with_old(added, before, settings.replay_share, settings.seed)
            else:
                found = seen = load_data(settings)
        except UserError as error:
            raise UserError(
                f"The data that {self.run} was trained on cannot be read. {error.came}",
                error.expected,
                error.fix,
            ) from error
        if seen.fingerprint != self.config["data"]["fingerprint"]:
            raise UserError(
                f"The data that {self.run} was trained on has changed: {settings.data}",
                "The same examples; some of them are mixed in, and what is forgotten is measured "
                "by them.",
                "Bring back the data as it was (a server adds lines to its file of feedback), or "
                "train a new model without --from.",
            )
        return found

    def _known(self, load_data: Callable[..., data.Splits], settings: Any) -> data.Splits:
        """Returns data with the classes of this run."""
        takes = inspect.signature(load_data).parameters
        known = {name: tuple(self.task.get(name) or ()) for name in ("class_names", "tags")}
        if known["class_names"] and not known.keys() & takes.keys():
            raise UsageError(
                "load_data of the recipe takes no class_names.",
                "With --from it is given those of the model: load_data(config, class_names=None).",
                "Add the parameter, and hand it to the function that loads the data.",
            )
        return load_data(settings, **{name: v for name, v in known.items() if v and name in takes})


def _change(name: str, change: float | None) -> str:
    if change is None:
        return "not known"
    return f"{100 * change:+.1f}{'%' if name in SMALLER_IS_BETTER else ' points'}"


def _loss(name: str, values: Mapping[str, Any] | None) -> float:
    """Returns how much worse a figure got, in percent or points; 0 where that is not known."""
    change = (values or {}).get("change")
    if change is None:
        return 0.0
    return round(100 * change * (1 if name in SMALLER_IS_BETTER else -1), 9)
