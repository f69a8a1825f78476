"""What may be tried, as a person types it."""

import math

import pytest

from tfsft.config import read_recipe
from tfsft.errors import UsageError
from tfsft.search.space import combinations, read_space


@pytest.fixture
def fields(toy_recipe):
    return read_recipe(toy_recipe).fields


def read(fields, *texts, typed=()):
    return {dimension.name: dimension for dimension in read_space(fields, texts, typed)}


def test_ranges_and_choices(fields):
    space = read(
        fields,
        "learning-rate=1e-5..1e-3:log",
        "dropout = 0..0.5",
        "epochs=2..6",
        "batch_size=8,32",
        "schedule=constant|cosine",
        "early_stopping=true,false",
    )
    rate, dropout, epochs = space["learning_rate"], space["dropout"], space["epochs"]
    assert (rate.low, rate.high, rate.log) == (1e-5, 1e-3, True)
    assert (dropout.low, dropout.high, dropout.log) == (0, 0.5, False)
    assert (epochs.low, epochs.high) == (2, 6)
    assert isinstance(epochs.low, int)
    assert space["batch_size"].choices == (8, 32)
    assert space["schedule"].choices == ("constant", "cosine")
    assert space["early_stopping"].choices == (True, False)
    assert combinations(list(space.values())) == math.inf
    assert combinations([space["batch_size"], space["schedule"]]) == 4


@pytest.mark.parametrize(
    ("texts", "came", "fix"),
    [
        ([], "No --space was given.", "For example: --space learning_rate=1e-5..1e-3:log"),
        (["learning_rat=1..2"], "no setting is called learning_rat.", "'learning_rate'?"),
        (["dropout=0..1"], "--space dropout=0..1: an end is 1.", "The default is 0.2."),
        (["learning_rate=0..1"], "an end is 0.", "The default is 0.001."),
        (["batch_size=8,12"], "a value is 12.", "Did you mean '32'?"),
        (["batch_size=8..32"], "batch_size is no number with a range.", "batch_size=A,B"),
        (["schedule=constant..cosine"], "is no number with a range.", "schedule=A,B"),
        (["dropout=0.5..0.1"], "0.5 is not below 0.1.", ""),
        (["dropout=0..0.5:log"], "cannot begin at 0.", "leave out :log."),
        (["dropout=0..0.5:lin"], "is no space.", "The only word behind a range is :log."),
        (["dropout=0.."], "is no space.", ""),
        (["dropout"], "is no space.", ""),
        (["=1,2"], "is no space.", ""),
        (["dropout=0.1"], "has one value.", ""),
        (["dropout=0.1,0.10"], "has a value twice.", ""),
        (["dropout=0.1,,0.2"], "a value is empty.", "The default is 0.2."),
        (["dropout=0..0.5", "dropout=0..0.1"], "--space dropout was given twice.", ""),
        (["seed=0,1"], "seed says which examples", "Give --seed one value."),
        (["epochs=1..3"], "--epochs has a value", "Leave one of them out."),
    ],
)
def test_what_is_refused(fields, texts, came, fix):
    with pytest.raises(UsageError) as caught:
        read_space(fields, texts, typed={"epochs": "2"})
    assert came in caught.value.came
    assert fix in caught.value.fix
