"""Positions: rotary tables as a field of mixers, additive tables as a field of the embedding."""

from windtunnel.positions.additive import Learned
from windtunnel.positions.rotary import Rope

__all__ = ["Learned", "Rope"]
