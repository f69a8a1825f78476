"""What a finished run is used for."""

from tfsft.export.image_predictor import ImagePredictor, find_pictures
from tfsft.export.predictor import Predictor, load_predictor
from tfsft.export.text_predictors import AnswerFinder, Tagger, TextClassifier

__all__ = [
    "AnswerFinder",
    "ImagePredictor",
    "Predictor",
    "Tagger",
    "TextClassifier",
    "find_pictures",
    "load_predictor",
]
