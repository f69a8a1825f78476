"""Test accuracy on short movie reviews, against the Trainer of Hugging Face on the same rows.

    python scripts/benchmarks/text_against_transformers.py prepare
    python scripts/benchmarks/text_against_transformers.py ours
    python scripts/benchmarks/text_against_transformers.py keras
    .venv-benchmarks/bin/python scripts/benchmarks/text_against_transformers.py baseline
    python scripts/benchmarks/text_against_transformers.py summary

`baseline` runs in an environment of its own with torch, transformers and accelerate; it needs
nothing of tfsft. All sides fine-tune the starter minilm, with the same splits, epochs, batch size
and rate: AdamW, linear decay after a warm-up, weight decay without biases and norms. `keras` is
what the guides of KerasHub write: a shuffled tf.data.Dataset, their classifier with its own
preprocessor, which pads to --max-length, and a cosine for the linear decay. (Given lists instead,
its fit shuffles nothing, and these reviews are in the order of their labels.)
`scripts/benchmarks/run text` measures their time.

The reviews are in the source package vaderSentiment 3.3.2 (MIT) on PyPI: sentences from Rotten
Tomatoes collected by Pang and Lee, rated from -4 to 4 by twenty people (Hutto and Gilbert, 2014).
Those rated at least half a point from neutral are used, each text once; the sign is the label.
"""

import argparse
import csv
import hashlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

PACKAGE = "vaderSentiment==3.3.2"
SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
RATED = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
SPLITS = ("train", "validation", "test")


def main() -> None:
    """Does one of the five steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=["prepare", "ours", "keras", "baseline", "summary"])
    parser.add_argument("--folder", type=Path, default=Path("runs/reviews"), help="for all files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=128, help="tokens")
    parser.add_argument("--rows", type=int, default=8056, help="prepare: training rows")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--no-suspects", action="store_true", help="ours: no suspicious.csv")
    args = parser.parse_args()
    if args.step == "prepare":
        prepare(args.folder, args.rows)
    elif args.step == "summary":
        summary(args.folder)
    else:
        steps = {"ours": train_ours, "keras": train_keras, "baseline": train_baseline}
        train = steps[args.step]
        for seed in args.seeds:
            start = time.perf_counter()
            scores = train(args, seed)
            result = {
                "seed": seed,
                "learning_rate": args.learning_rate,
                "epochs": args.epochs,
                **scores,
                "seconds": round(time.perf_counter() - start, 1),
            }
            file = args.folder / f"{args.step}.json"
            earlier = json.loads(file.read_text()) if file.exists() else []
            file.write_text(json.dumps([*earlier, result], indent=1) + "\n")
            print(json.dumps({key: value for key, value in scores.items() if key != "by_epoch"}))


def prepare(folder: Path, most: int) -> None:
    """Makes reviews.csv, with columns text, label and split, and minilm/, the model's folder."""
    from sklearn.model_selection import train_test_split

    from tfsft.models.starters import starter_path

    rated: dict[str, float] = {}
    for line in rated_file().splitlines():
        _, rating, text = line.split("\t")
        rated.setdefault(" ".join(text.split()), float(rating))
    rows = [
        (text, "positive" if rating > 0 else "negative")
        for text, rating in rated.items()
        if abs(rating) >= 0.5
    ]
    label = [label for _, label in rows]
    train, held_out = train_test_split(
        range(len(rows)), test_size=0.2, random_state=0, stratify=label
    )
    validation, test = train_test_split(
        held_out, test_size=0.5, random_state=0, stratify=[label[row] for row in held_out]
    )
    train = train[:most]
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "reviews.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "split"])
        for split, chosen in zip(SPLITS, (train, validation, test), strict=True):
            writer.writerows((*rows[row], split) for row in sorted(chosen))
            print(f"{split:10} {len(chosen):5}")
    shutil.copytree(starter_path("minilm"), folder / "minilm", dirs_exist_ok=True)


def rated_file() -> str:
    """Returns the file with number, mean rating and text of every sentence; fetched by pip."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            folder,
        ]
        subprocess.run([*command, "--no-binary", ":all:", PACKAGE], check=True)
        content = next(Path(folder).glob("*.tar.gz")).read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        sys.exit(f"pip fetched another {PACKAGE} than the one that was measured")
    for member in (INNER, RATED):
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            content = archive.extractfile(member).read()
    return content.decode("utf-8")


def train_ours(args: argparse.Namespace, seed: int) -> dict:
    """Fine-tunes by the recipe, on the command line as a person would."""
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        run = Path(folder) / "run"
        command = ["tfsft", "run", "recipes/text_cls.py", "--backbone", "minilm"]
        command += ["--data", args.folder / "reviews.csv", "--epochs", args.epochs]
        command += ["--learning-rate", args.learning_rate, "--batch-size", args.batch_size]
        command += ["--max-length", args.max_length, "--seed", seed, "--run-dir", run]
        command += ["--precision", args.precision]
        command += ["--no-suspects"] * args.no_suspects
        subprocess.run([str(part) for part in command], check=True)
        metrics = json.loads((run / "metrics.json").read_text())
    scores = {f"{split}_accuracy": metrics[split]["accuracy"] for split in SPLITS[1:]}
    (speed,) = metrics["timing"]["learned_per_second"].values()
    return {**scores, "training_rows_per_second": round(speed, 1)}


def train_keras(args: argparse.Namespace, seed: int) -> dict:
    """Fine-tunes as the guides of KerasHub do."""
    import keras
    import keras_hub
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(args.precision)
    texts: dict[str, list[str]] = {split: [] for split in SPLITS}
    labels: dict[str, list[int]] = {split: [] for split in SPLITS}
    with open(args.folder / "reviews.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            texts[row["split"]].append(row["text"])
            labels[row["split"]].append(int(row["label"] == "positive"))
    data = {
        split: tf.data.Dataset.from_tensor_slices((texts[split], labels[split])) for split in SPLITS
    }
    data["train"] = data["train"].shuffle(len(texts["train"]), seed=seed)
    data = {split: rows.batch(args.batch_size) for split, rows in data.items()}
    preset = str(args.folder / "minilm")
    preprocessor = keras_hub.models.BertTextClassifierPreprocessor.from_preset(
        preset, sequence_length=args.max_length
    )
    model = keras_hub.models.BertTextClassifier.from_preset(
        preset, num_classes=2, preprocessor=preprocessor, activation="softmax"
    )
    steps = -(-len(texts["train"]) // args.batch_size) * args.epochs
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps, warmup_target=args.learning_rate, warmup_steps=round(0.1 * steps)
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=0.01, global_clipnorm=1.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "embedding"])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    start = time.perf_counter()
    model.fit(data["train"], epochs=args.epochs, validation_data=data["validation"], verbose=0)
    seconds = time.perf_counter() - start
    scores = {
        f"{split}_accuracy": model.evaluate(data[split], verbose=0)[1] for split in SPLITS[1:]
    }
    model.save(args.folder / "keras.keras")
    speed = len(texts["train"]) * args.epochs / seconds
    return {**scores, "training_rows_per_second": round(speed, 1)}


def train_baseline(args: argparse.Namespace, seed: int) -> dict:
    """Fine-tunes by the Trainer with its usual classifier, on padding by the batch."""
    import torch
    import transformers
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainingArguments

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))
    transformers.set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(args.folder / "minilm")
    model = AutoModelForSequenceClassification.from_pretrained(args.folder / "minilm", num_labels=2)

    examples: dict[str, list] = {split: [] for split in SPLITS}
    with open(args.folder / "reviews.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            tokens = tokenizer(row["text"], truncation=True, max_length=args.max_length)
            label = int(row["label"] == "positive")
            examples[row["split"]].append({**tokens, "labels": label})

    def accuracy(predicted: transformers.EvalPrediction) -> dict[str, float]:
        return {"accuracy": float((predicted.predictions.argmax(-1) == predicted.label_ids).mean())}

    with tempfile.TemporaryDirectory() as folder:
        trainer = transformers.Trainer(
            model,
            TrainingArguments(
                folder,
                num_train_epochs=args.epochs,
                learning_rate=args.learning_rate,
                per_device_train_batch_size=args.batch_size,
                per_device_eval_batch_size=128,
                weight_decay=0.01,
                lr_scheduler_type="linear",
                warmup_steps=0.1,
                eval_strategy="epoch",
                save_strategy="no",
                seed=seed,
                use_cpu=True,
                bf16=args.precision == "mixed_bfloat16",
                disable_tqdm=True,
                report_to="none",
            ),
            train_dataset=examples["train"],
            eval_dataset=examples["validation"],
            processing_class=tokenizer,
            compute_metrics=accuracy,
        )
        start = time.perf_counter()
        trainer.train()
        speed = len(examples["train"]) * args.epochs / (time.perf_counter() - start)
        by_epoch = [
            row["eval_accuracy"] for row in trainer.state.log_history if "eval_accuracy" in row
        ]
        test = trainer.evaluate(examples["test"])
        trainer.save_model(folder)
    return {
        "validation_accuracy": by_epoch[-1],
        "test_accuracy": test["eval_accuracy"],
        "training_rows_per_second": round(speed, 1),
        "by_epoch": by_epoch,
    }


def summary(folder: Path) -> None:
    """Prints mean accuracies over the seeds, for each rate."""
    for side in ("baseline", "ours"):
        file = folder / f"{side}.json"
        by_rate: dict[tuple, dict[int, dict]] = {}
        for run in json.loads(file.read_text()) if file.exists() else []:
            # Of runs with the same settings the last one counts.
            by_rate.setdefault((run["epochs"], run["learning_rate"]), {})[run["seed"]] = run
        for (epochs, rate), runs in sorted(by_rate.items()):
            print(f"{side:8} {epochs} epochs, rate {rate:g}, seeds {sorted(runs)}:", end="")
            for split in SPLITS[1:]:
                mean = statistics.mean(run[f"{split}_accuracy"] for run in runs.values())
                print(f" {split} {mean:.4f}", end="")
            print(f", {statistics.mean(run['seconds'] for run in runs.values()):.0f} s a run")


if __name__ == "__main__":
    main()
