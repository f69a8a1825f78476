"""Recipes: one file per task, installed as tfsft.recipes."""
