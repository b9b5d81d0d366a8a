"""What transformers' models call things, which its releases have renamed."""

import inspect
from typing import Any


def cache_name(model: Any) -> str:
    """The argument, and the output, that holds what decoding carries: `cache` since 5.24."""
    known = inspect.signature(model.forward).parameters
    return next(name for name in ("cache", "past_key_values", "cache_params") if name in known)
