"""From a person's labelled pictures and texts to batches: sources, splits, plan, pipeline."""

from tfsft.data.augment import Augmenter, parse_names
from tfsft.data.chat_encoding import ChatEncoder
from tfsft.data.chat_formats import REWRITING
from tfsft.data.chat_inspection import ChatInspection, inspect_chats
from tfsft.data.chat_prompts import fill_prompt, placeholders, read_prompt
from tfsft.data.chat_templates import TEMPLATES, choose_template, make_template
from tfsft.data.chats import load_chats, read_chats, read_questions
from tfsft.data.encoding import QuestionEncoder, TagEncoder, TextEncoder
from tfsft.data.image_feed import ImageFeed
from tfsft.data.images import decode_image, resize
from tfsft.data.inspection import Inspection, inspect_images
from tfsft.data.labels import class_weights
from tfsft.data.length_plan import LengthPlan
from tfsft.data.loading import load_images
from tfsft.data.pipeline import Pipeline
from tfsft.data.plain_texts import PlainTexts, read_text
from tfsft.data.plan import BatchPlan
from tfsft.data.questions import load_questions
from tfsft.data.replay import apart, called_wrong, mix_in, with_old
from tfsft.data.samples import suggest_image_size, thumbnails
from tfsft.data.seq2seq_encoding import Seq2SeqEncoder
from tfsft.data.seq2seq_feed import Seq2SeqFeed
from tfsft.data.sources import ImageSource
from tfsft.data.splits import BadExample, Splits
from tfsft.data.tagged import load_tags
from tfsft.data.text_feed import TextFeed, chat_feed, describe_tokens, shared_start, token_facts
from tfsft.data.text_inspection import TextInspection, inspect, inspect_texts
from tfsft.data.text_loading import load_texts
from tfsft.data.text_source import TextSource
from tfsft.data.words import split_words

__all__ = [
    "REWRITING",
    "TEMPLATES",
    "Augmenter",
    "BadExample",
    "BatchPlan",
    "ChatEncoder",
    "ChatInspection",
    "ImageFeed",
    "ImageSource",
    "Inspection",
    "LengthPlan",
    "Pipeline",
    "PlainTexts",
    "QuestionEncoder",
    "Seq2SeqEncoder",
    "Seq2SeqFeed",
    "Splits",
    "TagEncoder",
    "TextEncoder",
    "TextFeed",
    "TextInspection",
    "TextSource",
    "apart",
    "called_wrong",
    "chat_feed",
    "choose_template",
    "class_weights",
    "decode_image",
    "describe_tokens",
    "fill_prompt",
    "inspect",
    "inspect_chats",
    "inspect_images",
    "inspect_texts",
    "load_chats",
    "load_images",
    "load_questions",
    "load_tags",
    "load_texts",
    "make_template",
    "mix_in",
    "parse_names",
    "placeholders",
    "read_chats",
    "read_prompt",
    "read_questions",
    "read_text",
    "resize",
    "shared_start",
    "split_words",
    "suggest_image_size",
    "thumbnails",
    "token_facts",
    "with_old",
]
