"""Leaves what `tfsft run` leaves in its folder, in no time and without TensorFlow.

    fake_run.py run RECIPE [--x=VALUE] --run-dir FOLDER | --resume FOLDER

Three epochs with the loss x + 1 / epoch; what is wrong with a trial is told by FAKE_TROUBLE, a JSON
object from a value of x to `memory`, `nan`, `data`, `killed`, `slow` or `blind`.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

EPOCHS = 3


def main(words):
    given = dict(word.split("=") for word in words if word.startswith("--") and "=" in word)
    place = "--resume" if "--resume" in words else "--run-dir"
    folder = Path(words[words.index(place) + 1])
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    config = folder / "config.json"
    if place == "--resume":
        given = json.loads(config.read_text())["settings"]
    config.write_text(json.dumps({"format": 1, "settings": given, "monitor": "val_loss"}))
    with open(folder / "starts.txt", "a") as file:
        file.write(place + "\n")
    x = given.get("--x", "0")
    trouble = json.loads(os.environ.get("FAKE_TROUBLE", "{}")).get(x, "")
    if trouble in ("memory", "nan", "data"):
        said = {"memory": "Out of memory with --batch-size 8.", "nan": "The loss became nan.",
                "data": "flowers/ is not there."}[trouble]  # fmt: skip
        sys.exit(f"Error: {said}\nDo something about it.")
    if trouble == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    column = "loss" if trouble == "blind" else "val_loss"
    lines = [f"phase,epoch,{column}"]
    for epoch in range(1, EPOCHS + 1):
        lines.append(f"head,{epoch},{float(x) + 1 / epoch}")
        (folder / "history.csv").write_text("\n".join(lines) + "\n")
        if trouble == "slow" and place == "--run-dir" and epoch == 2:
            time.sleep(60)
        if epoch < EPOCHS:
            time.sleep(float(os.environ.get("FAKE_PAUSE", "0")))
    (folder / "report.html").write_text("")


if __name__ == "__main__":
    main(sys.argv[1:])
