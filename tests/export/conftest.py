"""Finished runs, made once."""

import functools

import pytest
import text_families
import text_runs
from chat_families import tiny_causal_lm
from chat_runs import write_chat_run
from held_out_runs import hold_out_texts, write_picture_run, write_text_run
from seq2seq_families import WORDS, tiny_bart, tiny_t5, write_rewriter_run

from tfsft.models import hugging_face_format

CHATS = [
    [
        {"role": "user", "content": f"{i} + {i}? 你"},
        {"role": "assistant", "content": f"It is {2 * i}."},
        {"role": "user", "content": "ok"},
        {"role": "assistant", "content": f"My name is {i}."},
    ]
    for i in range(8)
]
PAIRS = [
    [
        {"role": "user", "content": f"ada is {name}. Ünd 你 {name}?"},
        {"role": "assistant", "content": f"{name} is bob."},
    ]
    for name in WORDS[:8]
]
REWRITERS = {
    "bart": tiny_bart,
    "t5": tiny_t5,
    "untied t5": functools.partial(tiny_t5, tied=False),
}


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    """Makes the folder of an encoder of some family."""

    @functools.cache
    def make(family):
        folder = tmp_path_factory.mktemp(family)
        text_families.save_tiny(family, folder, max_sequence_length=text_runs.POSITIONS)
        return folder

    return make


@pytest.fixture(scope="session")
def make_run(tmp_path_factory, encoder):
    """Makes the folder of a run for one of `text_runs.TASKS`, with an encoder of some family."""

    @functools.cache
    def make(name, family="bert"):
        folder = tmp_path_factory.mktemp(f"{family}-{name}")
        text_runs.write_run(folder, name, encoder(family))
        return folder

    return make


@pytest.fixture(scope="session")
def held_out_run(tmp_path_factory, encoder):
    """Makes the folder of a run with its data."""

    @functools.cache
    def make(name, family="bert"):
        folder = tmp_path_factory.mktemp(f"{family}-{name}") / "run"
        folder.mkdir()
        if name == "pictures":
            write_picture_run(folder)
        else:
            write_text_run(folder, name, encoder(family))
        return folder

    return make


@pytest.fixture(scope="session")
def writing_run(tmp_path_factory):
    """Makes the folder of a run that writes texts, with its data, for some family of models."""

    @functools.cache
    def make(family):
        folder = tmp_path_factory.mktemp(family.replace(" ", "-"))
        if family in REWRITERS:
            run = write_rewriter_run(folder / "run", REWRITERS[family](folder / "lm"))
        else:
            run = write_chat_run(folder / "run", tiny_causal_lm(folder / "lm", family))
        hold_out_texts(run, PAIRS if family in REWRITERS else CHATS)
        return run

    return make


@pytest.fixture
def other_weights(monkeypatch):
    """Writes other weights for Hugging Face than the model has."""
    contents = hugging_face_format._contents

    def wrong(*args):
        config, tensors = contents(*args)
        tensors["model.norm.weight"] = tensors["model.norm.weight"] * 1.01
        return config, tensors

    monkeypatch.setattr(hugging_face_format, "_contents", wrong)
