"""From a GPT to nGPT in seven steps (arXiv 2410.01131, section 2.6): every step against its equations written out."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import windtunnel as wt
from tests.proof import Proof
from tests.recipes.cases import disturbed, tokens_for
from tests.recipes.oracle import largest
from windtunnel.errors import InputError
from windtunnel.init import roles
from windtunnel.model import LanguageModelLayer
from windtunnel.recipes.ngpt import STEPS, TRAINING, conversion
from windtunnel.spec import difference

EXACT = 1e-12
SIZES: dict[str, Any] = {"vocab": 41, "layers": 2, "width": 32, "context": 32, "heads": 2, "hidden": 44}
STAGES = conversion(**SIZES)
every_stage = pytest.mark.parametrize("stage", range(len(STAGES)))
FACTOR = math.sqrt(32)  # what is stored starts at 1/sqrt(d) and counts as 1; for the rates (2 layers) as 1/2


def model_of(stage: int) -> LanguageModelLayer:
    return disturbed(wt.build(STAGES[stage].spec).to(torch.float64))


def unit(x: Tensor) -> Tensor:
    return x / x.square().sum(-1, keepdim=True).sqrt()


def rms(x: Tensor, gain: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * gain


def rotated(x: Tensor) -> Tensor:
    """[b t k], pairs (i, i + k/2) as complex numbers."""
    half = x.shape[-1] // 2
    position, pair = (torch.arange(count, dtype=torch.float64) for count in (x.shape[1], half))
    angles = position[:, None] * 10_000.0 ** (-pair / half)
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag], -1)


def attended(x: Tensor, w: dict[str, Tensor], steps: int) -> Tensor:
    """Two heads of 16, one after the other."""
    hidden = torch.full((x.shape[1], x.shape[1]), -math.inf, dtype=torch.float64).triu(1)
    heads = []
    for head in (0, 1):
        rows = slice(16 * head, 16 * head + 16)
        q, k, v = (x @ w[f"mixer.{each}.weight"][rows].T for each in "qkv")
        q, k = rotated(q), rotated(k)
        if steps >= 4:
            s = w["mixer.query_key_scale.weight"][rows] * FACTOR
            q, k = unit(q) * s, unit(k) * s
        scores = q @ k.transpose(-1, -2) * (4.0 if steps >= 4 else 0.25)
        heads.append((scores + hidden).softmax(-1) @ v)
    return torch.cat(heads, -1) @ w["mixer.o.weight"].T


def transformed(x: Tensor, w: dict[str, Tensor], steps: int) -> Tensor:
    u, v = x @ w["mlp.up.weight"].T, x @ w["mlp.gate.weight"].T
    if steps >= 5:
        u, v = u * w["mlp.up_scale.weight"], v * w["mlp.gate_scale.weight"] * FACTOR
    return (u * v / (1 + torch.exp(-v))) @ w["mlp.down.weight"].T


def written_out(tokens: Tensor, weights: dict[str, Tensor], steps: int) -> Tensor:
    """Logits of the model after so many steps."""
    x = weights["embedding.weight"][tokens]
    for layer in range(2):
        at = f"blocks.{layer}."
        w = {name.removeprefix(at): value for name, value in weights.items() if name.startswith(at)}
        for branch, part in ((attended, "mixer"), (transformed, "mlp")):
            if steps >= 3:
                rate = (w[f"residual.{part}_rate.weight"] * FACTOR / 2).abs()
                x = unit(x + rate * (unit(branch(x, w, steps)) - x))
            else:
                x = x + branch(rms(x, w[f"residual.{part}_norm.weight"]) if steps < 1 else x, w, steps)
    logits = (rms(x, weights["norm.weight"]) if steps < 1 else x) @ weights["head.weight"].T
    return logits * weights["head.token_scale.weight"] * FACTOR if steps >= 6 else logits


@every_stage
def test_every_step_is_what_the_paper_writes(stage: int, proof: Proof) -> None:
    model = model_of(stage)
    tokens = tokens_for(model.spec, length=13)
    weights = dict(model.named_parameters())
    logits, expected = model(tokens).logits, written_out(tokens, weights, stage)
    torch.testing.assert_close(logits, expected, rtol=EXACT, atol=EXACT)
    gradients, others = (
        torch.autograd.grad(F.cross_entropy(z[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()), list(weights.values()))
        for z in (logits, expected)
    )
    errors = [largest(one, other) for one, other in zip(gradients, others, strict=True)]
    assert max(errors) < EXACT
    state, parts = model.initial_state(2), []
    for chunk in tokens.split((4, 1, 1, 5, 2), dim=1):
        out = model(chunk, state=state)
        state = out.state
        parts.append(out.logits)
    decoded = torch.cat(parts, 1)
    torch.testing.assert_close(decoded, expected, rtol=EXACT, atol=EXACT)
    proof(
        "ngpt",
        "its conversion from a GPT, each of the seven steps written out",
        logits=largest(logits, expected),
        gradients=max(errors),
        decoding=largest(decoded, expected),
    )


def test_the_way_begins_at_the_baseline_and_ends_at_ngpt() -> None:
    assert STAGES[0].spec == wt.recipes.get("llama")(**SIZES)
    assert STAGES[-1].spec == wt.recipes.get("ngpt")(**SIZES)
    assert [stage.change for stage in STAGES] == ["the baseline", *STEPS]
    assert [stage.training.weight_decay for stage in STAGES] == [None] * 7 + [0.0]
    assert STAGES[-1].training == TRAINING


def test_a_step_changes_what_it_names_and_nothing_else() -> None:
    changed = [
        {"blocks.*.residual", "blocks.*.residual.norm", "norm"},
        {"projected", "initial.scale_writes"},
        {"blocks.*.residual", "blocks.*.residual.rate", "projected"},
        {"blocks.*.mixer", "blocks.*.mixer.query_key_scale"},
        {"blocks.*.mlp", "blocks.*.mlp.up_scale", "blocks.*.mlp.gate_scale"},
        {"head.token_scale"},
        set(),
    ]
    for before, after, expected in zip(STAGES, STAGES[1:], changed, strict=False):
        assert {path for path, _, _ in difference(before.spec, after.spec)} == expected, after.change


@every_stage
def test_every_stage_learns_and_stays_where_it_belongs(stage: int) -> None:
    model = wt.build(STAGES[stage].spec)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    tokens = tokens_for(model.spec, batch=4, length=17)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        loss = model.loss(tokens[:, :-1], tokens[:, 1:]).total
        loss.backward()
        optimiser.step()
        model.project_()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05
    norms = [
        model.get_parameter(name).norm(dim=0 if role.kind == "writes" else 1)
        for name, role in roles(model).items()
        if role.kind != "gain"
    ]
    farthest = max((norm - 1).abs().max().item() for norm in norms)
    assert (farthest < 1e-6) == (stage >= 2)


@pytest.mark.parametrize("steps", [-1, 8])
def test_there_are_seven_steps(steps: int) -> None:
    with pytest.raises(InputError, match=f"steps: {steps}; .* 0 to 7"):
        wt.recipes.get("ngpt")(steps=steps)
