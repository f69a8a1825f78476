"""Searching for good settings: many runs of a recipe, one after another. Needs no TensorFlow."""

from tfsft.search.search import Search
from tfsft.search.space import Dimension, read_space

__all__ = ["Dimension", "Search", "read_space"]
