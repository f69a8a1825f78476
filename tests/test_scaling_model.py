"""The model of docs/scaling.md, by hand."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "benchmarks" / "scaling.py"


@pytest.mark.parametrize(
    ("workers", "microseconds", "expected"),
    [
        (1, 50, 0.5),  # nothing is sent
        # 100 MB over 8 Gbit/s, which are 1 GB/s, take 0.1 s. Of two workers each sends one half
        # and then the half it has summed: 100 MB; of four 6 quarters: 150 MB; of many almost 200.
        (2, 0, 0.6),
        (4, 0, 0.65),
        (1000, 0, 0.6998),
        (4, 1000, 0.656),  # and 6 messages of a millisecond
    ],
)
def test_ring(workers, microseconds, expected):
    step_seconds = runpy.run_path(str(SCRIPT))["step_seconds"]
    found = step_seconds(0.5, 100, workers, gigabits=8, microseconds=microseconds)
    assert found == pytest.approx(expected)
