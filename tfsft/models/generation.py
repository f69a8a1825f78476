"""Answers of a causal language model: in batches, or token by token over many turns."""

import inspect
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfsft.errors import UsageError, UserError
from tfsft.models.alike import traced_once
from tfsft.models.sampling import chances, drawn, likeliest, penalised

FIRST_ROOM = 256  # tokens that a session's cache holds at first; it doubles

_shapes: weakref.WeakKeyDictionary[keras.Model, Any] = weakref.WeakKeyDictionary()  # of caches


@dataclass(frozen=True)
class Generated:
    """An answer.

    Args:
        ids: Its tokens, without the one that stopped it.
        stopped: Whether the model ended it, and not the limit.
        truncated: Whether the prompt lost its beginning to the limit of tokens.
    """

    ids: list[int]
    stopped: bool
    truncated: bool = False


@dataclass(frozen=True)
class _Sampling:
    """How tokens are chosen; the field's usual words."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self):
        for name, good, expected in (
            ("temperature", self.temperature >= 0, "0 or more; 0 takes the likeliest token"),
            ("top_k", self.top_k >= 0, "a whole number; 0 keeps all tokens"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("repetition_penalty", self.repetition_penalty > 0, "above 0; 1 changes nothing"),
        ):
            if not good:
                raise UsageError(
                    f"{name} is {getattr(self, name)}.", f"A number that is {expected}."
                )

    @property
    def kind(self) -> tuple[bool, bool]:
        """What decides the graph: whether tokens are drawn, and whether any are penalised."""
        return self.temperature > 0, self.repetition_penalty != 1

    @property
    def numbers(self) -> tuple[tf.Tensor, ...]:
        """What the graph is given."""
        return (
            tf.constant(self.temperature, "float32"),
            tf.constant(self.top_k, "int32"),
            tf.constant(self.top_p, "float32"),
            tf.constant(self.repetition_penalty, "float32"),
        )


class Generator:
    """Generates with the attention cache of KerasHub's language models.

    Weights may change between calls, and what is compiled goes on to be used. When layers change,
    make a new one: what is compiled holds those of then.

    Args:
        model: From `load_causal_lm`.
        stop: Tokens that end an answer.
        pad: A token to fill rows up with.
        max_length: Most tokens of prompt and answer together; None: any number.

    Raises:
        UserError: The family keeps its cache in a way that is not known here.
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        stop: Sequence[int],
        pad: int,
        max_length: int | None = None,
    ):
        self.model = model
        self.stop = tuple(stop)
        self.pad = pad
        self.max_length = max_length
        if model not in _shapes:
            _shapes[model] = _cache_shapes(model)
        self._shapes = _shapes[model]
        self._loops: dict[tuple[bool, bool], Callable] = {}
        self._choices: dict[tuple[bool, bool], Callable] = {}
        self._extend = tf.function(self._extended, autograph=False, reduce_retracing=True)

    def answer(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        batch_size: int = 16,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Generated]:
        """Answers prompts, those of alike lengths together.

        What is said to one prompt does not depend on the others.

        Args:
            prompts: Tokens of each; what leaves no room for an answer loses its beginning.
            max_new_tokens: Most tokens of an answer.
            temperature: 0 takes the likeliest token; higher ones draw more freely.
            top_k: Draws from so many of the likeliest tokens; 0 from all.
            top_p: Draws from the fewest tokens that are this likely together.
            repetition_penalty: Makes tokens that came before less likely; 1 does not.
            seed: Of what is drawn, with the place of the prompt.
            batch_size: Prompts at a time.
            progress: Called with (done, total) answers.

        Returns:
            The answers, in the order of the prompts.
        """
        sampling = _Sampling(temperature, top_k, top_p, repetition_penalty, seed)
        room = None if self.max_length is None else max(self.max_length - max_new_tokens, 1)
        kept = [list(prompt)[-room:] if room else list(prompt) for prompt in prompts]
        found: list[Generated | None] = [None] * len(kept)
        order = sorted(range(len(kept)), key=lambda place: len(kept[place]))
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            for place, (ids, stopped) in zip(
                places,
                self._answer_batch([kept[p] for p in places], places, max_new_tokens, sampling),
                strict=True,
            ):
                truncated = len(kept[place]) < len(prompts[place])
                found[place] = Generated(ids, stopped, truncated)
            if progress is not None:
                progress(start + len(places), len(order))
        return found

    def session(self) -> "Session":
        """Returns a conversation of many turns, of which every token is computed once."""
        return Session(self)

    def _answer_batch(
        self,
        prompts: list[list[int]],
        places: list[int],
        new: int,
        sampling: _Sampling,
    ) -> list[tuple[list[int], bool]]:
        lengths = np.array([len(prompt) for prompt in prompts], np.int32)
        tokens = np.full((len(prompts), int(lengths.max()) + new), self.pad, np.int32)
        for row, prompt in zip(tokens, prompts, strict=True):
            row[: len(prompt)] = prompt
        draws = np.stack([chances(sampling.seed, place, new) for place in places])
        if sampling.kind not in self._loops:
            self._loops[sampling.kind] = self._make_loop(*sampling.kind)
        loop = self._loops[sampling.kind]
        ends = loop(tokens, lengths, lengths + new, draws, *sampling.numbers)
        written, ends = (np.asarray(part) for part in ends)
        answers = []
        for row, length, end in zip(written, lengths, ends, strict=True):
            stopped = bool(end > length and row[end - 1] in self.stop)
            answers.append((row[length : end - stopped].tolist(), stopped))
        return answers

    def _make_loop(self, draws_tokens: bool, penalises: bool) -> Callable:
        @tf.function(
            autograph=False,
            input_signature=[
                tf.TensorSpec([None, None], "int32"),
                tf.TensorSpec([None], "int32"),
                tf.TensorSpec([None], "int32"),
                tf.TensorSpec([None, None], "float32"),
                tf.TensorSpec([], "float32"),
                tf.TensorSpec([], "int32"),
                tf.TensorSpec([], "float32"),
                tf.TensorSpec([], "float32"),
            ],
        )
        def loop(tokens, lengths, limits, draws, *numbers):  # noqa: ANN001
            batch, size = tf.unstack(tf.shape(tokens))
            places = tf.range(size)
            cache = self._empty_cache(batch, size)
            shortest = tf.reduce_min(lengths)
            # All but the last token of the shortest prompt; of longer ones the rest is forced.
            _, cache = self._call(tokens[:, : shortest - 1], cache, 0)

            def step(i, tokens, ends, done, cache):  # noqa: ANN001
                states, cache = self._call(tokens[:, i - 1 : i], cache, i - 1)
                logits = self._logits(states[:, -1])
                numbers_at = tf.clip_by_value(i - lengths, 0, tf.shape(draws)[1] - 1)
                chance = tf.gather(draws, numbers_at, batch_dims=1)
                seen = tf.where(places < i, tokens, -1)
                chosen = _choose(
                    logits, seen, chance, numbers, draws_tokens=draws_tokens, penalises=penalises
                )
                open_rows = (i >= lengths) & ~done
                written = tf.where(open_rows, chosen, tokens[:, i])
                tokens = tf.where(places == i, written[:, None], tokens)
                ends = tf.where(open_rows, i + 1, ends)
                stops = tf.reduce_any(chosen[:, None] == tf.constant(self.stop, "int32"), axis=1)
                done = done | (open_rows & stops) | (i + 1 >= limits)
                return i + 1, tokens, ends, done, cache

            _, tokens, ends, _, _ = tf.while_loop(
                lambda i, tokens, ends, done, cache: (i < size) & ~tf.reduce_all(done),
                step,
                (shortest, tokens, lengths, lengths >= limits, cache),
                parallel_iterations=1,
                shape_invariants=(
                    tf.TensorShape([]),
                    tf.TensorShape([None, None]),
                    tf.TensorShape([None]),
                    tf.TensorShape([None]),
                    tf.nest.map_structure(lambda t: tf.TensorShape([None] * t.shape.rank), cache),
                ),
            )
            return tokens, ends

        return loop

    def _extended(self, tokens, cache, index):  # noqa: ANN001
        """Returns the logits after some more tokens of one conversation, and the cache."""
        states, cache = self._call(tokens, cache, index)
        return self._logits(states[:, -1]), cache

    def _choice(self, kind: tuple[bool, bool]) -> Callable:
        if kind not in self._choices:
            draws, penalises = kind
            self._choices[kind] = tf.function(
                lambda logits, seen, chance, numbers: _choose(
                    logits, seen, chance, numbers, draws_tokens=draws, penalises=penalises
                ),
                autograph=False,
                reduce_retracing=True,
            )
        return self._choices[kind]

    def _call(self, tokens, cache, index):  # noqa: ANN001
        # Its logits are of every token, and dropped from the graph as nobody asks for them.
        with traced_once(self.model):
            _, states, cache = self.model.call_with_cache(tokens, cache, index)
        return states, cache

    def _logits(self, states: tf.Tensor) -> tf.Tensor:
        head = self.model.get_layer("backbone").token_embedding
        return tf.cast(head(states, reverse=True), "float32")

    def _empty_cache(self, batch: tf.Tensor | int, size: tf.Tensor | int) -> Any:
        def zeros(leaf: _Leaf) -> tf.Tensor:
            shape = list(leaf.shape)
            shape[0], shape[leaf.axis] = batch, size
            return tf.zeros(tf.stack(shape), leaf.dtype)

        return tf.nest.map_structure(zeros, self._shapes)


class Session:
    """One conversation: what the model has seen of it stays in the attention cache.

    `ids` are the tokens in the cache; `computed` counts all that were ever put through the model.
    """

    def __init__(self, generator: Generator):
        self._generator = generator
        self._room = 0
        self._cache: Any = None
        self.ids: list[int] = []
        self.computed = 0

    def stream(
        self,
        prompt: Sequence[int],
        *,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
    ) -> Iterator[int]:
        """Yields an answer token by token, without the one that ends it.

        Only what differs from the tokens seen so far is computed. An iterator that is left in the
        middle leaves the session as good as before.

        Args:
            prompt: The whole conversation so far, in tokens.
            max_new_tokens: Most tokens of the answer.
            temperature, top_k, top_p, repetition_penalty, seed: As for `Generator.answer`.

        Raises:
            UserError: The conversation has more tokens than the model has positions for.
        """
        generator = self._generator
        sampling = _Sampling(temperature, top_k, top_p, repetition_penalty, seed)
        tokens, limit = [int(token) for token in prompt], generator.max_length
        if limit is not None and len(tokens) >= limit:
            raise UserError(
                f"The conversation has {len(tokens):,} tokens.",
                f"The model sees at most {limit:,}, the answer included.",
                "Begin a new one.",
            )
        same = 0
        for known, token in zip(self.ids, tokens[:-1], strict=False):
            if known != token:
                break
            same += 1
        self.ids = self.ids[:same]
        choice, numbers = generator._choice(sampling.kind), sampling.numbers
        draws = chances(sampling.seed, 0, max_new_tokens)
        for draw in draws:
            logits = self._see(tokens[len(self.ids) :])
            token = int(choice(logits, tf.constant([tokens]), draw[None], numbers)[0])
            if token in generator.stop:
                return
            yield token
            tokens.append(token)
            if limit is not None and len(tokens) >= limit:
                return

    def _see(self, tokens: list[int]) -> tf.Tensor:
        """Puts tokens through the model; returns the logits after the last one."""
        start, need = len(self.ids), len(self.ids) + len(tokens)
        if need > self._room:
            room = max(FIRST_ROOM, 2 * self._room, need)
            grown = self._generator._empty_cache(1, room)
            if self._cache is not None:
                grown = tf.nest.map_structure(_kept, grown, self._cache, self._generator._shapes)
            self._cache, self._room = grown, room
        logits, self._cache = self._generator._extend(
            tf.constant([tokens], "int32"), self._cache, tf.constant(start)
        )
        self.ids = self.ids + tokens
        self.computed += len(tokens)
        return logits


@dataclass(frozen=True)
class _Leaf:
    """One tensor of a cache: its shape for one row, and which axis counts tokens."""

    shape: tuple[int, ...]
    axis: int
    dtype: str


def _kept(grown: tf.Tensor, before: tf.Tensor, leaf: _Leaf) -> tf.Tensor:
    padding = [[0, 0]] * len(leaf.shape)
    padding[leaf.axis] = [0, grown.shape[leaf.axis] - before.shape[leaf.axis]]
    return tf.pad(before, padding)


def _cache_shapes(model: keras.Model) -> Any:
    """Finds out what the family's cache looks like, by making two small ones."""

    def cache(size: int) -> Any:
        tokens = np.zeros((1, size), np.int32)
        names = list(inspect.signature(model._build_cache).parameters)[1:]
        options = {name: np.ones_like(tokens) if name == "padding_mask" else None for name in names}
        return model._build_cache(tokens, **options)[-1]

    try:
        leaves = tf.nest.map_structure(_leaf, cache(5), cache(7))
    except Exception as error:
        raise UserError(
            f"A {type(model).__name__} cannot be generated with here: {error}",
            "A language model of text alone that keeps an attention cache.",
            "Use another family, such as Llama, Gemma, Qwen, Mistral or GPT-2.",
        ) from error
    return leaves


def _leaf(small: tf.Tensor, large: tf.Tensor) -> _Leaf:
    (axis,) = (i for i, (a, b) in enumerate(zip(small.shape, large.shape, strict=True)) if a != b)
    return _Leaf(tuple(small.shape), axis, small.dtype.name)


def _choose(logits, seen, chance, numbers, *, draws_tokens, penalises):  # noqa: ANN001
    temperature, top_k, top_p, penalty = numbers
    if penalises:
        logits = penalised(logits, seen, penalty)
    if not draws_tokens:
        return likeliest(logits)
    return drawn(logits, chance, temperature, top_k, top_p)
