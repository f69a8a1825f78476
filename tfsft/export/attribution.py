"""What an output owes to each part of an input: integrated gradients, and Grad-CAM."""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

GAP = 0.05  # of the difference of outputs, that the parts may be away from it
TOLERANCE = 0.02  # what is aimed at
SPREAD = 0.2  # that the errors of the parts may come to before they cancel each other
ENOUGH = 48  # places after which `GAP` will do: in half precision more of them may not help
SMALLEST = 1e-3  # a smaller difference of outputs counts as this much
MOST = 1200  # places on the path
INTERVALS = 4
AT_ONCE = 4  # parts that are halved together
SHORTEST = 1e-5  # part of the way
RULE = (1 / 6, 4 / 6, 1 / 6)  # Simpson's: weights of places at equal distances, over a part

Score = Callable[..., tf.Tensor]


@dataclass(frozen=True)
class Attribution:
    """What each place of an input adds to an output.

    Args:
        values: Like the input without its last axis, over whose numbers they are summed up; their
            sum is `output - baseline` but for `gap`.
        output: For the input.
        baseline: For what it is compared with.
        places: How often the gradient was computed.
    """

    values: np.ndarray
    output: float
    baseline: float
    places: int

    @property
    def gap(self) -> float:
        """How far the sum is from the difference of outputs, as a share of that."""
        difference = self.output - self.baseline
        missing = abs(float(self.values.sum()) - difference)
        return missing / max(abs(difference), SMALLEST)


class Slopes:
    """An output and its slopes on the way between two inputs; compiled once for all of them.

    Args:
        score: From inputs `[k, ...]` and the tensors `given` to outputs `[k]`.
        shape: Of an input, with None where inputs differ.
        given: What else `score` takes.
    """

    def __init__(self, score: Score, shape: Sequence[int | None], *given: tf.TensorSpec):
        ends = [tf.TensorSpec(shape, tf.float32)] * 2

        @tf.function(input_signature=[*ends, tf.TensorSpec([None], tf.float32), *given])
        def look(
            start: tf.Tensor, point: tf.Tensor, shares: tf.Tensor, *others: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            x = start + tf.reshape(shares, [-1, *[1] * len(shape)]) * (point - start)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x)
                y = score(x, *others)
            slopes = tape.gradient(y, x) * (point - start)
            return tf.cast(y, tf.float32), tf.reduce_sum(slopes, axis=-1)

        self._look = look

    def compile(self) -> None:
        """Does now what the first call would have to do."""
        specs = self._look.input_signature
        # TensorFlow traces when it is asked to, and optimises when the graph is first run.
        self._look(*(tf.zeros([2 if n is None else n for n in x.shape], x.dtype) for x in specs))

    def __call__(
        self, start: tf.Tensor, point: tf.Tensor, shares: Sequence[float], *given: tf.Tensor
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns outputs `[k]` at shares of the way, and what they gain there by each place of the
        input, `[k, ...]` without the last axis, for the whole way.
        """
        outputs, gains = self._look(start, point, tf.constant(shares, tf.float32), *given)
        return outputs.numpy().astype(np.float64), gains.numpy()


def integrated_gradients(
    slopes: Slopes,
    point: np.ndarray,
    start: np.ndarray,
    *given: tf.Tensor,
    batch: int = 16,
    tolerance: float = TOLERANCE,
    most: int = MOST,
    until: float = math.inf,
) -> Attribution:
    """Integrates gradients along the straight way from `start` to `point` (Sundararajan 2017).

    The integral over each part of the way is known: it is what the output gains there. So the parts
    where Simpson's rule is furthest from it are halved, until their errors add up to no more than
    `tolerance` of the whole difference, and to no more than `SPREAD` without signs; or, after
    `ENOUGH` places, to `GAP`. All places that were looked at go on to be used.

    Args:
        slopes: Of the output.
        point: The input, without a batch dimension.
        start: What it is compared with.
        *given: What else the output depends on.
        batch: Inputs at a time.
        tolerance: Share of the difference of outputs that may be missing.
        most: Places after which it ends all the same.
        until: And when, in seconds of `time.monotonic`.
    """
    path = _Path(slopes, point, start, given, batch)
    ends = np.linspace(0, 1, INTERVALS + 1).tolist()
    parts = path.parts(list(itertools.pairwise(ends)))
    output, baseline = path.outputs[1.0], path.outputs[0.0]
    whole = max(abs(output - baseline), SMALLEST)
    while _too_wrong([part.error / whole for part in parts], tolerance, path.places):
        parts.sort(key=lambda part: -abs(part.error))
        if time.monotonic() > until:
            break
        room = (most - path.places) // (len(RULE) - 1)
        largest = abs(parts[0].error)
        worst = [p for p in parts[: min(AT_ONCE, room)] if abs(p.error) > largest / 4]
        if not worst or parts[0].end - parts[0].begin < SHORTEST:
            break  # no more places; or a step, which no halving resolves
        middles = [(part.begin + part.end) / 2 for part in worst]
        halves = [(p.begin, m) for p, m in zip(worst, middles, strict=True)]
        halves += [(m, p.end) for p, m in zip(worst, middles, strict=True)]
        parts = parts[len(worst) :] + path.parts(halves)
    values = sum(path.gain(part.begin, part.end) for part in parts)
    return Attribution(values, output, baseline, path.places)


def grad_cam(score: Score, features: tf.Tensor) -> np.ndarray | None:
    """Returns where features speak for an output (Selvaraju 2017), 0 to 1, `[height, width]`.

    Args:
        score: From features `[1, ...]` to an output `[1]`.
        features: `[1, height, width, channels]`, or of a transformer `[1, tokens, channels]`, whose
            tokens in front of the square of patches stand for no place.

    Returns:
        None where nothing speaks for it, or the tokens form no square.
    """
    features = tf.convert_to_tensor(features)
    with tf.GradientTape() as tape:
        tape.watch(features)
        output = score(features)
    gradient = tape.gradient(output, features)
    if gradient is None:
        return None
    maps, slopes = (tf.cast(x, tf.float32).numpy()[0] for x in (features, gradient))
    if maps.ndim == 2:
        side = math.isqrt(len(maps))
        if side < 2 or len(maps) - side**2 > 8:
            return None
        maps, slopes = (x[-(side**2) :].reshape(side, side, -1) for x in (maps, slopes))
    heat = np.maximum((maps * slopes.mean(axis=(0, 1))).sum(axis=-1), 0)
    return heat / heat.max() if heat.max() > 0 else None


def _too_wrong(errors: Sequence[float], tolerance: float, places: int) -> bool:
    if places >= ENOUGH:
        return abs(sum(errors)) > max(tolerance, GAP)
    return abs(sum(errors)) > tolerance or sum(map(abs, errors)) > SPREAD


@dataclass(frozen=True)
class _Part:
    """Part of a way: from where to where, and how wrong what is known of it is."""

    begin: float
    end: float
    error: float


class _Path:
    """The straight way between two inputs, see `integrated_gradients`.

    `outputs` are known where it was looked at, by the share of the way.
    """

    def __init__(
        self,
        slopes: Slopes,
        point: np.ndarray,
        start: np.ndarray,
        given: Sequence[tf.Tensor],
        batch: int,
    ):
        self.batch = batch
        self.outputs: dict[float, float] = {}
        self._gains: dict[float, np.ndarray] = {}
        ends = (tf.constant(x, tf.float32) for x in (start, point))
        self._slopes, self._ends, self._given = slopes, tuple(ends), given

    @property
    def places(self) -> int:
        """How often it was looked at."""
        return len(self.outputs)

    def parts(self, spans: Sequence[tuple[float, float]]) -> list[_Part]:
        """Returns the parts between these ends."""
        wanted = dict.fromkeys(x for span in spans for x in _between(*span))
        self._look([x for x in wanted if x not in self.outputs])
        return [_Part(a, b, self._error(a, b)) for a, b in spans]

    def gain(self, begin: float, end: float) -> np.ndarray:
        """Returns what the output gains in a part by each place of the input."""
        gains = (self._gains[x].astype(np.float64) for x in _between(begin, end))
        mean = sum(weight * gain for weight, gain in zip(RULE, gains, strict=True))
        return (end - begin) * mean

    def _error(self, begin: float, end: float) -> float:
        gained = self.outputs[end] - self.outputs[begin]
        return float(self.gain(begin, end).sum()) - gained

    def _look(self, shares: Sequence[float]) -> None:
        for i in range(0, len(shares), self.batch):
            some = shares[i : i + self.batch]
            outputs, gains = self._slopes(*self._ends, some, *self._given)
            self.outputs.update(zip(some, outputs.tolist(), strict=True))
            self._gains.update(zip(some, gains, strict=True))


def _between(begin: float, end: float) -> list[float]:
    """Returns the places of `RULE` in a part."""
    steps = len(RULE) - 1
    return [begin + (end - begin) * i / steps for i in range(steps + 1)]
