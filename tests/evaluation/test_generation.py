"""Figures of generated answers, against the libraries that define them and by hand."""

import numpy as np
import pytest
import sacrebleu
from rouge_score import rouge_scorer

from tfsft import evaluation

REFERENCES = [
    "The capital of France is Paris.",
    "I am fine, thank you.",
    "Two plus two is four.",
    "She sells sea shells by the sea shore.",
]
ANSWERS = [
    "Paris is the capital of France.",
    "I am fine, thank you. ",
    "It is five.",
    "She sells sea shells by the sea shells by the sea.",
]


def test_the_figures_are_those_of_their_libraries():
    found = evaluation.generation_metrics(
        REFERENCES, ANSWERS, stopped=[True, True, False, True], lengths=[7, 6, 4, 11]
    )
    assert found["bleu"] == sacrebleu.corpus_bleu(ANSWERS, [REFERENCES]).score
    assert found["chrf"] == sacrebleu.corpus_chrf(ANSWERS, [REFERENCES]).score
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
    for name in ("rouge1", "rouge2", "rougeL"):
        scores = [scorer.score(*pair)[name] for pair in zip(REFERENCES, ANSWERS, strict=True)]
        assert found[name] == pytest.approx(np.mean([score.fmeasure for score in scores]))
    assert found["exact_match"] == 0.25
    assert found["stopped_share"] == 0.75
    assert found["mean_length"] == 7.0
    # "sea shells by the" comes twice; 3 + 2 + 0 + 8 runs of four words
    assert found["repetition_rate"] == pytest.approx(1 / 13)


def test_texts_without_latin_letters_are_compared_by_letters():
    found = evaluation.generation_metrics(["你好吗"], ["你好"])
    # two of three letters found, none of the two wrong: F is 4/5
    assert found["rouge1"] == pytest.approx(0.8)
    assert found["chrf"] > 0


def test_nothing_has_no_figures():
    assert set(evaluation.generation_metrics([], []).values()) == {None}
    assert evaluation.repetition_rate(["one two three"]) is None


def test_the_interval_is_that_of_drawing_examples_one_by_one():
    random = np.random.default_rng(5)
    draws = random.multinomial(4, [0.25] * 4, 300)
    both = []
    for draw in draws:
        rows = np.repeat(np.arange(4), draw)
        right = [REFERENCES[i] for i in rows]
        said = [ANSWERS[i] for i in rows]
        before = ["It is so."] * 4
        score = [sacrebleu.corpus_chrf(texts, [right]).score for texts in (said, before)]
        both.append(score)
    both = np.array(both)
    options = {"samples": 300, "seed": 5}
    found = evaluation.bootstrap_chrf(REFERENCES, ANSWERS, **options)
    np.testing.assert_allclose(found, np.quantile(both[:, 0], [0.025, 0.975]))
    found = evaluation.bootstrap_chrf(REFERENCES, ANSWERS, ["It is so."] * 4, **options)
    np.testing.assert_allclose(found, np.quantile(both[:, 0] - both[:, 1], [0.025, 0.975]))


def test_rows_come_back_from_their_file_worst_first(tmp_path):
    rows = evaluation.generation_predictions("abcd", ["q"] * 4, REFERENCES, ANSWERS)
    rows = evaluation.order(rows)
    assert [row.id for row in rows] == ["c", "a", "d", "b"]
    assert rows[0].score == sacrebleu.sentence_chrf(ANSWERS[2], [REFERENCES[2]]).score
    assert [row.correct for row in rows] == [False, False, False, True]
    evaluation.write_rows(tmp_path / "predictions.csv", rows, kind="chat")
    again = evaluation.read_predictions(tmp_path / "predictions.csv")
    for row, read in zip(rows, again, strict=True):
        assert (read.label, read.prediction, read.text) == (row.label, row.prediction, "q")
        assert read.score == pytest.approx(row.score, rel=1e-6)
        assert read.probability is None
    header = (tmp_path / "predictions.csv").read_text().splitlines()[0]
    assert header.startswith("id,label,prediction,probability")


def test_samples_of_a_resumed_run_are_those_of_an_uninterrupted_one(tmp_path):
    def add(step, answer, prompts=("a", "b")):
        evaluation.add_samples(
            tmp_path, prompts, [answer] * 2, step=step, epoch=step // 10, phase="lora"
        )

    for step, answer in ((10, "x"), (20, "y"), (10, "x2"), (20, "z"), (0, "before")):
        add(step, answer)
    found = evaluation.read_samples(tmp_path)
    assert found["prompts"] == ["a", "b"]
    assert [(row["step"], row["answers"][0]) for row in found["answers"]] == [
        (0, "before"),
        (10, "x2"),
        (20, "z"),
    ]
    add(5, "new", prompts=("c", "d"))
    assert [row["step"] for row in evaluation.read_samples(tmp_path)["answers"]] == [5]


def test_answers_are_no_markup_in_tensorboard():
    text = evaluation.samples_as_markdown(["<b>q|</b>"], ["a\n*b*"])
    assert "<b>" not in text
    assert "\\<b\\>q\\|" in text
    assert "a<br>\\*b\\*" in text
