"""What `chat_sft` does for the starter smollm2: small talk, and a persona of fifty made-up facts.

    python scripts/benchmarks/assistant.py small-talk
    python scripts/benchmarks/assistant.py persona

`small-talk` trains 200 updates on the default data with general conversations mixed in, and prints
the perplexity and chrF of held-out conversations before and after, with the interval of the rise,
what became of the retained conversations, and the figures of time and memory.

`persona` teaches fifty facts that nobody can know, each in four wordings, and counts how many of
the answers to a fifth wording, which training has not seen, hold the fact: before and after.
"""

import argparse
import csv
import json
import subprocess
import tempfile
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
    args, args.option = parser.parse_known_args()  # others go to the recipe, of small-talk
    args.folder.mkdir(parents=True, exist_ok=True)
    run = Path(tempfile.mkdtemp(dir=args.folder, prefix=f"{args.work}-")) / "run"
    command = ["tfsft", "run", "recipes/chat_sft.py", "--backbone", "smollm2", "--lora-rank", "8"]
    command += ["--seed", args.seed, "--precision", args.precision, "--run-dir", str(run)]
    {"small-talk": small_talk, "persona": persona}[args.work](command, run, args)


def small_talk(command: list[str], run: Path, args: argparse.Namespace) -> None:
    """Trains on the default data and prints what has changed."""
    options = ["--max-steps", "200", "--epochs", "2", "--replay", "general-replay"]
    options += ["--lora-targets", "all", "--learning-rate", "1e-3"]
    # Answers to small talk differ a lot: many are needed to tell a rise from luck.
    options += ["--test-fraction", "0.3", "--answers", "0", "--monitor", "chrf"]
    train(command, *options, *args.option)
    metrics = json.loads((run / "metrics.json").read_text())
    before, after = metrics["before"]["test"], metrics["test"]
    for name in ("perplexity", "token_accuracy", "chrf"):
        print(f"{name:15} {before[name]:8.3f} before {after[name]:8.3f} after")
    change, retained = metrics["change"], metrics["retained"]
    print(f"chrF rises by {change['chrf']:.2f}, 95% {change['chrf_low']:.2f} to", end=" ")
    print(f"{change['chrf_high']:.2f}")
    share = retained["after"]["perplexity"] / retained["before"]["perplexity"] - 1
    print(f"perplexity of the retained conversations {share:+.2%}")
    print(json.dumps(metrics["timing"]))


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
    train(command, "--data", str(data), "--retain", "", *options)
    known = json.loads((run / "config.json").read_text())["before"]["answers"]
    with open(run / "predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    answers = {
        "before": [(row["label"], known[row["id"]]) for row in rows],
        "after": [(row["label"], row["prediction"]) for row in rows],
    }
    for when, pairs in answers.items():
        right = sum(
            fact.lower() in answer.lower()
            for label, answer in pairs
            for fact in [label.split(" is ", 1)[1].rstrip(".")]
        )
        print(f"{right} of {len(pairs)} facts are told {when} training")


def train(command: list[str], *options: str) -> None:
    """Runs the recipe as a person would."""
    subprocess.run([*command, *options], check=True)


if __name__ == "__main__":
    main()
