"""What mixes along the sequence."""

from windtunnel.layer import MixerLayer
from windtunnel.mixers.attention import Attention, NormalizedAttention
from windtunnel.mixers.base import AttendingLayer, Mixer
from windtunnel.mixers.convolution import Convolved
from windtunnel.mixers.differential import DiffAttention
from windtunnel.mixers.differential_v2 import DiffAttentionV2
from windtunnel.mixers.h3 import H3
from windtunnel.mixers.linear import LinearAttention
from windtunnel.mixers.lru import LRU
from windtunnel.mixers.mamba import Mamba
from windtunnel.mixers.nothing import Nothing
from windtunnel.mixers.patterns import BigBird, Fixed, Pattern, Sliding, Strided
from windtunnel.mixers.recurrent import Recurrent
from windtunnel.mixers.rg_lru import RGLRU
from windtunnel.mixers.sparse import SparseAttention
from windtunnel.mixers.top_k import TopKAttention
from windtunnel.mixers.unmasked import UnmaskedAttention

__all__ = [
    "H3",
    "LRU",
    "RGLRU",
    "AttendingLayer",
    "Attention",
    "BigBird",
    "Convolved",
    "DiffAttention",
    "DiffAttentionV2",
    "Fixed",
    "LinearAttention",
    "Mamba",
    "Mixer",
    "MixerLayer",
    "NormalizedAttention",
    "Nothing",
    "Pattern",
    "Recurrent",
    "Sliding",
    "SparseAttention",
    "Strided",
    "TopKAttention",
    "UnmaskedAttention",
]
