"""The router before attention: the experiment's identities, and what is measured of it."""

from typing import Any

import pytest
import torch
from torch import Tensor

import windtunnel as wt
from tests.proof import Proof
from tests.recipes.cases import SIZES, model_of, tokens_for
from windtunnel.errors import InputError
from windtunnel.evaluation.routing import overlap, routing, token_information
from windtunnel.layer import Context
from windtunnel.ledger import ledger
from windtunnel.mlps import TopK
from windtunnel.model import LanguageModelLayer

DOUBLE = 1e-12
ROUTES = ("early", "early-own-norm", "late", "parallel", "hash")


def copied(source: LanguageModelLayer, target: LanguageModelLayer) -> LanguageModelLayer:
    """The target with the source's parameters; a router's own norm gets the MLP norm's."""
    given = dict(source.named_parameters())
    with torch.no_grad():
        for name, parameter in target.named_parameters():
            parameter.copy_(given[name.replace("router_norm", "mlp_norm")])
    return target


def pair(**settings: Any) -> tuple[LanguageModelLayer, LanguageModelLayer]:
    routes = ("early-own-norm", "late")
    early, late = (model_of("router_first", dtype=torch.float64, route=route, **settings) for route in routes)
    return early, late


def test_without_attention_early_is_late(proof: Proof) -> None:
    """Wo = 0 and the router's norm that of the MLP: both decide from the same vector."""
    early, late = pair()
    tokens = tokens_for(late.spec)
    assert not torch.allclose(copied(late, early)(tokens).logits, late(tokens).logits)
    with torch.no_grad():
        for name, parameter in late.named_parameters():
            if name.endswith("mixer.o.weight"):
                parameter.zero_()
    difference = (copied(late, early)(tokens).logits - late(tokens).logits).abs().max().item()
    assert difference < DOUBLE
    proof("router_first", "itself routed late, attention at zero", logits=difference)


def test_with_all_experts_chosen_only_gates_differ() -> None:
    early, late = pair(experts=3, choices=3)
    copied(late, early)
    with torch.no_grad():
        for model in (early, late):
            for name, parameter in model.named_parameters():
                if name.endswith("router.weight"):
                    parameter.zero_()  # equal gates
    tokens = tokens_for(late.spec)
    torch.testing.assert_close(early(tokens).logits, late(tokens).logits, rtol=0, atol=DOUBLE)


@pytest.mark.parametrize("route", ROUTES)
def test_identical_experts_are_the_dense_model(route: str, proof: Proof) -> None:
    ours = model_of("router_first", dtype=torch.float64, route=route, hidden=24)
    base = wt.recipes.get("llama")(**SIZES, hidden=24)
    if route == "parallel":
        residual = ours.spec.blocks[0].residual
        base = base.replace(blocks=tuple(block.replace(residual=residual) for block in base.blocks))
    dense = base.build().to(torch.float64)
    given = dict(ours.named_parameters())
    with torch.no_grad():
        for parameter in ours.parameters():
            if parameter.dim() == 3:
                parameter.copy_(parameter[:1].expand_as(parameter))
        for name, parameter in dense.named_parameters():
            stacked = given.get(name.removesuffix(".weight")) if ".mlp." in name else None
            parameter.copy_(given[name] if stacked is None else stacked[0])
    tokens = tokens_for(ours.spec)
    difference = (ours(tokens).logits - dense(tokens).logits).abs().max().item()
    assert difference < DOUBLE
    proof("router_first", "the dense model, all experts alike", logits=difference)


def test_early_and_late_cost_the_same() -> None:
    early, late, own = (
        ledger(wt.recipes.get("router_first")(**SIZES, route=route), 64)
        for route in ("early", "late", "early-own-norm")
    )
    assert early.parameters == late.parameters
    assert early.forward == late.forward
    assert own.parameters.n_total - late.parameters.n_total == 3 * 64


def test_an_early_block_decides_by_its_input() -> None:
    """The first block's input is the token's embedding, so there the same token always meets the same experts."""
    for route, fixed in (("early", True), ("late", False)):
        model = model_of("router_first", route=route, dtype=torch.float64)
        tokens = torch.arange(40).remainder(7).view(1, -1)
        found = routing(model, tokens)[0]
        chosen = _chosen(model, tokens, route)
        assert found.token_information == pytest.approx(token_information(tokens.flatten(), chosen, 8))
        assert all(torch.equal(chosen[row], chosen[row % 7]) for row in range(40)) == fixed


def _chosen(model: LanguageModelLayer, tokens: Tensor, route: str) -> Tensor:
    block = model.blocks["0"]
    context = Context(torch.arange(tokens.shape[1]), tokens=tokens)
    x = model.embedding(tokens, 0)
    if route == "late":
        mixed, _ = block.mixer(block.residual.mixer_norm(x), context, None)
        return block.mlp.route(block.residual.mlp_norm(x + mixed), context).chosen  # type: ignore[no-any-return]
    return block.mlp.route(block.residual.mixer_norm(x), context).chosen  # type: ignore[no-any-return]


@pytest.mark.parametrize("route", ROUTES)
def test_every_block_is_measured(route: str) -> None:
    model = model_of("router_first", route=route)
    found = routing(model, tokens_for(model.spec))
    assert [one.layer for one in found] == [0, 1, 2]
    for one in found:
        assert 0 <= one.overlap <= 1
        assert (one.overlap == 1) == (route in ("parallel", "hash"))
        assert (one.entropy is None) == (route == "hash")
        assert one.entropy is None or 0 < one.entropy < torch.tensor(8.0).log().item()
        assert one.token_information > 0 < one.information_by_chance
    assert not any(module._forward_pre_hooks for module in model.modules())
    with pytest.raises(InputError, match="experts"):
        routing(model_of("llama"), tokens_for(model.spec))


@pytest.mark.parametrize(("size", "both", "best"), [(0.1, 0.94, 0.92), (0.3, 0.84, 0.79), (1.0, 0.58, 0.47)])
def test_overlap_of_a_random_router_under_a_random_update(size: float, both: float, best: float) -> None:
    """The null model: what an update of that relative norm alone changes, with width 64 and 8 experts."""
    draw = torch.Generator().manual_seed(0)
    x, update = (torch.nn.functional.normalize(torch.randn(20_000, 64, generator=draw), dim=-1) for _ in range(2))
    router = TopK().build(64, 8)
    with torch.no_grad():
        router.weight.normal_(generator=draw)
    context = Context(torch.arange(20_000))
    early, late = (router(each, context).chosen for each in (x, x + size * update))
    assert overlap(early, late) == pytest.approx(both, abs=0.015)
    assert (early[:, 0] == late[:, 0]).double().mean().item() == pytest.approx(best, abs=0.015)


def test_information_of_known_tables() -> None:
    tokens = torch.arange(4).repeat(50)
    assert token_information(tokens, tokens[:, None], 4) == pytest.approx(torch.tensor(4.0).log().item())
    assert token_information(tokens, torch.arange(200)[:, None] // 4 % 2, 4) == pytest.approx(0, abs=1e-12)
