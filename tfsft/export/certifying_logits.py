"""Whether an export of a language model foresees held-out texts as its run does."""

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfsft import data
from tfsft.errors import UserError
from tfsft.evaluation.wording import percent
from tfsft.export.certificate import (
    EXACT,
    Certificate,
    Side,
    check_seen,
    issue_certificate,
    worst_rows,
)
from tfsft.export.chat_predictor import WritingPredictor
from tfsft.export.portable_folder import write_portable
from tfsft.export.precision import compute_in_float32
from tfsft.export.replaying import replay, replay_keras

PYTHON = "TFSFT_TRANSFORMERS"  # the Python of an environment that has transformers
MOST = 100  # texts that are replayed: each of their tokens has the logits of a whole vocabulary


@dataclass(frozen=True)
class Foreseen:
    """What two models say of the tokens of one answer.

    Args:
        difference: The largest of a logit, in parts of the largest logit of the token beyond 1.
        same: Whether the most likely token is the same, bool `[tokens]`.
        losses: Of the right tokens, by the run and by the export, float64 `[2, tokens]`.
    """

    difference: float
    same: np.ndarray
    losses: np.ndarray


def certify_logits(
    predictor: WritingPredictor,
    source: Any,
    out: Path,
    *,
    format: str,
    tolerance: float | None = None,
    data: str | None = None,
) -> Certificate:
    """Replays held-out texts through the run and through an export of it, in float32.

    Compared are the logits of every token of the answers, each behind the right ones. A folder of
    Hugging Face is read by transformers if they are installed, here or where `PYTHON` says; else by
    tfsft.

    Args:
        predictor: Of the run; its model computes in float32 afterwards.
        source: The texts.
        out: The export, which gets the certificate.
        format: "keras" or "hf".
        tolerance, data: As for `certify`.

    Raises:
        UserError: The export does not answer as the run does.
    """
    compute_in_float32(predictor.model)
    feed = predictor.feed(source)
    rows = list(answer_tokens(feed))
    wholes = whole_tokens(predictor, feed.source)
    examples = [
        [inputs, places, whole] for (inputs, places, _), whole in zip(rows, wholes, strict=True)
    ]

    def take(place: int, theirs: np.ndarray) -> Foreseen:
        inputs, places, right = rows[place]
        return foreseen(logits(predictor.model, inputs)[places], theirs, right)

    runtime, python = _runtime(format)
    with tempfile.TemporaryDirectory(prefix="tfsft-logits-") as place:
        folder = Path(place)
        write_portable(predictor, folder, runtime)
        (folder / "model").symlink_to(out.absolute())
        exported = replay(folder, examples, runtime, take=take, python=python)
    plain = replay_keras(predictor, examples)
    apart = np.array([of.difference for of in exported.outputs])
    check_seen(predictor.run, feed.source.ids, apart)
    losses = np.concatenate([of.losses for of in exported.outputs], axis=1).mean(axis=1)
    ours, theirs = np.exp(losses).tolist()
    said = [
        [f"perplexity {np.exp(of.losses[side].mean()):.4g}" for of in exported.outputs]
        for side in (0, 1)
    ]
    certificate = Certificate(
        run=predictor.run.resolve().name,
        format=format,
        quantize=None,
        data=data or "the run's own data",
        examples=len(rows),
        figure="perplexity",
        difference=float(apart.max()),
        agreement=float(np.mean(np.concatenate([of.same for of in exported.outputs]))),
        tolerance=EXACT if tolerance is None else tolerance,
        keras=Side.of(ours, predictor.run / "model.keras", plain),
        exported=Side.of(theirs, out, exported),
        worst=worst_rows(feed.source.ids, *said, apart),
        tokens=None if exported.tokens is None else float(np.mean(exported.tokens)),
    )
    issue_certificate(certificate, out)
    return certificate


def check_provable() -> None:
    """Raises a UserError if there are no transformers to read a folder with."""
    if _runtime("hf")[0] == "tfsft":
        raise UserError(
            "transformers and torch are not installed here, and nothing else reads a T5 from a "
            "folder of Hugging Face.",
            "An export is compared with its run.",
            f"Install them elsewhere and name that Python by {PYTHON}; or use --format keras.",
        )


def noted(certificate: Certificate) -> list[str]:
    """Returns what a person should know of how an export was read."""
    notes = []
    if certificate.exported.runtime.startswith("tfsft"):
        notes.append(
            "transformers and torch are not installed here, so tfsft itself has read the folder. "
            f"{PYTHON} may name the Python of an environment that has them."
        )
    if certificate.tokens not in (None, 1.0):
        notes.append(
            f"There the tokenizer makes other tokens of {percent(1 - certificate.tokens)} of the "
            "texts; compared were the logits of the run's tokens."
        )
    return notes


def answer_tokens(feed: data.TextFeed) -> Iterator[tuple[dict[str, list[int]], list[int], list]]:
    """Yields the inputs of a model, by name, for each text; the places of those tokens behind which
    one of an answer follows; and what follows.
    """
    table = feed.table
    for row in range(len(table)):
        length = int(table.lengths[row])
        ids, targets = (
            table.padded(name, np.array([row]), length, -1)[0] for name in ("token_ids", "targets")
        )
        parts = {"": ids}
        if isinstance(feed, data.Seq2SeqFeed):
            second = int(table.rows["second"][row])
            parts = {"encoder_": ids[:second], "decoder_": ids[second:]}
            targets = targets[second:]
        places = np.flatnonzero(targets >= 0)
        yield named_inputs(parts), places.tolist(), targets[places].tolist()


def named_inputs(parts: Mapping[str, Iterable[int]]) -> dict[str, list[int]]:
    """Returns the inputs of a model for one row, by name.

    Args:
        parts: Its tokens, by what the names of their inputs begin with: "", or "encoder_" and
            "decoder_".
    """
    inputs = {}
    for part, tokens in parts.items():
        ids = [int(token) for token in tokens]
        inputs |= {f"{part}token_ids": ids, f"{part}padding_mask": [1] * len(ids)}
    return inputs


def whole_tokens(predictor: WritingPredictor, source: Any) -> list[Any]:
    """Returns what the export's own tokenizer is given for each text, and what should come."""
    encoder, conversations = predictor.encoder, source.column("messages")
    if isinstance(encoder, data.Seq2SeqEncoder):
        return [_whole_pair(encoder, messages) for messages in conversations]
    wholes = [tokens.tolist() for tokens, _ in encoder.tokens(conversations)]
    return [list(pair) for pair in zip(conversations, wholes, strict=True)]


def _whole_pair(encoder: data.Seq2SeqEncoder, messages: Sequence[dict[str, str]]) -> list[Any]:
    texts = [encoder.text(messages[:-1]), messages[-1]["content"]]
    tokens = [encoder.tokenizer.encode([text])[0].tolist() for text in texts]
    return [texts, [[*encoder.start, *ids, *encoder.stop] for ids in tokens]]


def logits(model: keras.Model, inputs: dict[str, list[int]]) -> np.ndarray:
    """Returns the logits `[tokens, vocabulary]` of one row."""
    batch = {name: np.array([row], np.int32) for name, row in inputs.items()}
    found = model(batch, training=False)
    return np.asarray(keras.ops.convert_to_numpy(found)[0], np.float32)


def foreseen(ours: np.ndarray, theirs: np.ndarray, right: Sequence[int]) -> Foreseen:
    """Compares logits `[tokens, vocabulary]` of two models; `right` are the tokens that come."""
    if ours.shape != theirs.shape:
        return Foreseen(np.inf, np.zeros(len(right), bool), np.full([2, len(right)], np.nan))
    # All logits of a token are as exact as its largest one.
    scale = np.maximum(1.0, np.abs(ours).max(axis=1, keepdims=True))
    difference = float((np.abs(ours - theirs) / scale).max())
    losses = [_losses(of.astype(np.float64), right) for of in (ours, theirs)]
    return Foreseen(difference, ours.argmax(axis=1) == theirs.argmax(axis=1), np.array(losses))


def _losses(logits: np.ndarray, right: Sequence[int]) -> np.ndarray:
    most = logits.max(axis=1)
    whole = most + np.log(np.exp(logits - most[:, None]).sum(axis=1))
    return whole - logits[np.arange(len(right)), right]


def _runtime(format: str) -> tuple[str, str]:
    """Returns what reads an export, and the Python that does."""
    if format == "keras":
        return "preset", sys.executable
    named = os.environ.get(PYTHON)
    if named:
        if shutil.which(named) is None:
            raise UserError(
                f"{PYTHON} is {named}, which is no program.",
                "The Python of an environment that has transformers and torch.",
                f"Correct it, or unset {PYTHON}.",
            )
        return "transformers", named
    needed = ("transformers", "torch")
    installed = all(importlib.util.find_spec(name) is not None for name in needed)
    return "transformers" if installed else "tfsft", sys.executable
