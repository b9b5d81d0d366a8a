"""Decoding with any model: sampling, text as it comes, speculation, and an engine for many requests at once."""
