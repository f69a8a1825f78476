"""Training: devices, the exact `FineTuner`, optimizers, schedules, runs and checkpoints."""

from tfsft.training.answering import (
    Answerer,
    last_turn,
    score_chats,
    spread,
    token_loss,
    token_metrics,
    token_scores,
)
from tfsft.training.confusion import ConfusionMatrix
from tfsft.training.distillation import Distillation, Teacher
from tfsft.training.examiner import Examiner
from tfsft.training.features import FrozenFeatures, skip_frozen
from tfsft.training.finetuner import FineTuner
from tfsft.training.forward import predict
from tfsft.training.optimizers import OPTIMIZERS, make_optimizer
from tfsft.training.run import Phase, Run
from tfsft.training.schedules import SCHEDULES, make_schedule
from tfsft.training.scoring import score_answers, score_labels, score_tags
from tfsft.training.strategy import PRECISIONS, STRATEGIES, make_strategy, set_precision
from tfsft.training.suspects import find_suspects

__all__ = [
    "OPTIMIZERS",
    "PRECISIONS",
    "SCHEDULES",
    "STRATEGIES",
    "Answerer",
    "ConfusionMatrix",
    "Distillation",
    "Examiner",
    "FineTuner",
    "FrozenFeatures",
    "Phase",
    "Run",
    "Teacher",
    "find_suspects",
    "last_turn",
    "make_optimizer",
    "make_schedule",
    "make_strategy",
    "predict",
    "score_answers",
    "score_chats",
    "score_labels",
    "score_tags",
    "set_precision",
    "skip_frozen",
    "spread",
    "token_loss",
    "token_metrics",
    "token_scores",
]
