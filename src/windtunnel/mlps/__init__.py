"""What works on each position alone."""

from windtunnel.mlps.base import MLP, MLPLayer, MLPOutput
from windtunnel.mlps.dense import Dense, Gated, NormalizedGated

__all__ = ["MLP", "Dense", "Gated", "MLPLayer", "MLPOutput", "NormalizedGated"]
