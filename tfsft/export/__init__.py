"""What a finished run is used for."""

from tfsft.export.earlier_run import EarlierRun
from tfsft.export.explaining import Explained, explain_run
from tfsft.export.exported import Exported
from tfsft.export.image_predictor import ImagePredictor, find_pictures
from tfsft.export.language_model import export_language_model
from tfsft.export.portable_model import export_portable
from tfsft.export.predictor import Predictor, load_predictor
from tfsft.export.saved_model import export_saved_model
from tfsft.export.text_predictors import AnswerFinder, Tagger, TextClassifier

__all__ = [
    "AnswerFinder",
    "EarlierRun",
    "Explained",
    "Exported",
    "ImagePredictor",
    "Predictor",
    "Tagger",
    "TextClassifier",
    "explain_run",
    "export_language_model",
    "export_portable",
    "export_saved_model",
    "find_pictures",
    "load_predictor",
]
