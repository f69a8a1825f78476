"""Folders of finished runs whose data is there: random models, nothing is trained."""

import csv
import json

import text_runs
from tiny_pictures import save_flowers, save_tiny_resnet

TAGGED = "Ada B-PER\nLovelace I-PER\nsaw O\nthe O\nquick O\nfox. O\n\n"


def write_text_data(name, folder):
    """Writes labelled data for one of `text_runs.TASKS`; returns its path."""
    texts = [text for text in text_runs.TEXTS if text.strip()] * 3
    texts = [f"{text} {place}" for place, text in enumerate(texts)]
    if name == "tags":
        path = folder / "names.conll"
        path.write_text(
            "".join(TAGGED.replace("quick", f"quick{i}") * (1 + 8 * (i == 3)) for i in range(12))
        )
        return path
    if name == "questions":
        path = folder / "squad.json"
        contexts = [f"{text} the quick fox was here {i}" for i, text in enumerate(texts)]
        rows = [
            {
                "context": context,
                "qas": [
                    {
                        "id": f"q{i}",
                        "question": "who was here?",
                        "answers": [{"text": "fox", "answer_start": context.index("fox was")}],
                    }
                ],
            }
            for i, context in enumerate(contexts)
        ]
        path.write_text(json.dumps({"data": [{"title": "a", "paragraphs": rows}]}))
        return path
    path = folder / "texts.csv"
    task = text_runs.TASKS[name]
    labels = task["class_names"] or ["98.5", "101", "103.25"]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*task["inputs"], "label"])
        for place, text in enumerate(texts):
            row = [text, texts[-place]][: len(task["inputs"])]
            writer.writerow([*row, labels[place % len(labels)]])
    return path


def write_text_run(folder, name, encoder):
    """Writes the run of a task, with data of which every other example is held out."""
    text_runs.write_run(folder, name, encoder)
    data = folder.parent / f"{folder.name}-data"
    data.mkdir()
    hold_out(folder, write_text_data(name, data))


def write_picture_run(folder, labels="single", classes=("blue", "green", "red")):
    """Writes the run of a picture classifier with random weights."""
    import keras

    from tfsft.recipes import image_cls

    data, backbone = (folder.parent / f"{folder.name}-{of}" for of in ("data", "backbone"))
    for made in (data, backbone):
        made.mkdir()
    save_flowers(data)
    save_tiny_resnet(backbone)
    keras.utils.set_random_seed(3)
    model = image_cls.build_model(len(classes), str(backbone), image_size=24)
    model.save(folder / "model.keras")
    task = {"task": "image_classification", "labels": labels, "class_names": list(classes)}
    (folder / "task.json").write_text(json.dumps(task | {"image_size": 24}))
    hold_out(folder, data)


def hold_out(run, data):
    """Lets a run say that it was trained on data, and tested with every other example of it."""
    import numpy as np

    from tfsft import evaluation
    from tfsft.export import load_predictor

    columns = {"text_column": "text", "text_pair_column": "pair", "label_column": "label"}
    options = columns if data.suffix == ".csv" and "pair" in data.read_text()[:20] else {}
    (run / "config.json").write_text(json.dumps({"settings": {"data": str(data), **options}}))
    predictor = load_predictor(run)
    source = predictor.load(str(data), **options).everything()
    _, rows = predictor.evaluate(source.subset(np.arange(0, len(source), 2)))
    evaluation.write_rows(run / "predictions.csv", rows, kind=predictor.labels)


def hold_out_texts(run, rows):
    """As `hold_out` for runs that write texts, without the time of writing any.

    Args:
        run: Its folder.
        rows: Conversations, lists of messages.
    """
    from tfsft import evaluation
    from tfsft.export import load_predictor

    data = run.parent / f"{run.name}-data.jsonl"
    data.write_text("\n".join(json.dumps({"messages": row}) for row in rows) + "\n")
    (run / "config.json").write_text(json.dumps({"settings": {"data": str(data)}}))
    source = load_predictor(run).load(str(data)).everything()
    texts = [row[-1]["content"] for row in rows]
    found = evaluation.generation_predictions(list(source.ids), texts, texts, texts)
    evaluation.write_rows(run / "predictions.csv", found[::2], kind="chat")
