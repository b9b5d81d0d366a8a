"""The small corpus and models of the training tests."""

from tests.training.conftest import corpus, dataset, make_settings, make_spec

__all__ = ["corpus", "dataset", "make_settings", "make_spec"]
