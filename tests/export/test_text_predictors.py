"""Runs about texts: an answer is the same whatever is asked with it, and wherever the folder is."""

import shutil

import numpy as np
import pytest
from answers import numbers
from text_runs import TEXTS

from tfsft.export import load_predictor


def answers(predictor, texts):
    """Answers by their texts; of pairs and questions the other text is of another length."""
    other = [TEXTS[(TEXTS.index(text) + 3) % len(TEXTS)] for text in texts]
    columns = dict(zip(reversed(predictor.columns), (texts, other), strict=False))
    examples = predictor.plain(columns, [str(i) for i in range(len(texts))])
    found, bad = predictor.answer(examples)
    assert bad == []
    return dict(zip(texts, found, strict=True))


def rest(answer):
    """All that is not."""
    if isinstance(answer, dict):
        return {key: rest(value) for key, value in answer.items() if key != "id"}
    if isinstance(answer, list):
        return [rest(item) for item in answer]
    return None if isinstance(answer, float) else answer


def same(found, expected):
    assert rest(found) == rest(expected)
    np.testing.assert_allclose(numbers(found), numbers(expected), atol=1e-5, rtol=1e-5)
    assert len(numbers(found)) > 0


ALONE = [TEXTS[6], TEXTS[3], ""]


@pytest.mark.parametrize("name", ["texts", "pairs", "tags", "questions"])
def test_an_answer_does_not_depend_on_the_others(make_run, name):
    predictor = load_predictor(make_run(name))
    together = answers(predictor, TEXTS)
    backwards = answers(predictor, TEXTS[::-1])
    for text in TEXTS:
        same(backwards[text], together[text])
    for text in ALONE:
        same(answers(predictor, [text])[text], together[text])
    spread = np.ptp([numbers(answer)[-1] for answer in together.values()])
    assert spread > 1e-3  # a model that says the same of every text would pass the above


@pytest.mark.parametrize("name", ["texts", "questions"])
def test_a_copied_folder_answers_alike(make_run, name, tmp_path):
    copy = tmp_path / "elsewhere" / "mine"
    copy.mkdir(parents=True)
    for part in ("config.json", "task.json", "model.keras"):
        shutil.copy(make_run(name) / part, copy)
    shutil.copytree(make_run(name) / "tokenizer", copy / "tokenizer")
    expected = answers(load_predictor(make_run(name)), TEXTS[:2])
    found = answers(load_predictor(copy), TEXTS[:2])
    for text in TEXTS[:2]:
        same(found[text], expected[text])
