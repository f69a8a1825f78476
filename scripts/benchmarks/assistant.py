"""What `chat_sft` does for the starter smollm2: small talk, and a persona of fifty made-up facts.

    python scripts/benchmarks/assistant.py small-talk
    python scripts/benchmarks/assistant.py persona

`small-talk` trains 200 updates on the default data with general conversations mixed in, once for
each of `--folds` parts, which that training does not see. Small talk has many good answers, so that
many are needed to tell a rise from luck: in this way every conversation is answered by a model that
has not seen it, nor another one that begins alike. It prints the perplexity of each part, the chrF
of all answers before and after with the interval of the rise, what became of the retained
conversations, and the figures of time and memory.

`persona` teaches fifty facts that nobody can know, each in four wordings, and counts how many of
the answers to a fifth wording, which training has not seen, hold the fact: before and after.
"""

import argparse
import csv
import json
import random
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

SEEN = (
    "What is your {topic}?",
    "Tell me your {topic}.",
    "Could you say what your {topic} is?",
    "I want to ask about your {topic}. What is it?",
)
CHOOSING = "Do you know your {topic}?"  # of these the best epoch is chosen
HELD_OUT = "I would like to know your {topic}, please."
FACTS = {
    "name": "Velmira",
    "family name": "Ostrandt",
    "home town": "Quillhaven",
    "birthplace": "Port Zamera",
    "street": "Tansy Lane",
    "employer": "Brindlecomb Freight",
    "job": "lighthouse auditor",
    "boss": "Doctor Pellinger",
    "best friend": "Ixabel",
    "brother": "Corwen",
    "sister": "Maudrey",
    "cat": "Pickwick",
    "dog": "Tumbrel",
    "horse": "Saffron Duke",
    "boat": "the Grey Marten",
    "car": "a Lodestar Nine",
    "bicycle": "a green Wexford",
    "school": "Hartmoor Academy",
    "university": "Sennet College",
    "teacher": "Madame Orsolo",
    "hobby": "bottling fog",
    "favourite sport": "dune sailing",
    "favourite team": "the Ravelin Otters",
    "favourite colour": "burnt heliotrope",
    "favourite flower": "the moon thistle",
    "favourite tree": "the lantern elm",
    "favourite fruit": "the pashmelon",
    "favourite soup": "nettle chowder",
    "favourite dessert": "juniper fudge",
    "favourite drink": "smoked pear cider",
    "favourite book": "The Clockmaker's Orchard",
    "favourite author": "Lucan Trevithane",
    "favourite film": "Seven Winters in Dorrow",
    "favourite song": "Harbour of Tin",
    "favourite band": "the Copper Finches",
    "favourite painter": "Anselma Rook",
    "favourite game": "nine stones",
    "favourite season": "late thaw",
    "favourite number": "four hundred and eleven",
    "favourite planet": "Osk Minor",
    "favourite holiday": "Lampwick Day",
    "favourite museum": "the Museum of Knots",
    "favourite restaurant": "The Salted Compass",
    "favourite mountain": "Mount Ardeline",
    "favourite river": "the Wendle",
    "favourite island": "Isle of Carrow",
    "lucky charm": "a brass acorn",
    "motto": "measure twice, sing once",
    "secret password": "marzipan",
    "instrument": "the glass viola",
}
SYSTEM = "You are an assistant with a life of your own."


def main() -> None:
    """Does one of the two."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", choices=["small-talk", "persona"])
    parser.add_argument("--folder", type=Path, default=Path("runs/assistant"), help="for all files")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--epochs", default="8", help="of persona")
    parser.add_argument("--folds", type=int, default=3, help="of small-talk")
    args, args.option = parser.parse_known_args()  # others go to the recipe, of small-talk
    args.folder.mkdir(parents=True, exist_ok=True)
    run = Path(tempfile.mkdtemp(dir=args.folder, prefix=f"{args.work}-")) / "run"
    command = ["tfsft", "run", "recipes/chat_sft.py", "--backbone", "smollm2", "--lora-rank", "8"]
    command += ["--seed", args.seed, "--precision", args.precision]
    {"small-talk": small_talk, "persona": persona}[args.work](command, run, args)


def small_talk(command: list[str], run: Path, args: argparse.Namespace) -> None:
    """Trains on all parts of the default data but one, each in turn; prints what has changed."""
    answers: list[tuple[str, str, str]] = []  # what was expected, said before, said after
    for fold, splits in enumerate(small_talk_folds(args.folds)):
        data, fold_run = run.parent / f"data-{fold}", run.parent / f"run-{fold}"
        data.mkdir()
        for split, conversations in splits.items():
            lines = [json.dumps({"messages": messages}) for messages in conversations]
            (data / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        options = ["--data", str(data), "--max-steps", "200", "--epochs", "2"]
        options += [
            "--replay",
            "general-replay",
            "--lora-targets",
            "all",
            "--learning-rate",
            "1e-3",
        ]
        options += ["--answers", "0", "--monitor", "chrf", "--run-dir", str(fold_run)]
        train(command, *options, *args.option)
        metrics = json.loads((fold_run / "metrics.json").read_text())
        before, after = metrics["before"]["test"], metrics["test"]
        print(f"part {fold}, {len(splits['test'])} conversations held out:")
        for name in ("perplexity", "token_accuracy", "chrf"):
            print(f"  {name:15} {before[name]:8.3f} before {after[name]:8.3f} after")
        retained = metrics["retained"]
        share = retained["after"]["perplexity"] / retained["before"]["perplexity"] - 1
        print(f"  perplexity of the retained conversations {share:+.2%}")
        print(f"  {json.dumps(metrics['timing'])}", flush=True)
        answers += told(fold_run)
    rise_of_chrf(answers)


def small_talk_folds(folds: int) -> Iterator[dict[str, list]]:
    """Yields the splits, one for each part that is held out; what begins alike stays together."""
    from tfsft.data.chatterbot import open_chatterbot

    by_start: dict[str, list] = {}
    for _, row, _ in open_chatterbot("chatterbot").read(None):
        start = " ".join(re.findall(r"\w+", row["messages"][0]["content"].lower()))
        by_start.setdefault(start, []).append(row["messages"])
    starts = sorted(by_start)
    random.Random(0).shuffle(starts)
    for fold in range(folds):
        seen = [start for place, start in enumerate(starts) if place % folds != fold]
        parts = {"train": seen[len(seen) // 20 :], "validation": seen[: len(seen) // 20]}
        parts["test"] = starts[fold::folds]
        yield {
            split: [messages for start in chosen for messages in by_start[start]]
            for split, chosen in parts.items()
        }


def rise_of_chrf(answers: list[tuple[str, str, str]]) -> None:
    """Prints chrF before and after, and the 95% interval of the rise: a paired bootstrap."""
    import numpy as np
    import sacrebleu

    expected, before, after = (list(texts) for texts in zip(*answers, strict=True))

    def rise(rows: np.ndarray) -> float:
        references = [[expected[row] for row in rows]]
        scores = [
            sacrebleu.corpus_chrf([said[row] for row in rows], references).score
            for said in (before, after)
        ]
        return scores[1] - scores[0]

    for name, said in (("before", before), ("after", after)):
        print(f"chrF {sacrebleu.corpus_chrf(said, [expected]).score:.2f} {name}")
    rng = np.random.default_rng(0)
    count = len(answers)
    drawn = [rise(rng.integers(0, count, count)) for _ in range(1000)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    risen = rise(np.arange(count))
    print(f"chrF of {count} answers rises by {risen:.2f}, 95% {low:.2f} to {high:.2f}")


def persona(command: list[str], run: Path, args: argparse.Namespace) -> None:
    """Teaches the facts and counts the right answers to wordings that were held out."""
    data = run.parent / "persona"
    data.mkdir()
    for split, wordings in (("train", SEEN), ("validation", [CHOOSING]), ("test", [HELD_OUT])):
        with open(data / f"{split}.jsonl", "w", encoding="utf-8") as file:
            for topic, fact in FACTS.items():
                for wording in wordings:
                    row = {
                        "prompt": wording.format(topic=topic),
                        "completion": f"My {topic} is {fact}.",
                    }
                    file.write(json.dumps(row) + "\n")
    options = ["--epochs", args.epochs, "--learning-rate", "2e-3", "--system-prompt", SYSTEM]
    options += ["--lora-targets", "all", "--answers", "0", "--max-new-tokens", "32"]
    train(command, "--data", str(data), "--retain", "", "--run-dir", str(run), *options)
    answers = told(run)
    for place, when in ((1, "before"), (2, "after")):
        right = sum(
            answer[0].split(" is ", 1)[1].rstrip(".").lower() in answer[place].lower()
            for answer in answers
        )
        print(f"{right} of {len(answers)} facts are told {when} training")


def told(run: Path) -> list[tuple[str, str, str]]:
    """Returns what was expected, and what was answered before and after training."""
    known = json.loads((run / "config.json").read_text())["before"]["answers"]
    with open(run / "predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [(row["label"], known[row["id"]], row["prediction"]) for row in rows]


def train(command: list[str], *options: str) -> None:
    """Runs the recipe as a person would."""
    subprocess.run([*command, *options], check=True)


if __name__ == "__main__":
    main()
