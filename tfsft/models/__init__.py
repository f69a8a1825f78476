"""Pretrained backbones by name, starter weights, freezing, and splitting at the frozen part."""

from tfsft.models.backbones import ImageBackbone, load_image_backbone, resolve
from tfsft.models.causal_lms import CausalLM, load_causal_lm
from tfsft.models.chat_tokenizer import ChatTokenizer
from tfsft.models.freezing import Counts, count_parameters, stages, unfreeze, weight_depths
from tfsft.models.generation import Generated, Generator, Session
from tfsft.models.hugging_face_format import save_hugging_face
from tfsft.models.hugging_face_seq2seq import save_hugging_face_seq2seq
from tfsft.models.keras_format import save_preset
from tfsft.models.loading import load_model
from tfsft.models.lora import add_lora, lora_off, merge_lora, parse_targets
from tfsft.models.packing import allow_packing
from tfsft.models.peft_format import load_adapter, save_adapter
from tfsft.models.seq2seq_generation import Seq2SeqGenerator
from tfsft.models.seq2seq_lms import Seq2SeqLM, load_seq2seq_lm
from tfsft.models.splitting import (
    cut_at_features,
    cut_at_pixels,
    cut_at_states,
    cut_at_tokens,
    from_resized,
    pools,
    split_frozen,
    with_features,
)
from tfsft.models.starters import starter_path
from tfsft.models.text_backbones import TextBackbone, load_text_backbone
from tfsft.models.token_loss import with_token_loss
from tfsft.models.tokenizers import TextTokenizer, load_tokenizer

__all__ = [
    "CausalLM",
    "ChatTokenizer",
    "Counts",
    "Generated",
    "Generator",
    "ImageBackbone",
    "Seq2SeqGenerator",
    "Seq2SeqLM",
    "Session",
    "TextBackbone",
    "TextTokenizer",
    "add_lora",
    "allow_packing",
    "count_parameters",
    "cut_at_features",
    "cut_at_pixels",
    "cut_at_states",
    "cut_at_tokens",
    "from_resized",
    "load_adapter",
    "load_causal_lm",
    "load_image_backbone",
    "load_model",
    "load_seq2seq_lm",
    "load_text_backbone",
    "load_tokenizer",
    "lora_off",
    "merge_lora",
    "parse_targets",
    "pools",
    "resolve",
    "save_adapter",
    "save_hugging_face",
    "save_hugging_face_seq2seq",
    "save_preset",
    "split_frozen",
    "stages",
    "starter_path",
    "unfreeze",
    "weight_depths",
    "with_features",
    "with_token_loss",
]
