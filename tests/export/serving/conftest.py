"""Real servers of tiny runs, on free ports, in threads of the test's process."""

import json

import keras
import pytest
from chat_families import tiny_causal_lm
from chat_runs import write_chat_run
from running_server import Running


@pytest.fixture(scope="session")
def serving(make_run, picture_run, chat_run):
    """Starts a server for a run by its name, and ends it with the tests."""
    started = {}

    def start(name, **settings):
        if (name, *settings.items()) not in started:
            own = {"pictures": picture_run, "chat": chat_run}
            run = own.get(name) or make_run(name)
            started[name, *settings.items()] = Running(run, **settings)
        return started[name, *settings.items()].wait()

    yield start
    for running in started.values():
        running.stop()


@pytest.fixture(scope="session")
def picture_run(tmp_path_factory):
    """A run about pictures, with a random model of one layer."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 3), dtype="uint8", name="pictures")
    x = keras.layers.Resizing(16, 16, antialias=True, dtype="uint8", name="resize")(inputs)
    x = keras.layers.Rescaling(1 / 255, dtype="float32")(x)
    outputs = keras.layers.Dense(3, "softmax")(keras.layers.Flatten()(x))
    run = tmp_path_factory.mktemp("pictures") / "run"
    run.mkdir()
    keras.Model(inputs, outputs).save(run / "model.keras")
    (run / "config.json").write_text("{}")
    task = {"task": "image_classification", "labels": "single", "image_size": 16}
    (run / "task.json").write_text(json.dumps(task | {"class_names": ["a", "b", "c"]}))
    return run


@pytest.fixture(scope="session")
def chat_run(tmp_path_factory):
    """A run about conversations, with a random Llama of two blocks."""
    folder = tmp_path_factory.mktemp("chat")
    llama = tiny_causal_lm(folder / "llama")
    return write_chat_run(folder / "run", llama, system_prompt="Be brief.")
