"""How good a model is: metrics, predictions, plots and the report. Needs no TensorFlow."""

from tfsft.evaluation.generation import (
    bootstrap_chrf,
    generation_metrics,
    generation_predictions,
    repetition_rate,
)
from tfsft.evaluation.metrics import (
    classification_metrics,
    evaluate,
    multi_label_metrics,
    regression_metrics,
    wilson_interval,
)
from tfsft.evaluation.mistakes import mistakes_as_markdown
from tfsft.evaluation.predictions import (
    Prediction,
    answer_predictions,
    order,
    read_predictions,
    tag_predictions,
    write_predictions,
    write_rows,
)
from tfsft.evaluation.questions import normalize_answer, question_metrics
from tfsft.evaluation.report import write_report
from tfsft.evaluation.samples import add_samples, read_samples, samples_as_markdown
from tfsft.evaluation.tags import tag_metrics, tag_spans

__all__ = [
    "Prediction",
    "add_samples",
    "answer_predictions",
    "bootstrap_chrf",
    "classification_metrics",
    "evaluate",
    "generation_metrics",
    "generation_predictions",
    "mistakes_as_markdown",
    "multi_label_metrics",
    "normalize_answer",
    "order",
    "question_metrics",
    "read_predictions",
    "read_samples",
    "regression_metrics",
    "repetition_rate",
    "samples_as_markdown",
    "tag_metrics",
    "tag_predictions",
    "tag_spans",
    "wilson_interval",
    "write_predictions",
    "write_report",
    "write_rows",
]
