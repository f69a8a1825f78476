"""Damaged folders of runs: settings, tasks, models, tokenizers, checkpoints."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
from causes import ARCHIVE, JSON, LAYERS, UNPACK, damage, write

from tfsft.config import make_config, read_recipe

RECIPE = Path(__file__).parents[2] / "recipes" / "image_cls.py"


def settings(path):
    return make_config(read_recipe(RECIPE), files=[path])


def config(folder, **content):
    good = {"format": 1, "settings": {"data": "digits", "epochs": 2}}
    return write(folder, "config.json", json.dumps(good | content))


@damage(
    settings,
    "DIR/config.json is not JSON: [...]",
    "Settings are a run's config.json, or a JSON object of names and values.",
)
def config_that_ends_early(folder):
    path = config(folder)
    return write(folder, "config.json", Path(path).read_text()[:30])


@damage(
    settings,
    "DIR/config.json is not JSON: [...]",
    "Settings are a run's config.json, or a JSON object of names and values.",
)
def config_of_no_bytes(folder):
    return write(folder, "config.json", "")


@damage(
    settings,
    "DIR/config.json is not JSON: [...]",
    "Settings are a run's config.json, or a JSON object of names and values.",
)
def config_in_utf_16(folder):
    return write(folder, "config.json", "{}", "utf-16")


@damage(
    settings,
    "DIR/config.json is not JSON: [...]",
    "Settings are a run's config.json, or a JSON object of names and values.",
)
def config_nested_too_deep(folder):
    return write(folder, "config.json", "[" * 100_000)


@damage(
    settings,
    "DIR/config.json has format 7.",
    "This version of tfsft reads format 1.",
    "Use the version of tfsft that wrote it; the file names it under 'versions'.",
)
def config_of_another_format(folder):
    return config(folder, format=7)


@damage(
    settings,
    "DIR/config.json holds no settings.",
    "Settings are a run's config.json, or a JSON object of names and values.",
)
def config_without_settings(folder):
    return config(folder, settings=None)


@damage(
    settings,
    "DIR/config.json holds no settings.",
    "Settings are a run's config.json, or a JSON object of names and values.",
)
def config_that_is_a_list(folder):
    return write(folder, "config.json", "[]")


@damage(
    settings,
    "No setting is called 'lora_rank' in DIR/config.json.",
    "There are: data, image_column, label_column, group_column, multi_label, regression, "
    "validation_fraction, test_fraction, replay_share, limit, on_bad, tfds_dir, backbone, "
    "image_size, hidden_units, dropout, l1, l2, unfreeze, gradual, epochs, head_epochs, "
    "max_steps, batch_size, accumulate, learning_rate, unfrozen_learning_rate, layer_decay, "
    "optimizer, weight_decay, momentum, schedule, warmup, decay_factor, decay_every, "
    "decay_unit, decay_rate, decay_power, clip_norm, ema, patience, augment, label_smoothing, "
    "class_weight, sampling, teacher, temperature, alpha, suspects, seed.",
)
def config_of_another_recipe(folder):
    return config(folder, settings={"data": "digits", "lora_rank": 8})


@damage(
    settings,
    "'epochs' in DIR/config.json is two.",
    "It must be a whole number, 1 or more.",
    "The default is 8.",
)
def config_with_text_for_a_number(folder):
    return config(folder, settings={"epochs": "two"})


@damage(
    settings,
    "'epochs' in DIR/config.json is [2].",
    "It must be a whole number, 1 or more.",
    "The default is 8.",
)
def config_with_a_list_for_a_number(folder):
    return config(folder, settings={"epochs": [2]})


@damage(
    settings,
    "'epochs' in DIR/config.json is 0.",
    "It must be a whole number, 1 or more.",
    "The default is 8.",
)
def config_with_a_number_out_of_range(folder):
    return config(folder, settings={"epochs": 0})


@damage(settings, "'data' in DIR/config.json is 7.", "It must be text.", "The default is digits.")
def config_with_a_number_for_text(folder):
    return config(folder, settings={"data": 7})


@damage(
    settings,
    "'learning_rate' in DIR/config.json is nan.",
    "It must be a number, above 0.",
    "The default is 0.002.",
)
def config_with_nan(folder):
    return config(folder, settings={"learning_rate": float("nan")})


@damage(
    settings,
    "'optimizer' in DIR/config.json is adma.",
    "It must be one of adam, adamw, sgd, lion, muon.",
    "Did you mean 'adam'?",
)
def config_with_an_unknown_choice(folder):
    return config(folder, settings={"optimizer": "adma"})


@damage(
    settings,
    "DIR/config.json cannot be read: Is a directory.",
    "Settings are a run's config.json, or a JSON object of names and values.",
)
def config_that_is_a_folder(folder):
    (folder / "config.json").mkdir()
    return os.fspath(folder / "config.json")


# Finished runs


def predictor(run):
    from tfsft.export import load_predictor

    return load_predictor(run)


def picture_run(folder: Path) -> Path:
    """Writes a finished run of two classes of pictures that has learned nothing."""
    import keras

    run = folder / "run"
    run.mkdir()
    inputs = keras.Input([None, None, 3], dtype="uint8")
    pixels = keras.layers.Resizing(8, 8)(inputs)
    pixels = keras.layers.Rescaling(1 / 255)(pixels)
    outputs = keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(pixels))
    keras.Model(inputs, outputs).save(run / "model.keras")
    task(run)
    write(run, "config.json", '{"format": 1}')
    return run


def task(run: Path, **more) -> str:
    content = {
        "format": 1,
        "task": "image_classification",
        "labels": "single",
        "class_names": ["roses", "tulips"],
        "image_size": 8,
    }
    return write(run, "task.json", json.dumps(content | more))


@damage(
    predictor,
    "DIR is not the folder of a run.",
    "A folder that `tfsft run` has made; it holds a config.json.",
    "Check the path.",
)
def no_run(folder):
    return folder


@damage(
    predictor,
    "The run DIR/run is not finished: it has no model.keras.",
    "A run whose training has ended.",
    "Go on with it: tfsft run RECIPE --resume DIR/run",
)
def run_without_model(folder):
    run = picture_run(folder)
    (run / "model.keras").unlink()
    return run


@damage(predictor, "DIR/run/task.json cannot be read: [...]", *JSON)
def run_without_task(folder):
    run = picture_run(folder)
    (run / "task.json").unlink()
    return run


@damage(predictor, "DIR/run/task.json cannot be read: [...]", *JSON)
def task_that_ends_early(folder):
    run = picture_run(folder)
    write(run, "task.json", '{"format": 1, "ta')
    return run


@damage(
    predictor,
    "DIR/run/task.json has no task that a run can have.",
    "Expected what `tfsft run` wrote.",
    "Copy the whole run folder again.",
)
def task_that_is_a_list(folder):
    run = picture_run(folder)
    write(run, "task.json", "[]")
    return run


@damage(
    predictor,
    "DIR/run/task.json has format 2.",
    "This version of tfsft reads format 1.",
    "Use the version of tfsft that wrote it; config.json names it under 'versions'.",
)
def task_of_a_newer_format(folder):
    run = picture_run(folder)
    task(run, format=2)
    return run


@damage(
    predictor,
    "The run DIR/run is about 'image_segmentation'.",
    "This tfsft predicts with runs about image_classification, "
    "text_classification, token_classification, question_answering, chat, "
    "text_generation.",
    "Update tfsft, or load its model.keras with keras.models.load_model.",
)
def task_that_is_unknown(folder):
    run = picture_run(folder)
    task(run, task="image_segmentation")
    return run


@damage(predictor, "DIR/run/model.keras cannot be read: [...]", *ARCHIVE)
def model_that_ends_early(folder):
    run = picture_run(folder)
    content = (run / "model.keras").read_bytes()
    (run / "model.keras").write_bytes(content[: len(content) // 2])
    return run


@damage(predictor, "DIR/run/model.keras cannot be read: [...]", *ARCHIVE)
def model_of_no_bytes(folder):
    run = picture_run(folder)
    (run / "model.keras").write_bytes(b"")
    return run


@damage(predictor, "DIR/run/model.keras cannot be read: [...]", *ARCHIVE)
def model_that_is_text(folder):
    run = picture_run(folder)
    (run / "model.keras").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    return run


def repacked(run: Path, leave_out: str = "", **changed: bytes) -> Path:
    """Writes model.keras again without a file, or with others in place of its own."""
    path = run / "model.keras"
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if name != leave_out}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (files | {k.replace("_", "."): v for k, v in changed.items()}).items():
            archive.writestr(name, content)
    return run


@damage(predictor, "DIR/run/model.keras cannot be loaded: [...]", *LAYERS)
def model_without_config(folder):
    return repacked(picture_run(folder), "config.json")


@damage(predictor, "DIR/run/model.keras cannot be loaded: [...]", *LAYERS)
def model_without_weights(folder):
    return repacked(picture_run(folder), "model.weights.h5")


@damage(predictor, "DIR/run/model.keras cannot be loaded: [...]", *LAYERS)
def model_with_a_damaged_config(folder):
    return repacked(picture_run(folder), config_json=b'{"module": "keras", "cl')


@damage(predictor, "DIR/run/model.keras cannot be loaded: [...]", *LAYERS)
def model_of_an_unknown_layer(folder):
    run = picture_run(folder)
    with zipfile.ZipFile(run / "model.keras") as archive:
        content = archive.read("config.json").replace(b'"Rescaling"', b'"Rescalling"')
    return repacked(run, config_json=content)


@damage(predictor, "DIR/run/model.keras cannot be read: [...]", *ARCHIVE)
def model_with_flipped_bytes(folder):
    run = picture_run(folder)
    content = bytearray((run / "model.keras").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(255 - byte for byte in content[middle : middle + 64])
    (run / "model.keras").write_bytes(content)
    return run


@damage(
    predictor,
    "The tokenizer in DIR/run/tokenizer cannot be read: [...]",
    "Expected the folder that a run wrote: settings.json, tokenizer.json and assets/.",
    "Copy the whole run folder, the tokenizer's folder included.",
)
def run_without_tokenizer(folder):
    run = picture_run(folder)
    more = {"inputs": ["text"], "tokenizer": "tokenizer", "max_length": 8}
    task(run, task="text_classification", **more)
    return run


def pictures_listed(path):
    from tfsft.export.image_predictor import first_column

    return first_column(path)


@damage(pictures_listed, "DIR/list.csv is no text but binary data.", *UNPACK)
def list_of_pictures_that_is_binary(folder):
    return write(folder, "list.csv", bytes(20))


@damage(
    pictures_listed,
    "DIR/list.csv cannot be read: field larger than field limit (131072).",
    "A CSV file of paths.",
)
def list_of_pictures_with_a_cell_too_long(folder):
    return write(folder, "list.csv", "path\n" + "x" * 200_000)


def pictures_found(path):
    from tfsft.export import find_pictures

    return find_pictures([path])


@damage(
    pictures_found,
    "No picture was found in DIR.",
    "Files that end in .bmp, .gif, .jfif, .jpe, .jpeg, .jpg, .png, .webp.",
    "Name a folder that holds some.",
)
def no_picture_to_predict(folder):
    return os.fspath(folder)


@damage(
    pictures_found,
    "There is no file or folder DIR/gone.png.",
    "Pictures, or folders of pictures.",
    "Check the spelling; paths are relative to where you are.",
)
def missing_picture_to_predict(folder):
    return os.fspath(folder / "gone.png")


@damage(
    pictures_found,
    "There is no file or folder " + "x" * 5000 + ".",
    "Pictures, or folders of pictures.",
    "Check the spelling; paths are relative to where you are.",
)
def picture_to_predict_with_a_name_too_long(folder):
    return "x" * 5000


# Checkpoints


def checkpoints(folder):
    """Reads the newest checkpoint; says what was damaged as a run does."""
    from tfsft.errors import UserError
    from tfsft.training.checkpoints import Checkpoints

    found = Checkpoints(folder)
    newest = found.newest()
    if found.damaged:
        said = "\n".join(f"{path.name}: {reason}" for path, reason in found.damaged.items())
        raise UserError(said, f"goes on from {newest and newest.facts}")
    return newest


def two_checkpoints(folder: Path) -> Path:
    from tfsft.training.checkpoints import Checkpoints

    kept = Checkpoints(folder)
    for step in (1, 2):
        kept.save({"model/00000/kernel": np.full([8], step, np.float32)}, {"step": step})
    return folder / "000002"


@damage(checkpoints, "000002: the hash of state.safetensors differs", "goes on from {'step': 1}")
def checkpoint_with_a_flipped_byte(folder):
    path = two_checkpoints(folder) / "state.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    return folder


@damage(checkpoints, "000002: the hash of state.safetensors differs", "goes on from {'step': 1}")
def checkpoint_that_ends_early(folder):
    path = two_checkpoints(folder) / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    return folder


@damage(checkpoints, "000002: [...]", "goes on from {'step': 1}")
def checkpoint_without_manifest(folder):
    (two_checkpoints(folder) / "manifest.json").unlink()
    return folder


@damage(checkpoints, "000002: [...]", "goes on from {'step': 1}")
def checkpoint_with_a_damaged_manifest(folder):
    (two_checkpoints(folder) / "manifest.json").write_text('{"format": 2,')
    return folder


@damage(checkpoints, "000002: its format is 99, this tfsft reads 3", "goes on from {'step': 1}")
def checkpoint_of_another_format(folder):
    path = two_checkpoints(folder) / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    return folder


@damage(checkpoints, "000001: the hash of state.safetensors differs", "goes on from None")
def all_checkpoints_damaged(folder):
    shutil.rmtree(two_checkpoints(folder))
    (folder / "000001" / "state.safetensors").write_bytes(b"")
    return folder
