"""Evaluation: questions put to a model, which nothing here trains or changes."""
