"""Rotary angles between query and key that training never showed: why rotary positions do not extrapolate.

A pair of frequency theta turns by theta a token. Within the trained context of T tokens it shows the angles from 0 to
below T theta, and all there are once that is a full turn; slow pairs never get so far (Chen et al. 2023, Peng et al.
2023 section 3). At a distance d the angle is d theta', theta' being the frequency after scaling.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from windtunnel.mixers import AttendingLayer
from windtunnel.model import Block
from windtunnel.positions import Rope
from windtunnel.root import Model
from windtunnel.spec import fields

_TURN = 2 * math.pi


def unseen_share(trained: Model, read: Model, context: int, length: int) -> float | None:
    """Share of (layer, pair, distance) whose angle was not seen; None without rotary positions.

    trained: the spec that was trained on `context` tokens. read: the same with other frequencies. Distances are those
    that the last of `length` tokens looks back over, its window apart.
    """
    shares = [
        _share(before, after, _sight(window, context), _sight(window, length))
        for (before, window), (after, _) in zip(_rotations(trained), _rotations(read), strict=True)
    ]
    return float(np.mean(shares)) if shares else None


def _share(before: NDArray[np.float64], after: NDArray[np.float64], seen: int, length: int) -> float:
    """Of pairs [r/2] and distances below `length`, those beyond the arcs that distances below `seen` show."""
    arcs = seen * before
    angles = np.arange(length)[:, None] * after % _TURN  # d r/2
    return float(((arcs < _TURN) & (angles >= arcs)).mean())


def _sight(window: int | None, length: int) -> int:
    return length if window is None else min(window, length)


def _rotations(spec: Model) -> list[tuple[NDArray[np.float64], int | None]]:
    """Frequencies and window of each layer that rotates."""
    found = []
    for block in spec.layers:
        if not isinstance(block, Block):
            continue
        for rope in (value for _, value in fields(block.mixer.core) if isinstance(value, Rope)):
            with torch.device("meta"):
                layer: Any = block.mixer.core.build(spec.width)
            with torch.device("cpu"):
                turned = rope.frequencies(layer.head_width).numpy()
            found.append((turned, layer.window if isinstance(layer, AttendingLayer) else None))
    return found
