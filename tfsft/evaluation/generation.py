"""How good generated answers are, beside the ones that people wrote."""

import re
from collections.abc import Sequence

import numpy as np

from tfsft.evaluation.predictions import Prediction

ROUGES = ("rouge1", "rouge2", "rougeL")
NGRAM = 4


def generation_metrics(
    references: Sequence[str],
    answers: Sequence[str],
    *,
    stopped: Sequence[bool] | None = None,
    lengths: Sequence[int] | None = None,
) -> dict[str, float | None]:
    """Returns the usual figures of generated texts; None where there is nothing to measure.

    Args:
        references: [n], what people wrote.
        answers: [n], what the model wrote.
        stopped: [n], whether the model ended the answer itself.
        lengths: [n], tokens of each answer.

    Returns:
        `bleu` and `chrf` of the whole corpus, 0 to 100, by sacrebleu with its default settings;
        `rouge1`, `rouge2` and `rougeL`, the mean F-measure, 0 to 1, by rouge-score without stemming
        (texts without a Latin letter or digit are split into letters, which it would drop);
        `exact_match`, 0 to 1, of stripped texts; `mean_length` in tokens; `repetition_rate`, the
        share of an answer's runs of four words that came before in it, over all answers;
        `stopped_share`.
    """
    if not references:
        names = ("bleu", "chrf", *ROUGES, "exact_match", "repetition_rate")
        return dict.fromkeys((*names, "mean_length", "stopped_share"))
    import sacrebleu

    pairs = list(zip(references, answers, strict=True))
    return {
        "bleu": sacrebleu.corpus_bleu(list(answers), [list(references)]).score,
        "chrf": sacrebleu.corpus_chrf(list(answers), [list(references)]).score,
        **_rouge(pairs),
        "exact_match": float(np.mean([a.strip() == b.strip() for a, b in pairs])),
        "repetition_rate": repetition_rate(answers),
        "mean_length": None if lengths is None else float(np.mean(lengths)),
        "stopped_share": None if stopped is None else float(np.mean(stopped)),
    }


def repetition_rate(answers: Sequence[str]) -> float | None:
    """Returns the share of runs of four words that came before in the same answer.

    None where no answer has four words.
    """
    runs = repeated = 0
    for answer in answers:
        words = answer.split()
        grams = [tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)]
        runs += len(grams)
        repeated += len(grams) - len(set(grams))
    return repeated / runs if runs else None


def bootstrap_chrf(
    references: Sequence[str],
    answers: Sequence[str],
    before: Sequence[str] | None = None,
    *,
    share: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Returns an interval of the corpus chrF, or of its rise, by resampling the examples.

    Args:
        references: [n].
        answers: [n], of one model.
        before: [n], of another one on the same examples: the interval is of the difference,
            with the same examples drawn for both (a paired bootstrap).
        share: Of the resampled values that lie inside.
        samples: How often examples are drawn.
        seed: Of what is drawn.
    """
    counts = [chrf_counts(references, texts) for texts in (answers, before) if texts is not None]
    draws = np.random.default_rng(seed).multinomial(
        len(references), np.full(len(references), 1 / len(references)), samples
    )
    values = [chrf_of(draws @ count) for count in counts]
    difference = values[0] - values[1] if before is not None else values[0]
    low, high = np.quantile(difference, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def generation_predictions(
    ids: Sequence[str], prompts: Sequence[str], references: Sequence[str], answers: Sequence[str]
) -> list[Prediction]:
    """Returns one `Prediction` an answer; its score is the chrF of this answer alone, 0 to 100."""
    import sacrebleu

    return [
        Prediction(
            id=str(name),
            label=reference,
            prediction=answer,
            index=i,
            text=prompt,
            right=answer.strip() == reference.strip(),
            score=sacrebleu.sentence_chrf(answer, [reference]).score,
        )
        for i, (name, prompt, reference, answer) in enumerate(
            zip(ids, prompts, references, answers, strict=True)
        )
    ]


def _rouge(pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    from rouge_score.rouge_scorer import RougeScorer

    scorers = [RougeScorer(list(ROUGES), tokenizer=kind()) for kind in (_Words, _Letters)]
    scores = [scorers[not _latin(a + b)].score(a, b) for a, b in pairs]
    return {name: float(np.mean([score[name].fmeasure for score in scores])) for name in ROUGES}


def _latin(text: str) -> bool:
    return re.search("[a-z0-9]", text.lower()) is not None


class _Words:
    """rouge-score's own words."""

    def tokenize(self, text: str) -> list[str]:
        from rouge_score.tokenize import tokenize

        return tokenize(text, None)


class _Letters:
    """Every letter of a text that has no Latin ones."""

    def tokenize(self, text: str) -> list[str]:
        return [letter for letter in text if letter.isalnum()]


def chrf_counts(references: Sequence[str], answers: Sequence[str]) -> np.ndarray:
    """Returns what sacrebleu counts in each example, `[n, 3 x orders]`."""
    from sacrebleu.metrics import CHRF

    chrf = CHRF()
    found = [
        chrf._extract_corpus_statistics([answer], [[reference]])[0]
        for answer, reference in zip(answers, references, strict=True)
    ]
    return np.array(found, np.int64)


def chrf_of(counts: np.ndarray) -> np.ndarray:
    """Returns chrF from summed counts `[samples, 3 x orders]`."""
    from sacrebleu.metrics import CHRF

    chrf = CHRF()
    return np.array([chrf._compute_f_score(row.tolist()) for row in counts])
