"""Normalisations, and the re-parametrised scales that nGPT puts in their place."""

import math

import torch.nn.functional as F
from torch import Tensor

from windtunnel.kernels.rms_norm import rms_norm
from windtunnel.layer import Cost, Layer, Role
from windtunnel.spec import Spec


class Norm(Spec):
    """A normalisation over the last axis."""

    def build(self, width: int) -> "NormLayer":
        """The module for vectors of `width` numbers."""
        raise NotImplementedError


class NormLayer(Layer):
    """Base of normalisation modules: [... width] to [... width]."""

    mechanism = "norms"
    operations = 0

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def costs(self, length: int) -> list[Cost]:
        return [Cost("norms", elementwise=self.operations * self.width)]


class RMSNorm(Norm):
    """x / sqrt(mean(x²) + eps) ⊙ gain (Zhang and Sennrich 2019), in float32 whatever the input."""

    eps: float = 1e-6
    gain: bool = True

    def build(self, width: int) -> "RMSNormLayer":
        return RMSNormLayer(width, self)


class RMSNormLayer(NormLayer):
    operations = 4

    def __init__(self, width: int, spec: RMSNorm) -> None:
        super().__init__(width)
        self.eps = spec.eps
        self.weight = self.declare("weight", (width,), Role("gain", constant=1.0)) if spec.gain else None

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class LayerNorm(Norm):
    """(x - mean) / sqrt(variance + eps) ⊙ gain + bias (Ba et al. 2016)."""

    eps: float = 1e-5
    bias: bool = True

    def build(self, width: int) -> "LayerNormLayer":
        return LayerNormLayer(width, self)


class LayerNormLayer(NormLayer):
    operations = 7

    def __init__(self, width: int, spec: LayerNorm) -> None:
        super().__init__(width)
        self.eps = spec.eps
        self.weight = self.declare("weight", (width,), Role("gain", constant=1.0))
        self.bias = self.declare("bias", (width,), Role("bias", constant=0.0)) if spec.bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (self.width,), self.weight, self.bias, self.eps)


class Scale(Spec):
    """A learned vector with its own effective learning rate (nGPT section 2.5).

    The stored tensor starts at `rate`; the value used is stored * initial / rate, so Adam moves the value by about
    lr * initial / rate a step. `rate=None` stands for 1/sqrt(width).
    """

    initial: float = 1.0
    rate: float | None = None

    def validate(self) -> None:
        self.require(self.rate is None or self.rate > 0, f"rate must be positive, got {self.rate}")

    def build(self, size: int, width: int) -> "ScaleLayer":
        """The module for a vector of `size` numbers in a model of `width`."""
        return ScaleLayer(size, self.initial, self.rate if self.rate is not None else 1 / math.sqrt(width))


class ScaleLayer(Layer):
    mechanism = "scales"

    def __init__(self, size: int, initial: float, rate: float) -> None:
        super().__init__()
        self.factor = initial / rate
        self.weight = self.declare("weight", (size,), Role("gain", constant=rate))

    def forward(self) -> Tensor:
        """The effective vector, [size]."""
        return self.weight * self.factor
