"""Students of real, tiny runs, and what cannot be taught."""

import csv
import json
import shutil

import keras
import numpy as np
import pytest

from tfsft import data, models, training
from tfsft.errors import UsageError, UserError
from tfsft.export import load_predictor
from tfsft.recipes import image_cls, text_cls

PICTURES = {"image_size": 32, "epochs": 6, "batch_size": 8, "hidden_units": 16, "patience": 0,
            "learning_rate": 0.03, "unfreeze": "none", "suspects": False}  # fmt: skip
TEXTS = {"epochs": 4, "batch_size": 16, "max_length": 32, "learning_rate": 0.003}


def run_recipe(recipe, folder, **settings):
    config = recipe.Config(**settings)
    with training.Run(recipe.__name__.split(".")[-1], config, run_dir=folder) as run:
        recipe.main(config, run)
        return run


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, flowers, tiny_backbone):
    folder = tmp_path_factory.mktemp("runs") / "teacher"
    run_recipe(image_cls, folder, **PICTURES, data=str(flowers), backbone=tiny_backbone)
    return folder


@pytest.fixture(scope="module")
def untrained(tmp_path_factory, tiny_backbone):
    """What a finished run leaves, as far as a teacher is concerned."""
    folder = tmp_path_factory.mktemp("untrained")
    classes = ["blue", "green", "red"]
    image_cls.build_model(3, tiny_backbone, 32).save(folder / "model.keras")
    task = {"task": "image_classification", "labels": "single", "class_names": classes,
            "image_size": 32}  # fmt: skip
    (folder / "task.json").write_text(json.dumps(task))
    config = {"format": 1, "recipe": "image_cls", "settings": {"data": "digits"}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def small_backbone(tmp_path_factory):
    """A folder with a ResNet of two stages: half as large as that of the teacher."""
    import keras_hub

    folder = tmp_path_factory.mktemp("small_resnet")
    keras.utils.set_random_seed(1)
    keras_hub.models.ResNetBackbone(
        input_conv_filters=[64], input_conv_kernel_sizes=[3], stackwise_num_filters=[64, 8],
        stackwise_num_blocks=[1, 1], stackwise_num_strides=[1, 2], block_type="basic_block",
        image_shape=(None, None, 3),
    ).save_to_preset(folder)  # fmt: skip
    keras_hub.layers.ResNetImageConverter(
        image_size=(24, 24), scale=1 / 127.5, offset=-1.0
    ).save_to_preset(folder)
    return str(folder)


def answers(folder, flowers):
    """Probabilities for all pictures."""
    source = data.load_images(str(flowers)).everything()
    predictor = load_predictor(folder)
    return training.predict(predictor.model, predictor.pipeline(source))[0]


def divergence(teacher, student):
    return float((teacher * np.log(teacher / np.maximum(student, 1e-12))).sum(-1).mean())


@pytest.fixture(scope="module")
def student(tmp_path_factory, teacher, flowers, small_backbone):
    folder = tmp_path_factory.mktemp("runs") / "student"
    settings = PICTURES | {"image_size": 24, "alpha": 1.0}
    run_recipe(image_cls, folder, **settings, data=str(flowers), backbone=small_backbone,
               teacher=str(teacher))  # fmt: skip
    return folder


@pytest.mark.slow
def test_a_student_answers_more_like_the_teacher_than_a_model_of_its_own(
    teacher, student, tmp_path, flowers, small_backbone
):
    settings = PICTURES | {"image_size": 24}
    run_recipe(image_cls, tmp_path / "own", **settings, data=str(flowers), backbone=small_backbone)
    taught = answers(teacher, flowers)
    with_teacher, without = (
        divergence(taught, answers(folder, flowers)) for folder in (student, tmp_path / "own")
    )
    assert with_teacher < 0.8 * without


@pytest.mark.slow
def test_the_report_sets_it_beside_its_teacher(teacher, student):
    metrics = json.loads((student / "metrics.json").read_text())
    found = metrics["distillation"]
    for name, folder in (("teacher", teacher), ("student", student)):
        assert found[name]["file_bytes"] == (folder / "model.keras").stat().st_size
        own = json.loads((folder / "metrics.json").read_text())
        assert found[name]["parameters"] == own["parameters"]["total"]
        assert found[name]["accuracy"]["value"] == pytest.approx(own["test"]["accuracy"])
        assert found[name]["milliseconds"] > 0
    assert found["student"]["parameters"] < found["teacher"]["parameters"]
    said = []
    for folder in (teacher, student):
        with open(folder / "predictions.csv", newline="") as file:
            said.append({row["id"]: row["prediction"] for row in csv.DictReader(file)})
    assert said[0].keys() == said[1].keys()
    same = [said[0][name] == said[1][name] for name in said[0]]
    assert found["agreement"] == pytest.approx(np.mean(same))
    assert not (student / "suspicious.csv").exists()
    page = (student / "report.html").read_text()
    assert "Against its teacher" in page
    assert f"The teacher is {teacher}." in page
    assert "Against its teacher" not in (teacher / "report.html").read_text()


def test_what_cannot_be_taught(untrained, tmp_path, flowers, tiny_backbone):
    with pytest.raises(UsageError, match="about image classification"):
        training.Teacher(untrained, "text_classification", "single")
    with pytest.raises(UsageError, match="multi labels"):
        training.Teacher(untrained, "image_classification", "multi")
    with pytest.raises(UsageError, match="is not the folder of a run"):
        training.Teacher(tmp_path / "none", "image_classification", "single")
    settings = PICTURES | {"backbone": tiny_backbone, "teacher": str(untrained)}
    with pytest.raises(UsageError, match="--augment was given with --teacher"):
        run_recipe(image_cls, tmp_path / "a", **settings, data=str(flowers), augment="flip")
    shutil.copytree(flowers / "red", tmp_path / "other" / "crimson")
    shutil.copytree(flowers / "blue", tmp_path / "other" / "blue")
    with pytest.raises(UserError, match="crimson, green, red"):
        run_recipe(image_cls, tmp_path / "b", **settings, data=str(tmp_path / "other"))


def test_mistakes_in_the_command_cost_one_message(untrained, tfsft, tmp_path):
    done = tfsft("distill", tmp_path, "--student", "mobilenetv2")
    assert done.returncode == 2
    assert "is not the folder of a run." in done.stderr
    done = tfsft("distill", untrained)
    assert (done.returncode, "--student is missing." in done.stderr) == (2, True)
    done = tfsft("distill", untrained, "--student", "mobilenetv2", "--backbone", "resnet50")
    assert (done.returncode, "Leave out --backbone." in done.stderr) == (2, True)
    unfinished = tmp_path / "unfinished"
    shutil.copytree(untrained, unfinished)
    (unfinished / "model.keras").unlink()
    done = tfsft("distill", unfinished, "--student", "mobilenetv2")
    assert (done.returncode, "is not finished" in done.stderr) == (2, True)
    config = json.loads((untrained / "config.json").read_text()) | {"recipe": "chat_sft"}
    (unfinished / "config.json").write_text(json.dumps(config))
    shutil.copy(untrained / "model.keras", unfinished)
    done = tfsft("distill", unfinished, "--student", "smollm2")
    assert done.returncode == 2
    assert "is a run of chat_sft, which cannot be distilled." in done.stderr


@pytest.mark.slow
def test_the_command_with_texts(tfsft, tmp_path, weather, tiny_encoder, cache):
    """An unknown student, data that is gone, and a student that can be used as any run."""
    run_recipe(text_cls, tmp_path / "teacher", **TEXTS, data=weather, backbone=tiny_encoder)
    words = ("distill", "teacher", "--epochs", "2", "--max-length", "24", "--run-dir", "student")
    done = tfsft(*words, "--student", "no_such_model", TFSFT_CACHE=cache)
    assert done.returncode == 2, done.stderr
    assert "There is no backbone 'no_such_model'." in done.stderr
    assert not (tmp_path / "student").exists()
    done = tfsft(*words, "--student", tiny_encoder, "--data", "gone.csv", TFSFT_CACHE=cache)
    assert done.returncode == 1, done.stderr
    assert "gone.csv" in done.stderr
    assert done.stderr.count("Error") == 1
    assert not (tmp_path / "student").exists()
    done = tfsft(*words, "--student", tiny_encoder, TFSFT_CACHE=cache)
    assert done.returncode == 0, done.stderr
    assert "Asking the teacher about training examples" in done.stdout
    found = json.loads((tmp_path / "student" / "metrics.json").read_text())["distillation"]
    assert found["examples"] > 10
    done = tfsft("predict", "student", "the fox was here", "--json", TFSFT_CACHE=cache)
    assert json.loads(done.stdout)[0]["prediction"] in ("animals", "weather")


@pytest.mark.slow
def test_a_student_of_pictures_learns_the_same_on_two_replicas(
    tfsft, tmp_path, teacher, small_backbone, cache
):
    words = ("distill", teacher, "--student", small_backbone, "--image-size", "24", "--epochs", "3",
             "--batch-size", "8", "--hidden-units", "16", "--dropout", "0", "--learning-rate",
             "0.01", "--unfreeze", "stack1", "--no-suspects")  # fmt: skip
    devices = {"one": "cpu:0", "two": "cpu:0,cpu:1"}
    for name, chosen in devices.items():
        done = tfsft(*words, "--devices", chosen, "--run-dir", name, TFSFT_CACHE=cache)
        assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "two" / "config.json").read_text())
    assert config["device"]["replicas"] == 2
    one, two = (
        keras.models.load_model(tmp_path / name / "model.keras").get_weights() for name in devices
    )
    start = image_cls.build_model(3, small_backbone, 24, hidden_units=16).get_weights()
    moved = max(np.abs(a - b).max() for a, b in zip(one, start, strict=True))
    apart = max(np.abs(a - b).max() for a, b in zip(one, two, strict=True))
    assert apart < 1e-4 < 1e-2 < moved
    found = [
        json.loads((tmp_path / name / "metrics.json").read_text())["distillation"]
        for name in devices
    ]
    for value in ("teacher", "student"):
        assert found[0][value]["accuracy"] == found[1][value]["accuracy"]
    assert found[0]["agreement"] == found[1]["agreement"]


def test_texts_are_taught_in_the_order_of_the_rows(weather, tiny_encoder):
    """Targets go with their texts, whatever the batches by length."""
    splits = data.load_texts(weather)
    encoder = data.TextEncoder(models.load_text_backbone(tiny_encoder).tokenizer, 16)
    feed = data.TextFeed(splits.train, encoder, num_outputs=2)
    plain = feed.pipeline(8, seed=1, shuffle=True)
    rows = np.arange(len(splits.train), dtype="float32")
    for (x, y, w), (x2, y2, w2) in zip(
        plain.epoch(0), plain.with_labels(rows[:, None]).epoch(0), strict=True
    ):
        np.testing.assert_array_equal(x["token_ids"], x2["token_ids"])
        np.testing.assert_array_equal(w, w2)
        expected = splits.train.labels[y2.numpy().astype(int)[:, 0]]
        np.testing.assert_array_equal(y.numpy().argmax(-1), expected)
