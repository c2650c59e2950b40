"""Recipes: whole experiments, those that made the embedded models, and what others published, as functions."""
