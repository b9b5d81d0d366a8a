"""Functions on tensors: each a readable reference beside a fast twin, behind one call. Imports torch only.

Letters in shape comments: b batch, h heads, g key/value heads, t queries, s keys, d width or query head size,
k query head size, v value head size or vocabulary, n rows, r rotated features.
"""

from windtunnel.kernels.attention import attention, attention_maps, attention_reference, attention_scores
from windtunnel.kernels.banded import banded_attention, banded_attention_reference
from windtunnel.kernels.causal_conv import causal_conv, causal_conv_reference
from windtunnel.kernels.diagonal_ssm import (
    causal_convolution,
    diagonal_ssm,
    diagonal_ssm_reference,
    document_segments,
    impulse_response,
)
from windtunnel.kernels.differential import (
    differential_attention,
    differential_attention_reference,
    differential_maps,
    differential_scores,
)
from windtunnel.kernels.dispatch import Plan, combine, combine_reference, dispatch, gather, gather_reference
from windtunnel.kernels.efficient_attention import (
    Means,
    causal_efficient_attention,
    causal_efficient_attention_recurrent,
    causal_efficient_attention_reference,
    efficient_attention,
)
from windtunnel.kernels.few_rows import few_rows, few_rows_reference
from windtunnel.kernels.flash import flash_attention
from windtunnel.kernels.gated_decay import bounded_root, gated_decay, gated_decay_reference
from windtunnel.kernels.grouped import fused_grouped_linear, grouped_linear, grouped_linear_reference
from windtunnel.kernels.linear_attention import (
    linear_attention,
    linear_attention_recurrent,
    linear_attention_reference,
)
from windtunnel.kernels.linear_cross_entropy import (
    linear_cross_entropy,
    linear_cross_entropy_reference,
    linear_token_losses,
)
from windtunnel.kernels.linear_scan import linear_scan, linear_scan_reference
from windtunnel.kernels.memory import tune_allocator
from windtunnel.kernels.rms_norm import (
    rms_norm,
    rms_norm_reference,
    scaled_unit_norm,
    scaled_unit_norm_reference,
    unit_norm,
    unit_norm_reference,
)
from windtunnel.kernels.rotary import rotate, rotate_reference, turn, widened
from windtunnel.kernels.selective_scan import selective_scan, selective_scan_reference
from windtunnel.kernels.sphere import sphere_step, sphere_step_reference
from windtunnel.kernels.tiled import tiled_attention, tiled_attention_reference
from windtunnel.kernels.top_k import top_k_attention, top_k_attention_reference

__all__ = [
    "Means",
    "Plan",
    "attention",
    "attention_maps",
    "attention_reference",
    "attention_scores",
    "banded_attention",
    "banded_attention_reference",
    "bounded_root",
    "causal_conv",
    "causal_conv_reference",
    "causal_convolution",
    "causal_efficient_attention",
    "causal_efficient_attention_recurrent",
    "causal_efficient_attention_reference",
    "combine",
    "combine_reference",
    "diagonal_ssm",
    "diagonal_ssm_reference",
    "differential_attention",
    "differential_attention_reference",
    "differential_maps",
    "differential_scores",
    "dispatch",
    "document_segments",
    "efficient_attention",
    "few_rows",
    "few_rows_reference",
    "flash_attention",
    "fused_grouped_linear",
    "gated_decay",
    "gated_decay_reference",
    "gather",
    "gather_reference",
    "grouped_linear",
    "grouped_linear_reference",
    "impulse_response",
    "linear_attention",
    "linear_attention_recurrent",
    "linear_attention_reference",
    "linear_cross_entropy",
    "linear_cross_entropy_reference",
    "linear_scan",
    "linear_scan_reference",
    "linear_token_losses",
    "rms_norm",
    "rms_norm_reference",
    "rotate",
    "rotate_reference",
    "scaled_unit_norm",
    "scaled_unit_norm_reference",
    "selective_scan",
    "selective_scan_reference",
    "sphere_step",
    "sphere_step_reference",
    "tiled_attention",
    "tiled_attention_reference",
    "top_k_attention",
    "top_k_attention_reference",
    "tune_allocator",
    "turn",
    "unit_norm",
    "unit_norm_reference",
    "widened",
]
