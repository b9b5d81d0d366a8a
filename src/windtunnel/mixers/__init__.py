"""What mixes along the sequence."""

from windtunnel.mixers.attention import Attention, NormalizedAttention
from windtunnel.mixers.base import Mixer, MixerLayer
from windtunnel.mixers.differential import DiffAttention

__all__ = ["Attention", "DiffAttention", "Mixer", "MixerLayer", "NormalizedAttention"]
