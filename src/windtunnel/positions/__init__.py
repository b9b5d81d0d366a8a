"""Positions: rotary ones and linear biases as fields of mixers, additive ones as a field of the embedding."""

from windtunnel.positions.additive import Axial, Learned, Positions, PositionsLayer, Sinusoidal, stretched
from windtunnel.positions.alibi import Alibi
from windtunnel.positions.rotary import Rope, scaled
from windtunnel.positions.scaling import NTK, DynamicNTK, Interpolation, Llama3, Scaling, YaRN, scaling_for

__all__ = [
    "NTK",
    "Alibi",
    "Axial",
    "DynamicNTK",
    "Interpolation",
    "Learned",
    "Llama3",
    "Positions",
    "PositionsLayer",
    "Rope",
    "Scaling",
    "Sinusoidal",
    "YaRN",
    "scaled",
    "scaling_for",
    "stretched",
]
