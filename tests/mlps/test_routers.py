"""Routers against loops over tokens, against transformers' losses, and against each other."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.switch_transformers import modeling_switch_transformers as their_switch

from tests.proof import Proof
from windtunnel.errors import InputError
from windtunnel.init import FanIn, initialize
from windtunnel.layer import Context
from windtunnel.mlps import ExpertChoice, Experts, GShard, Hash, NoisyTopK, Router, Switch, TopK, balance
from windtunnel.mlps.experts import ExpertsLayer

DOUBLE = 1e-12
SINGLE = 1e-6  # loads are counted, and transformers averages, in float32
WIDTH = 8
CAUSAL: dict[str, Router] = {
    "top-k": TopK(choices=2),
    "noisy": NoisyTopK(choices=2),
    "switch": Switch(capacity=0.5),
    "gshard": GShard(capacity=0.6),
    "hash": Hash(),
    "expert choice": ExpertChoice(acausal=True),
}


def layer_of(router: Router, experts: int = 4, hidden: int = 6, **options: Any) -> ExpertsLayer:
    layer = Experts(experts=experts, hidden=hidden, router=router, **options).build(WIDTH)
    initialize(layer, FanIn(), seed=1, layers=1)
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in layer.router.parameters():
            parameter.normal_(generator=draw)
    return layer.to(torch.float64)


def context_of(x: Tensor, seed: int | None = None) -> Context:
    tokens = torch.arange(x.shape[0] * x.shape[1]).view(x.shape[:2]) % 13
    return Context(torch.arange(x.shape[1]), tokens=tokens, seed=seed)


def random_x(batch: int = 2, length: int = 15) -> Tensor:
    return torch.randn(batch, length, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def dense_expert(layer: ExpertsLayer, expert: int, x: Tensor) -> Tensor:
    up = x @ layer.up[expert].T
    inner = up.relu() if layer.gate is None else torch.nn.functional.silu(x @ layer.gate[expert].T) * up
    return inner @ layer.down[expert].T


@pytest.mark.parametrize("router", CAUSAL.values(), ids=CAUSAL)
@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("gated", [True, False])
def test_the_layer_is_all_experts_on_all_tokens_masked(router: Router, seed: int | None, gated: bool) -> None:
    layer, x = layer_of(router, gated=gated, activation="silu" if gated else "relu"), random_x()
    route, found = layer.route(x, context_of(x, seed)), layer(x, context_of(x, seed)).hidden
    expected = torch.zeros_like(x).flatten(0, 1)
    for row in range(len(expected)):
        for chosen, gate in zip(route.chosen[row].tolist(), route.gates[row], strict=True):
            if chosen >= 0:
                expected[row] += gate * dense_expert(layer, chosen, x.flatten(0, 1)[row])
    torch.testing.assert_close(found.flatten(0, 1), expected, rtol=0, atol=DOUBLE)


@pytest.mark.parametrize("name", CAUSAL)
def test_in_evaluation_every_token_is_served_alone(name: str) -> None:
    layer, x = layer_of(CAUSAL[name]), random_x(1)
    whole = layer(x, context_of(x))
    parts = [
        layer(x[:, at : at + 1], Context(torch.tensor([at]), tokens=context_of(x).tokens[:, at : at + 1])).hidden  # type: ignore[index]
        for at in range(x.shape[1])
    ]
    torch.testing.assert_close(torch.cat(parts, 1), whole.hidden, rtol=0, atol=DOUBLE)
    assert whole.metrics["dropped"].item() == pytest.approx(0, abs=SINGLE)
    assert whole.metrics["unserved"] == 0


@pytest.mark.parametrize("name", CAUSAL)
def test_training_with_capacity_is_not_causal_and_dropless_training_is(name: str) -> None:
    """What later tokens do changes whether earlier ones are served: the price of a capacity in a language model."""
    layer, x = layer_of(CAUSAL[name]), random_x(1, 40)
    felt = False
    for other in range(20):
        later = x.clone()
        later[:, 20:] = torch.randn(20, WIDTH, dtype=x.dtype, generator=torch.Generator().manual_seed(other))
        before, after = (layer(each, context_of(each, seed=7)).hidden[:, :20] for each in (x, later))
        felt = felt or not torch.allclose(before, after, rtol=0, atol=DOUBLE)
    assert felt == (name in ("gshard", "expert choice"))  # one choice in the order of tokens only pushes later ones out


@pytest.mark.parametrize("router", [Switch(capacity=64), GShard(capacity=64, second="all")], ids=["switch", "gshard"])
def test_room_for_all_drops_nothing(router: Router) -> None:
    layer, x = layer_of(router.replace(jitter=0.0) if isinstance(router, Switch) else router), random_x()
    trained = layer(x, context_of(x, seed=1))
    torch.testing.assert_close(trained.hidden, layer(x, context_of(x)).hidden, rtol=0, atol=DOUBLE)
    assert trained.metrics["dropped"].item() == pytest.approx(0, abs=SINGLE)


def test_drop_order_by_hand() -> None:
    """Room for two an expert. Token 3 finds expert 0 full; second choices wait for every first choice of the group."""
    chosen = torch.tensor([[0, 1], [0, 1], [1, 0], [0, 2], [1, 2]])
    kept = balance.within_capacity(chosen, 3, 2 * 3 / 5, None)
    assert kept.tolist() == [[0, -1], [0, -1], [1, -1], [-1, 2], [1, 2]]


def test_groups_fill_their_experts_on_their_own() -> None:
    chosen = torch.tensor([[0], [0], [0], [0], [0]])
    kept = balance.within_capacity(chosen, 3, 1.0, 3)  # groups of 3 and 2, one place an expert
    assert kept.flatten().tolist() == [0, -1, -1, 0, -1]


@pytest.mark.parametrize(
    ("n", "experts", "choices", "factor", "group"), [(37, 4, 2, 1.25, 16), (20, 3, 1, 0.7, None), (9, 2, 2, 0.1, 4)]
)
def test_capacity_equals_a_loop_over_tokens(
    n: int, experts: int, choices: int, factor: float, group: int | None, proof: Proof
) -> None:
    chosen = torch.rand(n, experts, generator=torch.Generator().manual_seed(n)).topk(choices).indices
    size = math.ceil(n / math.ceil(n / (group or n)))
    expected = torch.full_like(chosen, -1)
    for first in range(0, n, size):
        taken = [0] * experts
        room = max(1, min(size, int(factor * size / experts)))
        for choice in range(choices):
            for row in range(first, min(n, first + size)):
                expert = int(chosen[row, choice])
                if taken[expert] < room:
                    expected[row, choice] = expert
                    taken[expert] += 1
    found = balance.within_capacity(chosen, experts, factor, group)
    assert torch.equal(found, expected)
    name = "switch" if choices == 1 else "gshard"
    proof(name, "a loop over tokens that fills experts by hand", choices=float((found != expected).sum()))


def test_mesh_capacity_holds_five_eighths_of_the_choices_at_most() -> None:
    x = random_x(4, 64)
    dropped = [
        float(layer_of(GShard(second="all", mesh=mesh), experts=8).route(x, context_of(x, 1)).metrics["dropped"])
        for mesh in (True, False)
    ]
    assert dropped[0] >= 0.375 > dropped[1]


def test_losses_are_one_when_uniform_and_the_number_of_experts_when_collapsed() -> None:
    experts, n = 8, 64
    uniform = torch.full((n, experts), 1 / experts)
    assert balance.load_balance(torch.arange(n)[:, None] % experts, uniform) == pytest.approx(1)
    assert balance.load_balance(torch.arange(2 * n).view(n, 2) % experts, uniform) == pytest.approx(2)
    collapsed = torch.zeros(n, experts).index_fill(1, torch.tensor([3]), 1.0)
    assert balance.load_balance(torch.full((n, 1), 3), collapsed) == pytest.approx(experts)
    assert balance.squared_variation(collapsed.sum(0)) == pytest.approx(experts - 1)
    assert balance.squared_variation(uniform.sum(0)) == 0


def test_losses_are_those_of_transformers(proof: Proof) -> None:
    logits = torch.randn(3, 11, 5)
    probabilities = logits.softmax(-1)
    theirs = their_switch.load_balancing_loss_func(probabilities, probabilities.argmax(-1))  # mean over rows
    ours = balance.load_balance(probabilities.argmax(-1).view(-1, 1), probabilities.view(-1, 5), group=11)
    z_errors = balance.z_loss(logits.view(-1, 5)) / their_switch.router_z_loss_func(logits) - 1
    assert abs(ours / theirs - 1) < SINGLE
    assert abs(z_errors) < SINGLE
    difference = {"balance_loss": float(abs(ours / theirs - 1)), "z_loss": float(abs(z_errors))}
    proof("switch", "transformers Switch router losses", **difference)
    layer = layer_of(Switch(balance=0.5, z_loss=0.25), experts=5)
    x = random_x(1, 11)
    route = layer.route(x, context_of(x))
    logits = (x @ layer.router.weight.T).view(1, 11, 5)
    chosen = logits.argmax(-1)
    expected = 0.5 * their_switch.load_balancing_loss_func(logits.softmax(-1), chosen)
    torch.testing.assert_close(route.losses["balance_loss"], expected, rtol=SINGLE, atol=0)
    torch.testing.assert_close(
        route.losses["router_z_loss"], 0.25 * their_switch.router_z_loss_func(logits), rtol=SINGLE, atol=0
    )
    torch.testing.assert_close(route.gates, logits.softmax(-1).amax(-1).view(-1, 1), rtol=0, atol=DOUBLE)


def test_gshard_gates_and_policies() -> None:
    x = random_x()
    layer = layer_of(GShard(second="all"))
    two = layer.route(x, context_of(x))
    best = (x.flatten(0, 1) @ layer.router.weight.T).softmax(-1).sort(descending=True)
    torch.testing.assert_close(two.gates, best.values[:, :2] / best.values[:, :2].sum(-1, keepdim=True))
    assert torch.equal(two.chosen, best.indices[:, :2])
    for second, used in (("none", torch.zeros(30, dtype=torch.bool)), ("threshold", two.gates[:, 1] > 0.2)):
        route = layer_of(GShard(second=second)).route(x, context_of(x))  # type: ignore[arg-type]
        assert torch.equal(route.chosen[:, 1] >= 0, used)
        torch.testing.assert_close(route.gates, two.gates)
    drawn = torch.stack(
        [layer_of(GShard(capacity=99)).route(x, context_of(x, seed)).chosen[:, 1] >= 0 for seed in range(400)]
    ).double()
    expected = (two.gates[:, 1] / 0.2).clamp(max=1)
    assert bool(((drawn.mean(0) - expected).abs() < 4 * (expected * (1 - expected) / 400).sqrt() + 1e-9).all())


def test_jitter_moves_what_the_router_sees_in_training_alone() -> None:
    layer, x = layer_of(Switch(capacity=99, jitter=0.3)), random_x()
    plain, again = (layer.route(x, context_of(x)).gates for _ in range(2))
    one, same, other = (layer.route(x, context_of(x, seed)).gates for seed in (1, 1, 2))
    assert torch.equal(plain, again)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one, plain)


def test_experts_that_choose_are_balanced_and_take_their_best_tokens() -> None:
    layer, x = layer_of(ExpertChoice(capacity=2.0, acausal=True)), random_x(2, 16)
    route = layer.route(x, context_of(x, seed=0))
    scores = (x.flatten(0, 1) @ layer.router.weight.T).softmax(-1)
    for expert in range(4):
        taken = (route.chosen[:, expert] == expert).nonzero().flatten()
        assert len(taken) == 16
        assert set(taken.tolist()) == set(scores[:, expert].topk(16).indices.tolist())
    assert route.metrics["load_variation"] == 0
    with pytest.raises(InputError, match="acausal=True"):
        ExpertChoice()


def test_a_bias_moves_choices_but_not_gates_and_its_step_lowers_the_overloaded() -> None:
    layer, x = layer_of(TopK(balance=0.0, loss_free=True)), random_x()
    with torch.no_grad():
        layer.router.bias.zero_()
    before = layer.route(x, context_of(x))
    (slope,) = torch.autograd.grad(before.losses["bias_step"], layer.router.bias)
    load = balance.counts(before.chosen, 4)
    assert before.losses["bias_step"] == 0
    assert torch.equal(slope.sign().float(), (load - load.mean()).sign())
    with torch.no_grad():
        layer.router.bias.copy_(torch.tensor([100.0, 50.0, 0.0, 0.0]))
    after = layer.route(x, context_of(x))
    assert after.chosen.tolist() == [[0, 1]] * 30
    probabilities = (x.flatten(0, 1) @ layer.router.weight.T).softmax(-1)[:, :2]
    torch.testing.assert_close(after.gates, probabilities / probabilities.sum(-1, keepdim=True))


def test_hashed_choices_are_fixed_distinct_and_spread() -> None:
    layer = layer_of(Hash(choices=2), experts=8)
    tokens = torch.arange(4000).view(1, -1)
    x = torch.zeros(1, 4000, WIDTH, dtype=torch.float64)
    first, second = (layer.route(x + step, Context(torch.arange(4000), tokens=tokens)) for step in (0, 1))
    assert torch.equal(first.chosen, second.chosen)
    assert bool((first.chosen[:, 0] != first.chosen[:, 1]).all())
    assert first.metrics["load"].tolist() == pytest.approx([0.25] * 8, abs=0.03)
    other = layer.route(x, Context(torch.arange(4000), tokens=tokens, layer=1))
    assert (other.chosen[:, 0] == first.chosen[:, 0]).double().mean() == pytest.approx(1 / 8, abs=0.03)
    with pytest.raises(InputError, match="token ids"):
        layer.route(x, Context(torch.arange(4000)))


def test_metrics_say_who_was_served() -> None:
    chosen = torch.tensor([[0, 1], [0, -1], [-1, -1], [0, 2]])
    found = balance.statistics(chosen, 2, torch.full((4, 4), 0.25), 4)
    assert found["load"].tolist() == [0.75, 0.25, 0.25, 0.0]
    assert (found["dropped"].item(), found["unserved"].item()) == (0.375, 0.25)
    assert found["router_entropy"].item() == pytest.approx(math.log(4))
    assert found["load_variation"].item() == pytest.approx(
        torch.tensor([3.0, 1, 1, 0]).var(correction=0).item() / 1.25**2
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TopK(choices=0), "choices"),
        (lambda: TopK(choices=1), "learns nothing"),
        (lambda: NoisyTopK(choices=1), "at least 2"),
        (lambda: Switch(capacity=0), "capacity"),
        (lambda: GShard(threshold=0), "threshold"),
        (lambda: Experts(experts=1, hidden=4, router=TopK()), "at least the 2"),
        (lambda: Experts(experts=2, hidden=0, router=TopK()), "hidden"),
        (lambda: Experts(experts=1, hidden=2, router=GShard(second="none")).build(4), "two experts"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
