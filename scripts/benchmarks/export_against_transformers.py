"""Whether transformers makes of exported runs what tfsft makes of them: logits and tokens.

    python scripts/benchmarks/export_against_transformers.py ours [--run RUN ...]
    HF/bin/python scripts/benchmarks/export_against_transformers.py theirs

`theirs` runs in an environment of its own, which tfsft never needs:

    python3 -m venv HF && HF/bin/pip install torch transformers jinja2

`ours` exports the given runs, or else tiny random models of every family that can be exported and
the starter smollm2 as it is, each by `--format hf`; and notes tokens and logits of a conversation.
`theirs` loads the folders and compares: the logits of the prompt, and `apply_chat_template` of the
prompt and of the whole conversation.

In float32 on a CPU, transformers 5.24.0 and torch 2.13.0: the largest difference of a logit is
6.1e-6 for the tiny models (logits up to 5) and 7.9e-5 for smollm2 (logits up to 45); all tokens are
equal.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who is Ada?"},
    {"role": "assistant", "content": "A poet's child."},
    {"role": "user", "content": "2 + 2?\n\nÜ  你 🎉"},
    {"role": "assistant", "content": "Four, and yes."},
]
SCALED = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_type": "llama3",
}


def main() -> None:
    """Does one of the two sides."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("side", choices=["ours", "theirs"])
    parser.add_argument("--folder", type=Path, default=Path("runs/export"), help="for all files")
    parser.add_argument("--run", type=Path, action="append", help="a finished run of chat_sft")
    args = parser.parse_args()
    if args.side == "ours":
        ours(args.folder, args.run)
    else:
        theirs(args.folder)


def ours(folder: Path, runs: list[Path] | None) -> None:
    """Exports runs, and writes down what tfsft makes of the conversation."""
    from tfsft.export import export_language_model, load_predictor

    for run in runs or make_runs(folder / "runs"):
        out = folder / run.name
        if not out.exists():
            export_language_model(run, out / "hf", "hf")
        predictor = load_predictor(run)
        prompt = predictor.encoder.prompt(CHAT[:-1])
        ((whole, _),) = predictor.encoder.tokens([CHAT])
        batch = np.array([prompt], np.int32)
        inputs = {"token_ids": batch, "padding_mask": np.ones_like(batch)}
        logits = np.asarray(predictor.model(inputs))[0]
        np.savez(
            out / "ours.npz",
            prompt=prompt,
            whole=whole,
            logits=logits,
            stop=predictor.encoder.stop,
        )
        print(f"{run.name}: {len(prompt)} tokens of prompt, {len(whole)} in all")


def make_runs(folder: Path) -> list[Path]:
    """Makes runs without training: tiny models, and the starter."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "tools"))
    from chat_families import tiny_causal_lm
    from chat_runs import write_chat_run

    runs = []
    for family in ["llama", "mistral", "qwen2", "qwen3", "gpt2", "gemma", "gemma2", "gemma3_text"]:
        model = tiny_causal_lm(folder / "models" / family, family)
        runs.append(write_chat_run(folder / family, model))
    for family in ("gemma", "mistral"):  # with a tokenizer of SentencePiece
        model = tiny_causal_lm(folder / "models" / f"{family}-pieces", family, pieces=True)
        runs.append(write_chat_run(folder / f"{family}-pieces", model))
    scaled = tiny_causal_lm(folder / "models" / "llama3")
    config = json.loads((scaled / "config.json").read_text()) | {"rope_scaling": SCALED}
    (scaled / "config.json").write_text(json.dumps(config))
    runs.append(write_chat_run(folder / "llama3", scaled))
    for template in ("plain", "gemma"):  # with what tfsft puts around a template
        model = folder / "models" / "qwen2"
        runs.append(write_chat_run(folder / f"qwen2-{template}", model, template=template))
    return [*runs, write_chat_run(folder / "smollm2", "smollm2")]


def theirs(folder: Path) -> None:
    """Compares transformers with what was written down, and prints a line for each run."""
    import torch
    import transformers

    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    for path in sorted(folder.glob("*/ours.npz")):
        noted = np.load(path)
        model = transformers.AutoModelForCausalLM.from_pretrained(path.parent / "hf")
        tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent / "hf")
        prompt, whole = (
            tokenizer.apply_chat_template(
                chat, add_generation_prompt=chat is not CHAT, return_dict=True
            )["input_ids"]
            for chat in (CHAT[:-1], CHAT)
        )
        with torch.no_grad():
            logits = model(torch.tensor(noted["prompt"].tolist())[None]).logits[0].numpy()
        stop = model.generation_config.eos_token_id
        print(
            f"{path.parent.name}: {type(model).__name__}, {model.dtype}; logits differ by "
            f"{np.abs(logits - noted['logits']).max():.2g} at most, of {np.abs(logits).max():.3g}; "
            f"tokens of the prompt are {equal(prompt, noted['prompt'])}, "
            f"of the conversation {equal(whole, noted['whole'])}; stop tokens "
            f"{equal([stop] if isinstance(stop, int) else stop, noted['stop'])}"
        )


def equal(a: list[int], b: np.ndarray) -> str:
    """Says whether two rows of tokens are equal."""
    return "equal" if list(a) == b.tolist() else "DIFFERENT"


if __name__ == "__main__":
    main()
