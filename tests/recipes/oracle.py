"""Comparing a model with somebody else's: the same weights under both names, then logits, gradients and decoding.

A mapping takes our parameters and returns theirs, differentiably, so that both losses have gradients by our parameters.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from tests.recipes.cases import tokens_for
from tests.theirs import cache_name
from windtunnel.model import LanguageModelLayer

# Relative to the largest entry. In float64, where transformers still rotates and takes softmaxes in float32.
VALUES = 2e-6
GRADIENTS = 1e-5
NOTHING = 1e-12
CHUNKS = (3, 1, 1, 6, 1, 9, 2)

Weights = Mapping[str, Tensor]
Mapped = Callable[[Weights], dict[str, Tensor]]


def agree(
    ours: LanguageModelLayer, theirs: nn.Module, mapped: Mapped, without: tuple[str, ...] = ()
) -> dict[str, float]:
    """Logits, the loss, and the gradient of each of our parameters, but for those whose name ends with `without`.

    Returns the largest differences, in the form that the fixture `proof` takes.
    """
    theirs = theirs.to(torch.float64).eval()
    names = set(theirs.state_dict())
    weights = dict(ours.named_parameters())
    given = mapped(weights)
    assert set(given) <= names, sorted(set(given) - names)
    assert names - set(given) <= {"lm_head.weight"}, sorted(names - set(given))  # a tied head has no weight of its own
    tokens = tokens_for(ours.spec, batch=3, length=24)
    expected = functional_call(theirs, given, (tokens,)).logits
    logits = ours(tokens).logits
    values, slopes = near(logits, expected, VALUES, "logits"), [0.0]
    gradients = _gradients(logits, tokens, weights)
    for name, gradient in _gradients(expected, tokens, weights).items():
        if not name.endswith(without or ("\0",)):
            slopes.append(near(gradients[name], gradient, GRADIENTS, name))
    return {"logits": values, "gradients": max(slopes)}


@torch.no_grad()
def decode_alike(
    ours: LanguageModelLayer, theirs: nn.Module, mapped: Mapped, chunks: tuple[int, ...] = CHUNKS
) -> dict[str, float]:
    """Both caches, filled by chunks, give the same logits; returns the largest difference as `agree` does."""
    theirs = theirs.to(torch.float64).eval()
    theirs.load_state_dict(mapped(dict(ours.named_parameters())), strict=False)
    tokens = tokens_for(ours.spec, batch=2, length=sum(chunks))
    state, past, errors, cache = ours.initial_state(2), None, [], cache_name(theirs)
    for chunk in tokens.split(chunks, dim=1):
        out = ours(chunk, state=state)
        other = theirs(chunk, **{cache: past}, use_cache=True)
        state, past = out.state, getattr(other, cache)
        errors.append(near(out.logits, other.logits, VALUES, "logits"))
    return {"decoding": max(errors)}


def near(ours: Tensor, theirs: Tensor, tolerance: float, what: str) -> float:
    """Largest difference at most `tolerance` times the largest entry (some gradients are zero but for rounding)."""
    error = largest(ours, theirs)
    assert error <= tolerance, f"{what}: {error:.2g}"
    return error


def largest(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference relative to the largest entry."""
    return ((ours - theirs).abs().max() / theirs.abs().max().clamp(min=NOTHING)).item()


def _gradients(logits: Tensor, tokens: Tensor, weights: Weights) -> dict[str, Tensor]:
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(weights, found, strict=True) if gradient is not None}


def renamed(weights: Weights, names: Mapping[str, str]) -> dict[str, Tensor]:
    """Parameters under other names; `*` in a pair stands for the number of every layer."""
    found = {}
    layers = {name.split(".")[1] for name in weights if name.startswith("blocks.")}
    for theirs, ours in names.items():
        for layer in layers if "*" in ours else {""}:
            found[theirs.replace("*", layer)] = weights[ours.replace("*", layer)]
    return found
