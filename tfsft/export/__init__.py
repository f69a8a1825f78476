"""What a finished run is used for."""

from tfsft.export.image_predictor import ImagePredictor, find_pictures
from tfsft.export.predictor import Predictor, load_predictor
from tfsft.export.saved_model import Exported, export_saved_model
from tfsft.export.text_predictors import AnswerFinder, Tagger, TextClassifier

__all__ = [
    "AnswerFinder",
    "Exported",
    "ImagePredictor",
    "Predictor",
    "Tagger",
    "TextClassifier",
    "export_saved_model",
    "find_pictures",
    "load_predictor",
]
