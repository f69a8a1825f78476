"""What is compared of a SavedModel that says only what it chose."""

from types import SimpleNamespace

import numpy as np
import pytest

from tfsft.data.plain_texts import PlainTexts
from tfsft.export.judging import differences
from tfsft.export.judging_choices import ServedAnswers, ServedTags, claimed
from tfsft.export.text_predictors import Tagger

TAGS = ["O", "B-PER", "I-PER"]


@pytest.mark.parametrize(
    ("chosen", "probability", "difference"),
    [
        (1, 0.6, 0.0),
        (1, 0.5, 0.1),  # less sure
        (1, 0.7, 0.1),  # surer
        (0, 0.3, 0.3),  # rightly sure of a tag that is not the best: 0.6 was to be had
        (0, 0.6, 0.3),  # wrongly sure of it
        (1, np.nan, np.nan),
    ],
)
def test_the_difference_of_a_choice(chosen, probability, difference):
    ours = np.array([[0.3, 0.6, 0.1]], np.float32)
    theirs = claimed(ours, np.array([chosen]), np.array([probability]))
    found = differences([ours], [theirs])
    np.testing.assert_allclose(found, [difference], atol=1e-6)
    if not np.isnan(probability):
        assert theirs[0].argmax() == chosen


def test_of_equal_tags_either_may_be_chosen():
    ours = np.array([[0.1, 0.45, 0.45]], np.float32)
    theirs = claimed(ours, np.array([2]), np.array([0.45]))
    assert differences([ours], [theirs])[0] < 1e-6
    assert theirs[0].argmax() == 2


def tagged(text, starts, ends, tags):
    columns = {"text": [text], "starts": [starts], "ends": [ends]}
    source = PlainTexts(columns, ["1"], ("PER",))
    column = source.column
    source.column = lambda name: [tags] if name == "tags" else column(name)
    predictor = SimpleNamespace(
        task={"tags": TAGS},
        labels="tags",
        class_names=("PER",),
        plain=lambda columns, ids: Tagger.plain(SimpleNamespace(class_names=()), columns, ids),
    )
    return ServedTags(predictor, source)


def test_words_of_the_data_have_the_tags_of_found_words():
    """The data has 'Mr. Fox' and 'ran.' as words; found are Mr, ., Fox, ran and a last point."""
    judge = tagged("Mr. Fox ran.", [0, 8], [7, 12], [1, 0])
    assert judge.words.column("starts") == [[0, 2, 4, 8, 11]]
    said = np.eye(3, dtype=np.float32)[[1, 0, 2, 0, 1]]
    for outputs, score in (([said], 1.0), ([said[[1, 0, 2, 3, 4]]], 0.0)):
        assert judge.score(outputs, judge.answers(outputs)) == score


def test_other_words_cannot_be_compared():
    judge = tagged("a fox", [0, 2], [1, 5], [0, 1])
    ours = [np.full([2, 3], 1 / 3, np.float32)]
    same = np.array([[0, 1, 0, 0.4], [2, 5, 1, 0.4]])
    other = np.array([[0, 1, 0, 0.4], [2, 4, 1, 0.4]])
    for export, finite in ((same, True), (other, False), (same[:1], False)):
        (found,) = differences(ours, judge.theirs(ours, [export]))
        assert np.isfinite(found) == finite


def test_answers_are_those_of_the_best_ones():
    source = PlainTexts({"question": ["who?"], "context": ["the red fox"]}, ["1"])
    column = source.column
    rights = [[{"text": "red fox", "answer_start": 4}]]
    source.column = lambda name: rights if name == "answers" else column(name)
    judge = ServedAnswers(SimpleNamespace(labels="answers", class_names=()), source)
    judge.spans = [[(4, 11), (0, 3), (-1, -1)]]
    ours = [np.array([[0.5, 0.3, 0.2]], np.float32)]
    for replayed, answer, score, difference in (
        ([4, 11, 0.5], "red fox", 1.0, 0.0),
        ([0, 3, 0.3], "the", 0.0, 0.2),
        ([-1, -1, 0.5], "", 0.0, 0.3),
        ([0, 7, 0.5], None, None, np.inf),
    ):
        theirs = judge.theirs(ours, [np.array(replayed)])
        np.testing.assert_allclose(differences(ours, theirs), [difference], atol=1e-6)
        if answer is not None:
            assert judge.answers(theirs) == [answer]
            assert judge.score(theirs, [answer]) == score
