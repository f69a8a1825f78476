"""Folders of finished runs about texts, made by hand: random models, nothing is trained."""

import json

POSITIONS = 128  # of the encoder: questions alone may take half of these
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
TASKS = {
    "texts": {
        "task": "text_classification",
        "labels": "single",
        "inputs": ["text"],
        "class_names": ["weather", "天气", "طقس"],
        "max_length": 24,
    },
    "pairs": {
        "task": "text_classification",
        "labels": "multi",
        "inputs": ["text", "pair"],
        "class_names": ["weather", "天气", "طقس"],
        "max_length": 25,
    },
    "numbers": {
        "task": "text_classification",
        "labels": "regression",
        "inputs": ["text"],
        "class_names": [],
        "max_length": 24,
    },
    "tags": {
        "task": "token_classification",
        "labels": "tags",
        "class_names": ["LOC", "PER"],
        "tags": TAGS,
        "max_length": 20,
        "stride": 5,
    },
    "questions": {
        "task": "question_answering",
        "labels": "answers",
        "class_names": [],
        "no_answer": True,
        "max_answer_length": 6,
        "max_length": 84,
        "stride": 7,
    },
}
TEXTS = [
    "the quick brown fox, it is said, jumps over the lazy dogs!",
    "Crème brûlée à la façon d'Élodie, ΑΒΓ λόγος",
    "我们在北京吃饭。你好，世界！",
    "مرحبا بالعالم، كيف حالك؟ می\u200cخواهم",
    "emoji 😀 👩\u200d👩\u200d👧 ❤️ done",
    "no\u00a0break zero\u200bwidth soft\u00adhyphen\r\n\x07 [SEP] </s> e\u0301",
    "where the rows are few the lessons are short, " * 12,
    "",
    " ",
    "fox",
]


def write_run(folder, name, encoder):
    """Writes what a finished run leaves of a task, with a random head.

    Args:
        folder: An empty one.
        name: One of `TASKS`.
        encoder: A folder from `text_families.save_tiny`.
    """
    import keras

    from tfsft import models
    from tfsft.recipes import extractive_qa, text_cls, token_cls

    keras.utils.set_random_seed(3)
    backbone = models.load_text_backbone(str(encoder))
    task = TASKS[name] | {"tokenizer": "tokenizer"}
    if name == "tags":
        model = token_cls.build_model(len(TAGS), backbone)
    elif name == "questions":
        model = extractive_qa.build_model(backbone)
    elif name == "numbers":
        scale = {"output_scale": 3.0, "output_offset": 100.0}
        model = text_cls.build_model(1, backbone, activation=None, **scale)
    else:
        activation = {"single": "softmax", "multi": "sigmoid"}[task["labels"]]
        model = text_cls.build_model(len(task["class_names"]), backbone, activation=activation)
    model.save(folder / "model.keras")
    backbone.tokenizer.save(folder / "tokenizer")
    (folder / "task.json").write_text(json.dumps(task))
    (folder / "config.json").write_text("{}")
