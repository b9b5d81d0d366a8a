"""Ladders: many sizes at many budgets, each a run of its own, for the fits of `comparison.scaling`."""
