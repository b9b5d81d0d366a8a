"""What works on each position alone."""

from windtunnel.layer import MLPLayer, MLPOutput
from windtunnel.mlps.base import MLP
from windtunnel.mlps.dense import Dense, Gated, NormalizedGated
from windtunnel.mlps.experts import Experts
from windtunnel.mlps.noisy import NoisyTopK
from windtunnel.mlps.routers import ExpertChoice, GShard, Hash, Router, Routing, Switch, TopK

__all__ = [
    "MLP",
    "Dense",
    "ExpertChoice",
    "Experts",
    "GShard",
    "Gated",
    "Hash",
    "MLPLayer",
    "MLPOutput",
    "NoisyTopK",
    "NormalizedGated",
    "Router",
    "Routing",
    "Switch",
    "TopK",
]
