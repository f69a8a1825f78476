"""What a finished run is used for."""

from tfsft.export.predictor import ImagePredictor, find_pictures

__all__ = ["ImagePredictor", "find_pictures"]
