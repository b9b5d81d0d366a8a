"""How long a text a model can be asked about."""

from typing import Any

import torch

from windtunnel.errors import InputError
from windtunnel.evaluation.subject import Subject
from windtunnel.root import Model


def longest_input(spec: Model) -> int | None:
    """Tokens that a model can address; None where there is no end, as with rotary positions or a recurrence."""
    if not spec.packs_documents:
        return spec.context
    with torch.device("meta"):
        positions: Any = spec.build().embedding.positions
    return None if positions is None else positions.length


def check_reach(subject: Subject, name: str, length: int, way_out: str) -> None:
    """Refuse a length over what the model can address."""
    limit = longest_input(subject.spec)
    if limit is not None and length > limit:
        raise InputError(
            f"{subject.folder}: its positions end at {limit:,}, and {name} asks for {length:,} tokens; {way_out}"
        )
