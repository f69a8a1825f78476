"""What a run says where nobody watches a terminal."""

import io

from tfsft.training import console
from tfsft.training.console import Console


def test_long_work_says_a_line_now_and_then_with_the_time_left(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    screen = io.StringIO()
    with Console(tmp_path / "log.txt", screen).bar("head 1/3", "steps") as update:
        for done in range(101, 201):  # a run that goes on after 100 steps
            now[0] += 2.0
            update(done, 200, lambda: "· loss 0.5 ·")
    lines = screen.getvalue().splitlines()
    assert lines == [
        "head 1/3: 130 of 200 steps · loss 0.5 · 2 min 20 s left",
        "head 1/3: 160 of 200 steps · loss 0.5 · 1 min 20 s left",
        "head 1/3: 190 of 200 steps · loss 0.5 · 20 s left",
    ]
    assert [line.split("  ", 1)[1] for line in (tmp_path / "log.txt").read_text().splitlines()] == (
        lines
    )


def test_short_work_says_nothing(monkeypatch):
    screen = io.StringIO()
    report = Console(None, screen).quiet_reporter("Looking", "examples")
    for done in range(1, 11):
        report(done, 10)
    assert screen.getvalue() == ""
