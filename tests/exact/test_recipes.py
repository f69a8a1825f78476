"""Runs of every recipe, killed in training, in a write, in validation and at their end."""

import json
import random

import pytest
from killed import kill_and_compare
from run_folders import differences_beyond_rounding

pytestmark = pytest.mark.slow

WORDS = ["the", "a", "one", "what", "was", "and", "over", "under", "few", "word", "lazy"]
TEXTS = {"batch-size": 8, "epochs": 3, "max-length": 32}
ENCODER = TEXTS | {"backbone-dropout": 0.1, "accumulate": 2, "schedule": "cosine"}


def sentence(draw):
    return [draw.choice(WORDS) for _ in range(draw.randint(2, 14))]


def text_cls(folder, draw):
    lines = [
        " ".join([*sentence(draw), draw.choice(words)]) + f",{label}"
        for _ in range(40)
        for label, words in (("animals", ["fox", "dog"]), ("weather", ["sun", "short"]))
    ]
    (folder / "texts.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    more = {"ema": 0.9, "patience": 2, "class-weight": "balanced", "unfreeze": "auto"}
    return ENCODER | more | {"data": folder / "texts.csv", "backbone": encoder(folder)}


def token_cls(folder, draw):
    blocks = []
    for _ in range(80):
        before, after = sentence(draw), sentence(draw)
        words = [*before, "quick", "fox", *after]
        tags = ["O"] * len(before) + ["B-ANI", "I-ANI"] + ["O"] * len(after)
        blocks.append("\n".join(f"{w}\t{t}" for w, t in zip(words, tags, strict=True)))
    (folder / "animals.conll").write_text("\n\n".join(blocks) + "\n")
    given = {"data": folder / "animals.conll", "backbone": encoder(folder), "stride": 8}
    return ENCODER | given


def extractive_qa(folder, draw):
    paragraphs = []
    for i in range(60):
        before = " ".join(sentence(draw))
        answer = {"text": "fox", "answer_start": len(before) + 1}
        question = {"id": str(i), "question": "what was it?", "answers": [answer]}
        paragraphs.append({"context": f"{before} fox", "qas": [question]})
    content = {"version": "v2.0", "data": [{"paragraphs": paragraphs}]}
    (folder / "questions.json").write_text(json.dumps(content))
    given = {"data": folder / "questions.json", "backbone": encoder(folder), "max-length": 64}
    return ENCODER | given | {"stride": 9}


def chat_sft(folder, draw):
    from chat_families import tiny_causal_lm

    with open(folder / "chats.jsonl", "w") as file:
        for i in range(40):
            messages = [
                {"role": "user", "content": " ".join(sentence(draw))},
                {"role": "assistant", "content": f"It is number {i}."},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")
    (folder / "llama").mkdir()
    lora = {"lora-rank": 4, "dropout": 0.1, "answers": 3, "max-new-tokens": 6, "accumulate": 2}
    backbone = tiny_causal_lm(folder / "llama")
    return {"data": folder / "chats.jsonl", "backbone": backbone, "batch-size": 4,
            "epochs": 3} | lora  # fmt: skip


def seq2seq(folder, draw):
    from seq2seq_families import WORDS, tiny_bart

    rows = [f"{a} {b} {a},{a}\n" for a in WORDS for b in WORDS if a != b]
    (folder / "pairs.csv").write_text("document,summary\n" + "".join(rows))
    (folder / "bart").mkdir()
    given = {"data": folder / "pairs.csv", "backbone": tiny_bart(folder / "bart"), "answers": 0}
    return given | {"epochs": 2, "max-length": 32, "max-target-length": 16, "max-new-tokens": 8}


def encoder(folder):
    import text_families

    (folder / "bert").mkdir()
    text_families.save_tiny("bert", folder / "bert", num_layers=2)
    return folder / "bert"


@pytest.mark.parametrize("make", [text_cls, token_cls, extractive_qa, chat_sft, seq2seq])
def test_killed_four_times(tmp_path, make):
    draw = random.Random(make.__name__)
    given = make(tmp_path, draw)
    options = [str(word) for name, value in given.items() for word in (f"--{name}", value)]
    moments = [
        ("step", draw.randint(2, 6), draw.uniform(0, 0.05)),
        ("write", draw.randint(1, 4), draw.random()),
        ("validation", 1, 0),
        ("evaluation", 1, draw.random()),
    ]
    kill_and_compare(tmp_path, make.__name__, options, moments)


def test_killed_on_two_replicas(tmp_path):
    draw = random.Random(5)
    given = text_cls(tmp_path, draw) | {"strategy": "mirrored", "devices": "cpu:0,cpu:1"}
    options = [str(word) for name, value in given.items() for word in (f"--{name}", value)]
    moments = [("step", 3, 0.02), ("write", 2, 0.5), ("validation", 1, 0)]
    kill_and_compare(tmp_path, "text_cls", options, moments, differences_beyond_rounding)
