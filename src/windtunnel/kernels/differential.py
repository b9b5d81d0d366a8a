"""Differential attention (Ye et al. 2024, arXiv 2410.05258, eq. 1): the difference of two attention maps.

    y_i = (A1_i - lambda A2_i) v_i,    A1_i = softmax(scale q_2i k_2i^T),    A2_i = softmax(scale q_2i+1 k_2i+1^T)

The sub-heads of a pair are neighbours. Under grouped keys the pair is split before the grouping, as in the paper's
flash variants: sub-head 2i + s reads key sub-head 2 (i // n) + s, with n = h / g.
"""

import torch
from torch import Tensor

from windtunnel.kernels.attention import attention, attention_reference


def differential_attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lam: Tensor,
    scale: float,
    mask: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """The equation, in plain torch: each map over its own sub-heads, subtracted after the values."""
    first = attention_reference(q[:, 0::2], k[:, 0::2], v, scale, mask, causal)
    second = attention_reference(q[:, 1::2], k[:, 1::2], v, scale, mask, causal)
    return first - lam * second


def differential_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    lam: Tensor,
    scale: float,
    mask: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """Differential attention of q [b 2h t d] over k [b 2g s d] and v [b g s e] with a scalar lam; b h t e.

    The outputs are subtracted in float32 or wider: two nearly equal bfloat16 maps would lose their difference.
    """
    first = attention(q[:, 0::2], k[:, 0::2], v, scale, mask, causal)
    second = attention(q[:, 1::2], k[:, 1::2], v, scale, mask, causal)
    wide = torch.promote_types(first.dtype, torch.float32)
    return (first.to(wide) - lam.to(wide) * second.to(wide)).to(first.dtype)
