"""What mixes along the sequence."""

from windtunnel.layer import MixerLayer
from windtunnel.mixers.attention import Attention, NormalizedAttention
from windtunnel.mixers.base import AttendingLayer, Mixer
from windtunnel.mixers.differential import DiffAttention
from windtunnel.mixers.differential_v2 import DiffAttentionV2

__all__ = [
    "AttendingLayer",
    "Attention",
    "DiffAttention",
    "DiffAttentionV2",
    "Mixer",
    "MixerLayer",
    "NormalizedAttention",
]
