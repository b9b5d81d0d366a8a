"""Where a model's experts are chosen from: what the decision before attention has in common with the one after it.

Every block with experts is asked twice, from its own input and from what its MLP sees, with the same router. In a block
that routes late this tells what an early decision would change; in one that routes early, the reverse.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from windtunnel.errors import InputError
from windtunnel.layer import Context
from windtunnel.mlps import Routing, balance
from windtunnel.mlps.experts import ExpertsLayer
from windtunnel.model import BlockLayer
from windtunnel.residuals import ParallelLayer, PreNormLayer, RouteFirstLayer
from windtunnel.root import ModelLayer

ENTROPY = "router_entropy"


class LayerRouting(NamedTuple):
    """One block's figures.

    overlap: share of a token's experts that the early and the late decision have in common; first_agreement: how often
    their best experts are the same. The others are of the decision that the block uses. load_variation: CV² of the
    tokens served. entropy: mean over tokens of the router's, in nats, None where it has no probabilities.
    token_information: mutual information of a token's id and its experts, in nats, from the counts of this text;
    information_by_chance: the same with the ids shuffled, which is the bias of such an estimate.
    """

    layer: int
    overlap: float
    first_agreement: float
    load_variation: float
    entropy: float | None
    token_information: float
    information_by_chance: float


@torch.no_grad()
def routing(model: ModelLayer, tokens: Tensor, documents: Tensor | None = None) -> list[LayerRouting]:
    """Measure every block with experts on tokens [b t]. Raises `InputError` where there is none."""
    figures: list[LayerRouting] = []
    with _watched(model, lambda layer, *given: figures.append(_measured(layer, tokens, *given))):
        model(tokens, documents=documents)
    if not figures:
        raise InputError("model: none of its blocks has experts behind a residual with a norm before its mixer")
    return figures


def overlap(first: Tensor, second: Tensor) -> float:
    """Mean share of the experts of first [n c] that are among those of second [n c]."""
    return float((first[:, :, None] == second[:, None, :]).any(-1).double().mean())


def token_information(tokens: Tensor, chosen: Tensor, experts: int) -> float:
    """Mutual information in nats of ids [n] and experts [n c], by the plug-in estimate over all pairs."""
    _, ids = torch.unique(tokens, return_inverse=True)
    pairs = (ids[:, None] * experts + chosen)[chosen >= 0]
    joint = torch.bincount(pairs, minlength=int(ids.max() + 1) * experts).double().view(-1, experts)
    joint /= joint.sum()
    apart = joint.sum(1, keepdim=True) * joint.sum(0)
    return float(torch.where(joint > 0, joint * (joint / apart).log(), 0.0).sum())


def _measured(layer: int, tokens: Tensor, early: Routing, late: Routing, used: Routing, experts: int) -> LayerRouting:
    ids = tokens.flatten()
    shuffled = ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(0)).to(ids.device)]
    return LayerRouting(
        layer=layer,
        overlap=overlap(early.chosen, late.chosen),
        first_agreement=float((early.chosen[:, 0] == late.chosen[:, 0]).double().mean()),
        load_variation=float(balance.squared_variation(balance.counts(used.chosen, experts))),
        entropy=float(used.metrics[ENTROPY]) if ENTROPY in used.metrics else None,
        token_information=token_information(ids, used.chosen, experts),
        information_by_chance=token_information(shuffled, used.chosen, experts),
    )


def _block_input(residual: torch.nn.Module, x: Tensor) -> Tensor | None:
    """What a router before attention would see of a block's input; None where the wiring has no norm there."""
    if isinstance(residual, RouteFirstLayer) and residual.router_norm is not None:
        return residual.router_norm(x)  # type: ignore[no-any-return]
    if isinstance(residual, PreNormLayer | RouteFirstLayer):
        return residual.mixer_norm(x)  # type: ignore[no-any-return]
    return residual.norm(x) if isinstance(residual, ParallelLayer) else None


@contextmanager
def _watched(model: ModelLayer, report: Callable[..., None]) -> Iterator[None]:
    """While this lasts, every block with experts reports (layer, early, late, used decision, number of experts)."""
    handles: list[Any] = []
    for block in model.modules():
        if isinstance(block, BlockLayer) and isinstance(block.mlp, ExpertsLayer):
            handles += _watch(block, block.mlp, report)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _watch(block: BlockLayer, mlp: ExpertsLayer, report: Callable[..., None]) -> list[Any]:
    seen: dict[str, Tensor | None] = {}

    def before_block(_: Any, given: tuple[Any, ...]) -> None:
        seen["input"] = _block_input(block.residual, given[0])

    def before_mlp(_: Any, given: tuple[Any, ...]) -> None:
        x, context = given[0], given[1]
        assert isinstance(context, Context)
        if seen["input"] is not None:
            early, late = mlp.route(seen["input"], context), mlp.route(x, context)
            used = early if isinstance(block.residual, RouteFirstLayer) else late
            report(context.layer, early, late, used, mlp.spec.experts)

    return [block.register_forward_pre_hook(before_block), mlp.register_forward_pre_hook(before_mlp)]
