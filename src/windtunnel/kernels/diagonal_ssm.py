"""A time-invariant diagonal state-space model, as H3 has it (Fu et al. 2022, arXiv 2212.14052, section 3).

    h_t = Ā ⊙ h_{t-1} + x_t        y_t = 2 Re Σ_n w_n h_t,n        w = C ⊙ B̄

Each mode stands for itself and its conjugate. The same function as a convolution with K_t = 2 Re Σ_n w_n Ā_n^t, by FFT
of at least twice the length. The recurrence goes on from a state; the convolution is for whole sequences and
documents, each of which is convolved by itself.
"""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from windtunnel.kernels.linear_scan import linear_scan

PIECE = 1 << 18  # complex numbers in one expanded piece of a sequence
Segments = list[tuple[Tensor, Tensor]]


def diagonal_ssm_reference(
    x: Tensor, poles: Tensor, weights: Tensor, state: Tensor | None = None, starts: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The equations, one token after another; `starts` [b t] marks tokens before which the state is forgotten."""
    batch, length, heads, channels = x.shape
    if state is None:
        state = poles.new_zeros(batch, poles.shape[1], heads, channels)
    outputs = []
    for t in range(length):
        if starts is not None:
            state = torch.where(starts[:, t, None, None, None], 0.0, state)
        state = poles.T[:, :, None] * state + x[:, t, None]
        outputs.append(2 * (weights.T[:, :, None] * state).sum(1).real)
    return torch.stack(outputs, dim=1), state


def diagonal_ssm(x: Tensor, poles: Tensor, weights: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """y [b t h e] and the last state [b n h e] (complex) of x [b t h e], poles Ā and weights w [h n] (complex).

    The expansion to [b t n h e] is formed for a piece of the sequence at a time, and again in the backward pass.
    """
    batch, _, heads, channels = x.shape
    if state is None:
        state = poles.new_zeros(batch, poles.shape[1], heads, channels)
    span, outputs = max(1, PIECE // max(1, state.numel())), []
    for part in torch.split(x, span, dim=1):
        if torch.is_grad_enabled():
            y, state = checkpoint(_piece, part, poles, weights, state, use_reentrant=False, preserve_rng_state=False)
        else:
            y, state = _piece(part, poles, weights, state)
        outputs.append(y)
    return torch.cat(outputs, dim=1), state


def _piece(x: Tensor, poles: Tensor, weights: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    batch, length, heads, channels = x.shape
    shape = (batch, length, poles.shape[1], heads, channels)
    decay = poles.T[:, :, None].expand(shape[2:]).reshape(-1).expand(batch, length, -1)
    inputs = x.unsqueeze(2).to(poles.dtype).expand(shape).flatten(2)
    states = linear_scan(decay, inputs, state.flatten(1)).view(shape)
    return 2 * (states * weights.T[:, :, None]).sum(2).real, states[:, -1]


def impulse_response(poles: Tensor, weights: Tensor, length: int) -> Tensor:
    """The convolution kernel K [t h]: what the recurrence answers to a one followed by zeros."""
    impulse = poles.real.new_zeros(1, length, poles.shape[0], 1)
    impulse[:, 0] = 1
    return diagonal_ssm(impulse, poles, weights)[0][0, :, :, 0]


def causal_convolution(x: Tensor, kernel: Tensor, segments: Segments | None = None) -> Tensor:
    """y_t = Σ_s kernel_s x_{t-s} for x [b t ...] and a kernel [s ...] of shapes that broadcast; one dtype.

    segments: from `document_segments`, where nothing may cross from one document to another.
    """
    if segments is None:
        return _convolution(x, kernel)
    flat = x.flatten(0, 1)
    convolved, places = [], []
    for index, held in segments:
        rows = torch.where(held.view(*held.shape, *(1,) * (x.dim() - 2)), flat[index], 0.0)
        convolved.append(_convolution(rows, kernel)[held])
        places.append(index[held])
    return torch.cat(convolved)[torch.cat(places).argsort()].view_as(x)


def document_segments(documents: Tensor) -> Segments:
    """Where each document's tokens are in the flattened batch: pairs of indices [m l] and True where there is a token.

    documents: [b t]. Those of similar length are together; l is a power of two, so at most half of it is padding.
    """
    first = torch.ones_like(documents, dtype=torch.bool)
    first[:, 1:] = documents[:, 1:] != documents[:, :-1]
    begins = first.flatten().nonzero().squeeze(1)
    lengths = torch.diff(begins, append=begins.new_tensor([documents.numel()]))
    widths = torch.tensor([_power_of_two(length) for length in lengths.tolist()], device=documents.device)
    segments = []
    for width in sorted(set(widths.tolist())):
        of_this = widths == width
        offsets = torch.arange(width, device=documents.device)
        held = offsets < lengths[of_this, None]
        segments.append((torch.where(held, begins[of_this, None] + offsets, 0), held))
    return segments


def _convolution(x: Tensor, kernel: Tensor) -> Tensor:
    length = x.shape[1]
    kernel = kernel[:length]
    size = _power_of_two(length + kernel.shape[0] - 1)
    product = torch.fft.rfft(x, n=size, dim=1) * torch.fft.rfft(kernel, n=size, dim=0)
    y: Tensor = torch.fft.irfft(product, n=size, dim=1)
    return y[:, :length]


def _power_of_two(length: int) -> int:
    return 1 << (length - 1).bit_length()
