"""Retrieval: facts put into long texts, which a model is asked for. Items follow from (task, split, seed, index)."""
