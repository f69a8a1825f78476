"""README.md of a run: a model card for Hugging Face, of nothing but what the run knows."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfsft.evaluation.pages import render

PIPELINES = {
    "image_classification": "image-classification",
    "text_classification": "text-classification",
    "token_classification": "token-classification",
    "question_answering": "question-answering",
    "chat": "text-generation",
}
# Figures of metrics.json by what Hugging Face calls them, with a name of their own.
MEASURED = {
    "single": {"accuracy": "accuracy", "f1_macro": "f1"},
    "multi": {"accuracy": "accuracy", "f1_macro": "f1"},
    "regression": {"mae": "mae", "mse": "mse"},
    "tags": {"f1": "f1", "precision": "precision", "recall": "recall"},
    "answers": {"exact": "exact_match", "f1": "f1"},
    "chat": {"chrf": "chrf", "perplexity": "perplexity"},
}
NAMES = {"f1_macro": "F1, macro", "exact": "Exact match"}


def card(context: Mapping[str, Any]) -> str:
    """Returns the card.

    Args:
        context: What the report of the run says, see `report.write_report`.
    """
    import yaml

    header = yaml.safe_dump(
        _header(context), sort_keys=False, allow_unicode=True, default_flow_style=False
    )
    config = context["config"]
    return render(
        "card.md",
        {
            **context,
            "header": header,
            "data_name": _without_folders((config.get("settings") or {}).get("data")),
            "base": _without_folders((context["task"].get("backbone") or {}).get("name")),
            "settings": {
                name: _without_folders(value)
                for name, value in (config.get("settings") or {}).items()
            },
        },
    )


def _header(context: Mapping[str, Any]) -> dict[str, Any]:
    task, kind = str(context["task"].get("task", "")), context["kind"]
    pipeline = None if kind == "regression" else PIPELINES.get(task)
    base = str((context["task"].get("backbone") or {}).get("name", ""))
    header: dict[str, Any] = {"library_name": "keras"}
    if pipeline:
        header["pipeline_tag"] = pipeline
    if base.startswith("hf://"):
        header["base_model"] = base.removeprefix("hf://")
    header["tags"] = ["tfsft", "keras", "fine-tuned"]
    scores = context["scores"]
    measured = {k: v for k, v in MEASURED.get(kind, {}).items() if scores.get(k) is not None}
    if not measured:
        return header
    header["metrics"] = list(dict.fromkeys(measured.values()))
    name = _without_folders((context["config"].get("settings") or {}).get("data")) or "data"
    result = {
        "task": {"type": pipeline or task.replace("_", "-"), "name": task.replace("_", " ")},
        "dataset": {
            "name": name,
            "type": re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.") or "data",
            "split": context["split"],
        },
        "metrics": [
            {"type": type_, "name": NAMES.get(key, key), "value": scores[key]}
            for key, type_ in measured.items()
        ],
    }
    header["model-index"] = [{"name": context["run"], "results": [result]}]
    return header


def _without_folders(value: Any) -> Any:
    """Returns a setting without the folders of the machine it was on."""
    if isinstance(value, str) and "/" in value and "://" not in value:
        return Path(value).name
    return value
