"""Model FLOPs utilisation and hardware FLOPs utilisation, as PaLM defines them (arXiv 2204.02311, section 4.1, App. B).

    R_max = P / (6 N + 12 L H Q T)        MFU = tokens a second / R_max

N parameters, L layers, H heads of Q numbers, T tokens of a sequence, P FLOP/s of all devices. Every pair of tokens
counts, whether or not the causal mask hides it. HFU adds what is computed again in the backward pass.
"""

from typing import NamedTuple


class Shape(NamedTuple):
    """What the formula reads of a transformer."""

    parameters: float
    layers: int
    heads: int
    head_width: int
    length: int

    @property
    def core(self) -> float:
        """FLOPs a token of scores and weighted values, forward and backward."""
        return 12.0 * self.layers * self.heads * self.head_width * self.length

    def flops(self, recomputed: float = 0.0, attention: bool = True) -> float:
        """FLOPs a token of a training step.

        recomputed: the share of the forward pass without attention that runs twice; where it is above 0, so does all
        of attention (PaLM App. B).
        """
        again = 2 * self.parameters * recomputed + (self.core / 3 if recomputed and attention else 0.0)
        return 6 * self.parameters + (self.core if attention else 0.0) + again


def utilisation(flops_per_token: float, tokens_per_second: float, devices: int, peak: float) -> float:
    """The share of the devices' peak that these operations are."""
    return flops_per_token * tokens_per_second / (devices * peak)
