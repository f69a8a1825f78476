"""The folder `model` in transformers and torch."""

from pathlib import Path

import torch
import transformers

name = f"transformers {transformers.__version__}, torch {torch.__version__}"
folder = str(Path(__file__).with_name("model"))
pairs = transformers.AutoConfig.from_pretrained(folder).is_encoder_decoder
kind = transformers.AutoModelForSeq2SeqLM if pairs else transformers.AutoModelForCausalLM
model = kind.from_pretrained(folder).float().eval()
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
NAMES = {"token_ids": "input_ids", "padding_mask": "attention_mask"}


def run(inputs):
    """Returns logits [n, tokens, vocabulary] for arrays [n, tokens] by the names of KerasHub."""
    given = {}
    for key, values in inputs.items():
        part, known = ("decoder_", key[8:]) if key.startswith("decoder_") else ("", key)
        given[part + NAMES[known.removeprefix("encoder_")]] = torch.tensor(values).long()
    with torch.inference_mode():
        return model(**given).logits.numpy()


def tokens(texts):
    """Returns the tokens of a conversation, or of an input and what should come of it."""
    if pairs:
        source, target = texts
        return [tokenizer(source)["input_ids"], tokenizer(text_target=target)["input_ids"]]
    text = tokenizer.apply_chat_template(texts, tokenize=False)
    return tokenizer(text, add_special_tokens=False)["input_ids"]
