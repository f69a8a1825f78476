"""The folder `model` as `--backbone` reads it, where transformers are not installed."""

import json
from pathlib import Path

import tensorflow as tf

from tfsft import models

name = "tfsft's own reader, as transformers and torch are not installed"
folder = Path(__file__).with_name("model")
pairs = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("is_encoder_decoder")
load = models.load_seq2seq_lm if pairs else models.load_causal_lm
model = load(str(folder)).model
call = tf.function(lambda inputs: model(inputs, training=False), reduce_retracing=True)


def run(inputs):
    """Returns logits [n, tokens, vocabulary] for arrays [n, tokens] by their names."""
    return call(inputs).numpy()
