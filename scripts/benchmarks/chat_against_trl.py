"""LoRA of SmolLM2-135M on the same conversations, by tfsft and by TRL's SFTTrainer.

    python scripts/benchmarks/chat_against_trl.py prepare
    python scripts/benchmarks/chat_against_trl.py ours
    .venv-benchmarks/bin/python scripts/benchmarks/chat_against_trl.py trl --packing

800 questions of chatterbot-corpus with their answers, each seen once in batches of 8 (of tfsft, 8
on average): about 100 updates, fewer with packing. Rank 8 on query and value, the loss on the
answers alone, no gradient checkpointing. Trained tokens a second count all updates, with what
tracing and compiling there is, and no validation; seconds are those of the whole command.
`scripts/benchmarks/run chat` measures both.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROWS = 800
HELD_OUT = 64
BATCH = 8


def main() -> None:
    """Does one step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=["prepare", "ours", "trl"])
    parser.add_argument("--folder", type=Path, default=Path("runs/chat"))
    parser.add_argument("--precision", default="auto", help="mixed_bfloat16 or float32")
    parser.add_argument("--packing", action="store_true")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    args = parser.parse_args()
    figures = {"prepare": prepare, "ours": ours, "trl": with_trl}[args.step](args)
    if figures:
        print(json.dumps(figures))


def prepare(args: argparse.Namespace) -> None:
    """Writes train.jsonl and validation.jsonl, the model's folder, and how many tokens train."""
    import random

    from tokenizers import Tokenizer

    from tfsft.data.chatterbot import open_chatterbot
    from tfsft.models.starters import starter_path

    pairs = [
        [message["content"] for message in row["messages"][:2]]
        for _, row, _ in open_chatterbot("chatterbot").read(None)
    ]
    random.Random(0).shuffle(pairs)
    args.folder.mkdir(parents=True, exist_ok=True)
    for split, rows in (("train", pairs[:ROWS]), ("validation", pairs[ROWS:][:HELD_OUT])):
        with open(args.folder / f"{split}.jsonl", "w", encoding="utf-8") as file:
            for prompt, answer in rows:
                file.write(json.dumps({"prompt": prompt, "completion": answer}) + "\n")
    shutil.copytree(starter_path("smollm2"), args.folder / "smollm2", dirs_exist_ok=True)
    tokenizer = Tokenizer.from_file(str(args.folder / "smollm2" / "tokenizer.json"))
    # The answer and the token that ends it.
    trained = sum(len(tokenizer.encode(answer).ids) + 1 for _, answer in pairs[:ROWS])
    (args.folder / "trained.json").write_text(json.dumps(trained))


def ours(args: argparse.Namespace) -> dict:
    """Fine-tunes by the recipe, on the command line as a person would."""
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        run = Path(folder) / "run"
        data = Path(folder) / "data"
        data.mkdir()
        for split in ("train", "validation"):
            shutil.copy(args.folder / f"{split}.jsonl", data)
        command = ["tfsft", "run", "recipes/chat_sft.py", "--backbone", "smollm2"]
        command += ["--data", data, "--epochs", 1, "--batch-size", BATCH, "--retain", ""]
        command += ["--lora-rank", 8, "--lora-targets", "query,value", "--answers", 1]
        command += ["--max-new-tokens", 1, "--learning-rate", args.learning_rate]
        command += ["--precision", args.precision, "--run-dir", run]
        subprocess.run([str(word) for word in command], check=True)
        metrics = json.loads((run / "metrics.json").read_text())
    timing = metrics["timing"]
    return {
        "validation_perplexity": metrics["validation"]["perplexity"],
        "trained_tokens_per_second": trained(args) / timing["update_seconds"]["finetune"],
        "once_warm": timing["learned_per_second"]["finetune"],
    }


def trained(args: argparse.Namespace) -> int:
    """Returns how many tokens are trained in one pass."""
    return json.loads((args.folder / "trained.json").read_text())


def with_trl(args: argparse.Namespace) -> dict:
    """Fine-tunes by SFTTrainer."""
    import torch
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))
    bf16 = args.precision == "mixed_bfloat16"
    files = {split: str(args.folder / f"{split}.jsonl") for split in ("train", "validation")}
    rows = load_dataset("json", data_files=files, cache_dir=str(args.folder / "datasets"))

    def as_turns(row: dict) -> dict:
        return {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "completion": [{"role": "assistant", "content": row["completion"]}],
        }

    rows = rows.map(as_turns)
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            AutoModelForCausalLM.from_pretrained(args.folder / "smollm2"),
            SFTConfig(
                folder,
                num_train_epochs=1,
                learning_rate=args.learning_rate,
                per_device_train_batch_size=1 if args.packing else BATCH,
                packing=args.packing,
                max_length=512,
                completion_only_loss=True,
                gradient_checkpointing=False,
                lr_scheduler_type="cosine",
                warmup_steps=0.05,
                bf16=bf16,
                use_cpu=True,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                seed=0,
            ),
            train_dataset=rows["train"],
            processing_class=AutoTokenizer.from_pretrained(args.folder / "smollm2"),
            peft_config=LoraConfig(
                r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
            ),
        )
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
        trainer.save_model(folder)
        perplexity = perplexity_of(trainer.model, trainer.processing_class, rows["validation"])
    return {
        "validation_perplexity": perplexity,
        "trained_tokens_per_second": trained(args) / seconds,
    }


def perplexity_of(model: Any, tokenizer: Any, rows: Iterable[dict]) -> float:
    """Returns the perplexity of the tokens that tfsft counts: an answer's, and the end of turn.

    TRL's own loss counts the line break behind these, too, which is always the same and lowers it.
    """
    import math

    import torch

    model.eval()
    surprise = count = 0
    for row in rows:
        prompt = tokenizer.apply_chat_template(
            row["prompt"], add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )["input_ids"]
        answer = row["completion"][0]["content"]
        answer = tokenizer(answer + tokenizer.eos_token, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            logits = model(input_ids=torch.cat([prompt, answer], 1)).logits[0].float()
        guesses = logits[prompt.shape[1] - 1 : -1]
        surprise += torch.nn.functional.cross_entropy(guesses, answer[0], reduction="sum").item()
        count += answer.shape[1]
    return math.exp(surprise / count)


if __name__ == "__main__":
    main()
