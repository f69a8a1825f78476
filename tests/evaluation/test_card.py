"""README.md of a run: as Hugging Face reads it, and nothing but what the run knows."""

import json

import numpy as np
import pytest

from tfsft.evaluation import write_report

NAMES = ("ant", "be|e", "*cat*")


@pytest.fixture
def cards(write_run, write_tag_run, write_answer_run, tmp_path):
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 30)
    outputs = random.dirichlet((1, 1, 1), 30)
    data = {"data": "/home/ada/insects", "backbone": "/home/ada/resnet"}
    write_run(tmp_path / "single", "single", labels, outputs, NAMES, settings=data)
    write_run(tmp_path / "numbers", "regression", labels * 1.5, outputs[:, :1], ())
    write_tag_run(tmp_path / "tags", [("Ada", ((0, 3, "PER"),), ((0, 3, "PER"),), 0.9)], ("PER",))
    write_answer_run(tmp_path / "answers", [("who?", "Ada did", ["Ada"], "Ada", 0.9)])
    found = {}
    for name in ("single", "numbers", "tags", "answers"):
        write_report(tmp_path / name)
        found[name] = tmp_path / name / "README.md"
    return found


def test_hugging_face_reads_the_header(cards):
    hub = pytest.importorskip("huggingface_hub")
    measured = {}
    for name, path in cards.items():
        card = hub.ModelCard.load(path)
        metrics = json.loads((path.parent / "metrics.json").read_text())["test"]
        assert card.data.library_name == "keras"
        assert card.data.license is None  # nobody has said
        for result in card.data.eval_results:
            key = {"F1, macro": "f1_macro", "Exact match": "exact"}
            assert result.metric_value == metrics[key.get(result.metric_name, result.metric_name)]
            measured.setdefault(name, set()).add(result.metric_type)
        assert result.dataset_split == "test"
    assert hub.ModelCard.load(cards["single"]).data.pipeline_tag == "image-classification"
    assert hub.ModelCard.load(cards["numbers"]).data.pipeline_tag is None
    assert measured == {
        "single": {"accuracy", "f1"},
        "numbers": {"mae", "mse"},
        "tags": {"f1", "precision", "recall"},
        "answers": {"exact_match", "f1"},
    }


def test_the_card_says_what_the_run_knows(cards):
    text = cards["single"].read_text()
    metrics = json.loads((cards["single"].parent / "metrics.json").read_text())["test"]
    for row in metrics["per_class"]:
        name = row["class"].replace("*", r"\*").replace("|", r"\|")
        assert f"| {name} | {row['support']} | {row['recall']:.1%} |" in text
    assert "1,257 pictures for training, 270 pictures for validation, 270 pictures for test" in text
    assert "Only 30 pictures were tested" in text
    assert "| data | insects |" in text
    assert "/home/ada" not in text
    assert "tfsft predict FOLDER picture.jpg" in text
    assert "import keras_hub" in cards["tags"].read_text()
    assert "None" not in text.replace("None has", "")


def test_without_figures_nothing_is_claimed(cards):
    folder = cards["single"].parent
    (folder / "metrics.json").write_text(json.dumps({"validation": None, "test": None}))
    (folder / "predictions.csv").unlink()
    write_report(folder)
    text = cards["single"].read_text()
    assert "Not measured" in text
    assert "model-index" not in text
    assert "Nobody knows how good it is" in text
