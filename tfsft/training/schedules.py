"""Learning rates over the course of a training: Keras's schedules, one of our own, and a warm-up
before any of them.
"""

import keras
from keras.optimizers.schedules import (
    CosineDecay,
    ExponentialDecay,
    LearningRateSchedule,
    PolynomialDecay,
)

SCHEDULES = ("constant", "linear", "cosine", "step", "exponential", "inverse_time")


class InverseTime(LearningRateSchedule):
    """Decays as `a(t) = a0 * (1 / (1 + b t)) ** (1 / w)`, the Robbins-Monro form with a free power.

    Args:
        learning_rate: a0, the rate at the start.
        rate: b, how fast it falls.
        power: w; 1 is the plain inverse, 2 the inverse square root.
        unit: Updates in one unit of t.
    """

    def __init__(self, learning_rate: float, rate: float, power: float = 1.0, unit: int = 1):
        self.learning_rate = learning_rate
        self.rate = rate
        self.power = power
        self.unit = unit

    def __call__(self, step):  # noqa: ANN001, D102
        t = keras.ops.cast(step, "float32") / self.unit
        return self.learning_rate * (1.0 / (1.0 + self.rate * t)) ** (1.0 / self.power)

    def get_config(self) -> dict:
        """Returns the arguments."""
        return {
            "learning_rate": self.learning_rate,
            "rate": self.rate,
            "power": self.power,
            "unit": self.unit,
        }


class Warmup(LearningRateSchedule):
    """Rises linearly to the first rate of another schedule over `steps` updates, then follows it.

    Args:
        schedule: What comes after the warm-up, counted from its end.
        steps: Updates until the full rate; update number `steps` (from 1) has it.
    """

    def __init__(self, schedule: LearningRateSchedule | float, steps: int):
        self.schedule = schedule
        self.steps = steps

    def __call__(self, step):  # noqa: ANN001, D102
        step = keras.ops.cast(step, "float32")
        rising = (step + 1.0) / self.steps
        after = keras.ops.maximum(step - self.steps, 0.0)
        rate = self.schedule(after) if callable(self.schedule) else self.schedule
        return rate * keras.ops.minimum(rising, 1.0)

    def get_config(self) -> dict:
        """Returns the arguments."""
        return {"schedule": self.schedule, "steps": self.steps}


def make_schedule(
    name: str,
    learning_rate: float,
    total_steps: int,
    *,
    warmup_steps: int = 0,
    decay_factor: float = 0.1,
    decay_every: int = 1,
    decay_rate: float = 1.0,
    decay_power: float = 1.0,
) -> LearningRateSchedule | float:
    """Returns a learning rate, or a schedule of it, for `total_steps` updates.

    Args:
        name: One of `SCHEDULES`.
        learning_rate: The highest rate.
        total_steps: Updates of the whole phase; linear and cosine reach zero there.
        warmup_steps: Updates of linear rise before the schedule.
        decay_factor: step, exponential: what the rate is multiplied with every `decay_every`
            updates; exponential does so gradually.
        decay_every: step, exponential: see there; inverse_time: updates in one unit of t.
        decay_rate: inverse_time: b.
        decay_power: inverse_time: w.
    """
    rest = max(total_steps - warmup_steps, 1)
    schedule = {
        "constant": lambda: learning_rate,
        "linear": lambda: PolynomialDecay(learning_rate, rest, end_learning_rate=0.0),
        "cosine": lambda: CosineDecay(learning_rate, rest),
        "step": lambda: ExponentialDecay(learning_rate, decay_every, decay_factor, staircase=True),
        "exponential": lambda: ExponentialDecay(learning_rate, decay_every, decay_factor),
        "inverse_time": lambda: InverseTime(learning_rate, decay_rate, decay_power, decay_every),
    }[name]()
    return Warmup(schedule, warmup_steps) if warmup_steps > 0 else schedule
