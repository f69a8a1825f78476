"""From a person's labelled pictures and texts to batches: sources, splits, plan, pipeline."""

from tfsft.data.augment import Augmenter, parse_names
from tfsft.data.image_feed import ImageFeed
from tfsft.data.images import decode_image, resize
from tfsft.data.inspection import Inspection, inspect_images
from tfsft.data.labels import class_weights
from tfsft.data.loading import load_images
from tfsft.data.pipeline import Pipeline
from tfsft.data.plan import BatchPlan
from tfsft.data.samples import suggest_image_size, thumbnails
from tfsft.data.sources import ImageSource
from tfsft.data.splits import BadExample, Splits
from tfsft.data.text_loading import load_texts
from tfsft.data.text_source import TextSource

__all__ = [
    "Augmenter",
    "BadExample",
    "BatchPlan",
    "ImageFeed",
    "ImageSource",
    "Inspection",
    "Pipeline",
    "Splits",
    "TextSource",
    "class_weights",
    "decode_image",
    "inspect_images",
    "load_images",
    "load_texts",
    "parse_names",
    "resize",
    "suggest_image_size",
    "thumbnails",
]
