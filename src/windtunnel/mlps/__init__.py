"""What works on each position alone."""

from windtunnel.layer import MLPLayer, MLPOutput
from windtunnel.mlps.base import MLP
from windtunnel.mlps.dense import Dense, Gated, NormalizedGated

__all__ = ["MLP", "Dense", "Gated", "MLPLayer", "MLPOutput", "NormalizedGated"]
