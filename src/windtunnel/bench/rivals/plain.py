"""A plain Llama in the manner of nanoGPT: nothing but torch's own layers, one SDPA call, F.cross_entropy.

Written as one would write it, neither tuned nor crippled: fused q/k/v and gate/up are left out, as in Llama's code.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from windtunnel.bench.shape import Shape


class _Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.q, self.k, self.v, self.o = (nn.Linear(shape.width, shape.width, bias=False) for _ in range(4))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = (part(x).view(b, t, self.heads, -1).transpose(1, 2) for part in (self.q, self.k, self.v))  # b h t k
        y = F.scaled_dot_product_attention(_rotated(q, cos, sin), _rotated(k, cos, sin), v, is_causal=True)
        out: Tensor = self.o(y.transpose(1, 2).contiguous().view(b, t, d))
        return out


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class _MLP(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate, self.up = (nn.Linear(shape.width, shape.hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return out


class _Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.mixer_norm, self.mlp_norm = (nn.RMSNorm(shape.width, eps=1e-6) for _ in range(2))
        self.mixer, self.mlp = _Attention(shape), _MLP(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.mixer(self.mixer_norm(x), cos, sin)
        out: Tensor = x + self.mlp(self.mlp_norm(x))
        return out


class PlainLlama(nn.Module):
    """`model(tokens, targets)` gives the mean cross-entropy."""

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocab, shape.width)
        self.blocks = nn.ModuleList(_Block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=1e-6)
        self.head = nn.Linear(shape.width, shape.vocab, bias=False)
        if shape.tied:
            self.head.weight = self.embedding.weight
        size = shape.width // shape.heads
        angles = torch.arange(shape.context)[:, None] * 10_000.0 ** (-torch.arange(0, size, 2) / size)
        self.register_buffer("cos", torch.cat((angles.cos(), angles.cos()), -1), persistent=False)
        self.register_buffer("sin", torch.cat((angles.sin(), angles.sin()), -1), persistent=False)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))


def load(shape: Shape, weights: dict[str, Tensor]) -> PlainLlama:
    """The model with Windtunnel's weights, whose names differ in three places only."""
    model = PlainLlama(shape)
    renamed = {name.replace(".residual.", "."): value for name, value in weights.items()}
    if shape.tied:
        renamed["head.weight"] = renamed["embedding.weight"]
    model.load_state_dict(renamed)
    return model
