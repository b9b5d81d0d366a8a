"""What mixes along the sequence."""

from windtunnel.layer import MixerLayer
from windtunnel.mixers.attention import Attention, NormalizedAttention
from windtunnel.mixers.base import Mixer
from windtunnel.mixers.differential import DiffAttention

__all__ = ["Attention", "DiffAttention", "Mixer", "MixerLayer", "NormalizedAttention"]
