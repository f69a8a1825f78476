"""Each recipe trains a finished model further, on what people said of its answers."""

import hashlib
import importlib
import json

import keras
import numpy as np
import pytest
from chat_families import tiny_causal_lm
from said_of_answers import write
from seq2seq_families import tiny_bart
from tiny_pictures import save_flowers

from tfsft import training
from tfsft.errors import Forgotten, UsageError
from tfsft.export import EarlierRun, load_predictor

pytestmark = pytest.mark.slow

ENCODER = {"max_length": 32, "epochs": 2, "batch_size": 8}
SETTINGS = {
    "image_cls": {"epochs": 1, "batch_size": 8, "image_size": 32},
    "token_cls": ENCODER | {"stride": 8},
    "extractive_qa": ENCODER | {"max_length": 64, "stride": 6},
    "chat_sft": {"epochs": 1, "learning_rate": 1e-2, "answers": 2, "max_new_tokens": 4},
    "chat_sft-lora": {"epochs": 1, "learning_rate": 1e-2, "answers": 2, "max_new_tokens": 4,
                      "lora_rank": 2},
    "seq2seq": {"epochs": 1, "max_length": 32, "max_target_length": 16, "max_new_tokens": 4,
                "answers": 0},
}  # fmt: skip
FIGURE = {"image_cls": "accuracy", "token_cls": "f1", "extractive_qa": "exact"}  # else perplexity


@pytest.fixture(scope="module", params=list(SETTINGS))
def case(request, tmp_path_factory, flowers, tiny_backbone, tiny_encoder):
    """Name of the recipe, its settings, old and new data."""
    name, folder = request.param.split("-")[0], tmp_path_factory.mktemp("data")
    if name == "image_cls":
        pictures = folder / "feedback-pictures"
        pictures.mkdir()
        save_flowers(pictures)
        files = sorted(f for f in pictures.rglob("*") if f.suffix in {".png", ".jpg", ".jpeg"})
        rng = np.random.default_rng(7)
        new, lines = folder / "feedback.jsonl", []
        for file in files:
            noise = rng.integers(0, 255, (40, 40, 3))
            keras.utils.save_img(file.with_suffix(".png"), noise)
            path = str(file.with_suffix(".png").relative_to(folder))
            lines.append(json.dumps({"image": path, "label": file.parent.name}) + "\n")
        new.write_text("".join(lines))
        old, new, backbone = str(flowers), str(new), tiny_backbone
    else:
        old = write(folder / "old.jsonl", name, range(40))
        new = write(folder / "feedback.jsonl", name, range(100, 130))
        backbone = tiny_encoder
        if name == "chat_sft":
            backbone = str(tiny_causal_lm(folder / "llama"))
        if name == "seq2seq":
            backbone = str(tiny_bart(folder / "bart"))
    return name, SETTINGS[request.param] | {"backbone": backbone}, old, new


def train(name, folder, earlier=None, **settings):
    keras.utils.clear_session()
    recipe = importlib.import_module(f"tfsft.recipes.{name}")
    config = recipe.Config(**settings)
    with training.Run(name, config, run_dir=folder, earlier=earlier) as run:
        recipe.main(config, run)
    return json.loads((folder / "metrics.json").read_text())


def hashes(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_four_figures_and_a_refusal_that_leaves_the_old_run(case, tmp_path):
    name, settings, old, new = case
    folder, further = tmp_path / "old", tmp_path / "further"
    train(name, folder, **settings, data=old)
    before = hashes(folder)
    with pytest.raises(Forgotten):  # whatever it forgot: more than minus everything
        train(name, further, EarlierRun(folder, -1e9), **settings, data=new)
    assert hashes(folder) == before
    metrics = json.loads((further / "metrics.json").read_text())
    found = metrics["from"]
    assert found["refused"]
    assert found["figure"] == FIGURE.get(name, "perplexity")
    scored = json.loads((folder / "metrics.json").read_text())["test"]
    assert found["old"]["examples"] == scored.get("examples", found["old"]["examples"])
    assert found["old"]["before"] == pytest.approx(scored[found["figure"]], rel=1e-4)
    assert found["new"]["examples"] > 0
    assert None not in (found["old"]["after"], found["new"]["before"], found["new"]["after"])
    assert "Refused: it forgot too much" in (further / "report.html").read_text()
    with pytest.raises(UsageError, match="refused"):
        load_predictor(further)
    assert load_predictor(further, refused_too=True)
    assert load_predictor(folder)
