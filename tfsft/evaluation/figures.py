"""What the figures of a run are called, what they mean in one line, and how they are written."""

from tfsft.evaluation.wording import number, percent

EXPLAINED = {
    "accuracy": ("Accuracy", "How many answers are right."),
    "label_accuracy": (
        "Single labels",
        "How many of the yes-or-no decisions, label by label, are right.",
    ),
    "balanced_accuracy": ("Balanced accuracy", "The same, with every class counting equally."),
    "f1_macro": ("F1 score", "Punishes both missing a class and naming it wrongly."),
    "roc_auc": ("ROC area", "How well it ranks: 0.5 is guessing, 1 is perfect."),
    "average_precision": ("Average precision", "How clean the top of each label's ranking is."),
    "top_5_accuracy": ("Top 5", "How often the right answer is among its first five."),
    "expected_calibration_error": (
        "Calibration error",
        "How far its confidence is from how often it is right.",
    ),
    "log_loss": ("Log loss", "Punishes being sure and wrong; smaller is better."),
    "mae": ("Mean error", "How far off an answer is, on average."),
    "rmse": ("Root mean square error", "The same, with large errors counting more."),
    "mse": ("Mean square error", "The square of the root mean square error."),
    "r2": ("R²", "How much of the differences it explains: 1 is all, 0 is none."),
    "precision_macro": (
        "Precision, mean of the classes",
        "When it names a class, how often it is right.",
    ),
    "recall_macro": ("Recall, mean of the classes", "How much of each class it finds."),
    "f1_weighted": ("F1, weighted", "The mean by how common the classes are."),
    "f1_micro": ("F1, all labels together", "Over all the decisions at once."),
    "f1_samples": ("F1, mean of the examples", "How well the labels of one example fit."),
    "pearson": ("Pearson correlation", "How straight a line the answers lie on: 1 is perfect."),
    "spearman": ("Spearman correlation", "How well it ranks: 1 is perfect, 0 is chance."),
    "precision": ("Right when named", "How many of the entities it marks are right."),
    "recall": ("Found", "How many of the entities it finds, whole and with their type."),
    "f1": ("F1 score", "Punishes both missing an entity and marking a wrong one."),
    "precision_weighted": ("Precision, weighted", "The mean by how common the types are."),
    "recall_weighted": ("Recall, weighted", "The mean by how common the types are."),
    "exact": ("Exact match", "How many answers are word for word right."),
    "has_answer_exact": ("Exact, with an answer", "Of the questions that have an answer."),
    "has_answer_f1": ("Words, with an answer", "Of the questions that have an answer."),
    "no_answer_exact": ("Told there is none", "Of the questions that have no answer."),
    "best_exact": ("Best exact match", "With the threshold for “no answer” that suits it best."),
    "best_f1": ("Best F1", "With the threshold for “no answer” that suits it best."),
    "perplexity": (
        "Perplexity",
        "Among how many tokens it hesitates, on average, while it reads the right answers.",
    ),
    "token_accuracy": ("Tokens", "How many tokens of the right answers it would have said."),
    "chrf": ("chrF", "How many runs of letters its answers share with the right ones, of 100."),
    "bleu": ("BLEU", "How many runs of words they share, of 100."),
    "rouge1": ("ROUGE-1", "How well single words fit."),
    "rouge2": ("ROUGE-2", "How well pairs of words fit."),
    "rougeL": ("ROUGE-L", "How well words fit in their order."),
    "exact_match": ("Exact match", "How many answers are letter for letter right."),
    "mean_length": ("Length", "Tokens of an answer, on average."),
    "repetition_rate": ("Repetition", "How much of an answer it has said before in it."),
    "stopped_share": ("Stopped", "How many answers it ended by itself."),
}
EXPLAINED_BY_KIND = {
    ("accuracy", "multi"): ("Accuracy", "How many have every label right."),
    ("accuracy", "tags"): ("Words", "How many words have the right tag."),
    ("f1", "answers"): ("Words", "How well the words of its answers fit the right ones (F1)."),
    ("f1_macro", "tags"): ("F1, mean of the types", "With every type counting equally."),
    ("f1_weighted", "tags"): ("F1, weighted", "The mean by how common the types are."),
    ("precision_macro", "tags"): ("Precision, mean of the types", "With every type equal."),
    ("recall_macro", "tags"): ("Recall, mean of the types", "With every type equal."),
}
SHARES = {
    "token_accuracy",
    "exact_match",
    "repetition_rate",
    "stopped_share",
    "exact",
    "has_answer_exact",
    "no_answer_exact",
    "best_exact",
    "precision",
    "recall",
    "accuracy",
    "label_accuracy",
    "balanced_accuracy",
    "top_5_accuracy",
    "expected_calibration_error",
}
SMALLER_IS_BETTER = {"mae", "perplexity"}  # of the first tiles
TILES = {
    "single": ("accuracy", "balanced_accuracy", "f1_macro", "roc_auc", "top_5_accuracy",
               "expected_calibration_error"),
    "multi": ("accuracy", "label_accuracy", "f1_macro", "roc_auc", "average_precision"),
    "regression": ("mae", "rmse", "r2", "pearson", "spearman"),
    "tags": ("f1", "recall", "precision", "f1_macro", "accuracy"),
    "answers": ("exact", "f1", "has_answer_exact", "has_answer_f1", "no_answer_exact"),
    "chat": ("perplexity", "chrf", "token_accuracy", "rougeL", "exact_match", "stopped_share"),
}  # fmt: skip


def explained(key: str, kind: str) -> tuple[str, str]:
    """Returns the name of a figure, and what it means in one line."""
    return EXPLAINED_BY_KIND.get((key, kind)) or EXPLAINED[key]


def figure_text(key: str, value: float | None) -> str:
    """Returns a figure as a person writes it."""
    if value is None:
        return "–"
    return percent(value) if key in SHARES else number(value)
