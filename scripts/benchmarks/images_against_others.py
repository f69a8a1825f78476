"""Fine-tunes ResNet50 with random weights as tfsft, the guides of Keras, and torch do.

    python scripts/benchmarks/images_against_others.py prepare head
    python scripts/benchmarks/images_against_others.py ours head
    python scripts/benchmarks/images_against_others.py keras head
    .venv-benchmarks/bin/python scripts/benchmarks/images_against_others.py torch head
    .venv-benchmarks/bin/python scripts/benchmarks/images_against_others.py cached head

`head` trains a head on the frozen network, `full` everything. Batches of 32, Adam, one model at the
end. The pictures are stripes of five directions in noise, as JPEG, with a tenth of them held out.
`scripts/benchmarks/run image-head image-full` measures their time.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np

CLASSES = 5
BATCH = 32
SIZE = 224


def main() -> None:
    """Does one step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=["prepare", "ours", "keras", "torch", "cached"])
    parser.add_argument("what", choices=["head", "full"])
    parser.add_argument("--folder", type=Path, default=Path("runs/stripes"))
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--precision", default=None, help="mixed_bfloat16 or float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-suspects", action="store_true", help="ours: no suspicious.csv")
    args = parser.parse_args()
    steps = {"prepare": prepare, "ours": ours, "keras": with_keras}
    figures = steps.get(args.step, with_torch)(args)
    if figures:
        print(json.dumps(figures))


def prepare(args: argparse.Namespace) -> None:
    """Writes train/ and validation/ with a folder for each class."""
    from PIL import Image

    rng = np.random.default_rng(0)
    y, x = np.mgrid[: SIZE + 32, : SIZE + 32]
    for split, count in (("train", args.pictures), ("validation", args.pictures // 10)):
        for number in range(count):
            label = number % CLASSES
            angle = np.pi * label / CLASSES + rng.normal(0, 0.05)
            wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) / rng.uniform(2, 4))
            picture = 128 + 60 * wave[..., None] * rng.uniform(0.3, 1, 3)
            picture = picture + rng.normal(0, 25, picture.shape)
            folder = args.folder / split / f"direction{label}"
            folder.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(picture.clip(0, 255).astype("uint8"))
            image.save(folder / f"{number}.jpg", quality=90)


def ours(args: argparse.Namespace) -> dict:
    """Fine-tunes by the recipe, on the command line as a person would."""
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        run = Path(folder) / "run"
        command = ["tfsft", "run", "recipes/image_cls.py", "--backbone", "resnet50:random"]
        command += ["--data", args.folder, "--epochs", args.epochs, "--image-size", SIZE]
        command += ["--batch-size", BATCH, "--patience", 0, "--run-dir", run]
        command += ["--precision", args.precision or "auto"]
        command += ["--no-suspects"] * args.no_suspects
        if args.what == "head":
            command += ["--unfreeze", "none", "--learning-rate", "1e-3"]
        else:
            command += ["--unfreeze", "all", "--head-epochs", 0]
            command += ["--unfrozen-learning-rate", "1e-4"]
        subprocess.run([str(word) for word in command], check=True)
        metrics = json.loads((run / "metrics.json").read_text())
    return {"validation_accuracy": metrics["validation"]["accuracy"]}


def with_keras(args: argparse.Namespace) -> dict:
    """The script of Keras's guide to transfer learning, with a hidden layer in its head."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    if args.precision:
        keras.config.set_dtype_policy(args.precision)
    options = {"image_size": (SIZE, SIZE), "batch_size": BATCH, "verbose": False}
    train = keras.utils.image_dataset_from_directory(args.folder / "train", seed=0, **options)
    held_out = keras.utils.image_dataset_from_directory(args.folder / "validation", **options)
    base = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(SIZE, SIZE, 3))
    base.trainable = args.what == "full"
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.applications.resnet50.preprocess_input(inputs)
    x = base(x, training=False)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(256, activation="relu")(x)
    x = layers.Dropout(0.2)(x)
    outputs = layers.Dense(CLASSES, activation="softmax", dtype="float32")(x)
    model = keras.Model(inputs, outputs)
    rate = 1e-3 if args.what == "head" else 1e-4
    optimizer = keras.optimizers.Adam(rate)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(train.prefetch(2), validation_data=held_out, epochs=args.epochs, verbose=0)
    accuracy = model.evaluate(held_out, verbose=0)[1]
    model.save(args.folder / "keras.keras")
    return {"validation_accuracy": accuracy}


def with_torch(args: argparse.Namespace) -> dict:
    """The usual loop of torch: channels last, the frozen part in eval mode, without gradients."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset
    from torchvision import datasets, models, transforms

    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    as_tensor = transforms.Compose(
        [
            transforms.Resize((SIZE, SIZE)),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    loaders = {
        split: DataLoader(
            datasets.ImageFolder(args.folder / split, as_tensor),
            BATCH,
            shuffle=split == "train",
            num_workers=2,
            persistent_workers=True,
        )
        for split in ("train", "validation")
    }
    trunk = models.resnet50(weights=None)
    trunk.fc = torch.nn.Identity()
    trunk = trunk.to(memory_format=torch.channels_last).eval()  # batch norm as it was pretrained
    head = torch.nn.Sequential(torch.nn.Linear(2048, 256), torch.nn.ReLU(), torch.nn.Dropout(0.2))
    head.append(torch.nn.Linear(256, CLASSES))
    full = args.what == "full"
    trunk.requires_grad_(full)
    trained = [*head.parameters(), *(trunk.parameters() if full else ())]
    optimizer = torch.optim.Adam(trained, 1e-4 if full else 1e-3)
    bf16 = args.precision == "mixed_bfloat16"

    def features(pictures):  # noqa: ANN001
        with (
            torch.autocast("cpu", torch.bfloat16, enabled=bf16),
            torch.set_grad_enabled(full and torch.is_grad_enabled()),
        ):
            return trunk(pictures.to(memory_format=torch.channels_last)).float()

    if args.step == "cached":
        with torch.no_grad():
            for split, loader in loaders.items():
                batches = [(features(x), y) for x, y in loader]
                known = TensorDataset(*(torch.cat(parts) for parts in zip(*batches, strict=True)))
                loaders[split] = DataLoader(known, BATCH, shuffle=split == "train")

    def outputs(batch):  # noqa: ANN001
        return head(batch if args.step == "cached" else features(batch))

    def accuracy() -> float:
        head.eval()
        with torch.no_grad():
            right = [outputs(x).argmax(1) == y for x, y in loaders["validation"]]
        head.train()
        return float(torch.cat(right).float().mean())

    for _ in range(args.epochs):
        for x, y in loaders["train"]:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(outputs(x), y).backward()
            optimizer.step()
        scored = accuracy()
    torch.save({"trunk": trunk.state_dict(), "head": head.state_dict()}, args.folder / "torch.pt")
    return {"validation_accuracy": scored}


if __name__ == "__main__":
    main()
