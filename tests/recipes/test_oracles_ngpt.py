"""nGPT against an independent implementation in numpy, and the identities that its sphere implies."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import windtunnel as wt
from tests.proof import Proof
from tests.recipes import ngpt_in_numpy as independent
from tests.recipes.cases import model_of, tokens_for
from windtunnel.init import roles
from windtunnel.layer import Context
from windtunnel.model import BlockLayer, LanguageModelLayer
from windtunnel.norms import Scale

EXACT = 1e-12
ORACLE = "the paper's equations in numpy, gradients by complex steps"
STEP = 1e-30  # of the complex step; nothing cancels, so it can be as small as one likes

LAYER = {
    "q": "mixer.q.weight",
    "k": "mixer.k.weight",
    "v": "mixer.v.weight",
    "o": "mixer.o.weight",
    "s_qk": "mixer.query_key_scale.weight",
    "u": "mlp.up.weight",
    "v_mlp": "mlp.gate.weight",
    "o_mlp": "mlp.down.weight",
    "s_u": "mlp.up_scale.weight",
    "s_v": "mlp.gate_scale.weight",
    "a_A": "residual.mixer_rate.weight",
    "a_M": "residual.mlp_rate.weight",
}
MODEL = {"in": "embedding.weight", "out": "head.weight", "s_z": "head.token_scale.weight"}
# What is stored starts at `rate` and counts for stored * initial / rate (section 2.5), by the paper's table of both.
ROOT = math.sqrt(64)
FACTORS = {"s_qk": ROOT, "s_z": ROOT, "s_u": 1.0, "s_v": 1.0, "a_A": ROOT / 3, "a_M": ROOT / 3}  # rate: 1 / 3 layers


def largest(ours: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference relative to the largest entry."""
    return float(np.abs(ours - expected).max() / np.abs(expected).max())


def small() -> LanguageModelLayer:
    """Three layers of width 64 in float64, all scales off their initial values."""
    return model_of("ngpt", dtype=torch.float64, hidden=50)


def arrays(weights: dict[str, np.ndarray], prefix: str, names: dict[str, str]) -> dict[str, np.ndarray]:
    return {short: weights[prefix + name] * FACTORS.get(short, 1.0) for short, name in names.items()}


def in_numpy(weights: dict[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
    layers = [arrays(weights, f"blocks.{index}.", LAYER) for index in range(3)]
    return independent.logits(tokens, arrays(weights, "", MODEL), layers, heads=4)


def plain(model: LanguageModelLayer) -> dict[str, np.ndarray]:
    return {name: parameter.detach().numpy().astype(np.complex128) for name, parameter in model.named_parameters()}


@torch.no_grad()
def test_values(proof: Proof) -> None:
    model = small()
    tokens = tokens_for(model.spec, batch=2, length=17)
    ours = model(tokens).logits.numpy()
    for row in range(2):
        expected = in_numpy(plain(model), tokens[row].numpy()).real
        np.testing.assert_allclose(ours[row], expected, rtol=0, atol=EXACT)
        proof("ngpt", ORACLE, logits=largest(ours[row], expected))


def test_gradients(proof: Proof) -> None:
    """By every parameter tensor, along a random direction."""
    model = small()
    tokens = tokens_for(model.spec, batch=1, length=9)
    model.loss(tokens[:, :-1], tokens[:, 1:]).total.backward()
    weights, row = plain(model), tokens[0].numpy()
    draw = np.random.default_rng(0)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        direction = draw.standard_normal(parameter.shape)
        moved = {**weights, name: weights[name] + 1j * STEP * direction}
        expected = independent.cross_entropy(in_numpy(moved, row[:-1]), row[1:]).imag / STEP
        ours = float((parameter.grad * torch.from_numpy(direction)).sum())
        assert ours == pytest.approx(expected, rel=1e-9, abs=EXACT), name
        proof("ngpt", ORACLE, gradients=abs(ours - expected) / max(abs(expected), EXACT))


@torch.no_grad()
def test_the_independent_implementation_is_decoded_too(proof: Proof) -> None:
    model = small()
    tokens = tokens_for(model.spec, batch=1, length=12)
    expected = in_numpy(plain(model), tokens[0].numpy()).real
    state, parts = model.initial_state(1), []
    for chunk in tokens.split((5, 1, 1, 3, 2), dim=1):
        out = model(chunk, state=state)
        state = out.state
        parts.append(out.logits[0].numpy())
    np.testing.assert_allclose(np.concatenate(parts), expected, rtol=0, atol=EXACT)
    proof("ngpt", ORACLE, decoding=largest(np.concatenate(parts), expected))


def unit(values: Tensor, axis: int) -> float:
    """Largest distance of a norm from 1."""
    return (values.float().norm(dim=axis) - 1).abs().max().item()


def test_weights_stay_on_the_sphere() -> None:
    model = wt.build(wt.recipes.get("ngpt")(vocab=50, layers=2, width=64))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
    tokens = tokens_for(model.spec, batch=2, length=9)
    for _ in range(3):
        for name, role in roles(model).items():
            if role.kind != "gain":
                assert unit(model.get_parameter(name), 0 if role.kind == "writes" else 1) < 1e-6, name
        optimiser.zero_grad()
        model.loss(tokens, tokens).total.backward()
        optimiser.step()
        assert unit(model.get_parameter("head.weight"), 1) > 1e-3
        model.project_()


def test_weights_stored_in_bfloat16_stay_near_the_sphere() -> None:
    """At the published width of 1024, where the rounding of many entries averages out: 0.9997 to 1.0003."""
    model = wt.build(wt.recipes.get("ngpt")(vocab=50, layers=1, width=1024, hidden=1536))
    model.to(torch.bfloat16).project_()
    for name, role in roles(model).items():
        if role.kind != "gain":
            assert unit(model.get_parameter(name), 0 if role.kind == "writes" else 1) < 4e-4, name


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, EXACT)])
@torch.no_grad()
def test_hidden_states_stay_on_the_sphere(dtype: torch.dtype, tolerance: float) -> None:
    model = model_of("ngpt", dtype=dtype)
    model.project_()
    tokens = tokens_for(model.spec)
    x, context = model.embedding(tokens, model.context_of(tokens)), Context(torch.arange(tokens.shape[1]))
    for block in model.blocks.values():
        assert (x.norm(dim=-1) - 1).abs().max() < tolerance
        x = block(x, context).hidden
    assert (x.norm(dim=-1) - 1).abs().max() < tolerance


@torch.no_grad()
def test_at_rate_one_the_stream_is_the_last_branch() -> None:
    model = small()
    block = model.blocks["0"]
    assert isinstance(block, BlockLayer)
    for name in ("mixer_rate", "mlp_rate"):
        block.residual.get_submodule(name).get_parameter("weight").fill_(3 / ROOT)
    x = F.normalize(torch.randn(2, 7, 64, dtype=torch.float64), dim=-1)
    context = Context(torch.arange(7))
    mixed = F.normalize(block.mixer(x, context)[0], dim=-1)
    expected = F.normalize(block.mlp(mixed, Context(torch.arange(mixed.shape[1]))).hidden, dim=-1)
    torch.testing.assert_close(block(x, context).hidden, expected, rtol=0, atol=EXACT)


@pytest.mark.parametrize("name", ["mlp.up_scale.weight", "mlp.down.weight", "mixer.o.weight"])
@torch.no_grad()
def test_a_positive_factor_on_a_branch_cancels(name: str) -> None:
    model = small()
    tokens = tokens_for(model.spec)
    before = model(tokens).logits
    for index, factor in enumerate((3.7, 0.01, 40.0)):
        model.get_parameter(f"blocks.{index}.{name}").mul_(factor)
    torch.testing.assert_close(model(tokens).logits, before, rtol=0, atol=EXACT)


@torch.no_grad()
def test_the_sign_of_a_rate_has_no_meaning() -> None:
    model = small()
    tokens = tokens_for(model.spec)
    before = model(tokens).logits
    for name, parameter in model.named_parameters():
        if name.endswith("_rate.weight"):
            parameter.neg_()
    assert torch.equal(model(tokens).logits, before)


@torch.no_grad()
def test_scores_are_bounded() -> None:
    """|sqrt(k) q·k| <= sqrt(k) max(s_qk²); with s_qk = 1 at most sqrt(k)."""
    model = wt.build(wt.recipes.get("ngpt")(vocab=50, layers=1, width=64))
    mixer = model.blocks["0"].mixer
    q, k, _ = mixer.project(torch.randn(2, 30, 64), Context(torch.arange(30)))
    assert mixer.scale == 4.0
    torch.testing.assert_close(q.norm(dim=-1), torch.ones(2, 4, 30))
    assert (mixer.scale * q @ k.transpose(-1, -2)).abs().max() <= 4.0 * (1 + 1e-6)


@torch.no_grad()
def test_variances_that_the_scales_restore() -> None:
    """var(q̂·k̂) = 1/k for random unit vectors; entries of (h W_v) sqrt(d) have deviation 1."""
    one, other = (F.normalize(torch.randn(20_000, 64), dim=-1) for _ in range(2))
    assert (one * other).sum(-1).var().item() * 64 == pytest.approx(1.0, abs=0.04)
    model = wt.build(wt.recipes.get("ngpt")(vocab=50, layers=1, width=256))
    hidden = F.normalize(torch.randn(64, 256), dim=-1)
    gate = F.linear(hidden, model.get_parameter("blocks.0.mlp.gate.weight")) * 16
    assert gate.std().item() == pytest.approx(1.0, abs=0.02)


@torch.no_grad()
def test_initial_loss_is_that_of_a_uniform_guess() -> None:
    model = wt.build(wt.recipes.get("ngpt")(vocab=256, layers=4, width=128))
    tokens = tokens_for(model.spec, batch=8, length=128)
    targets = torch.randint(0, 256, tokens.shape)
    assert model.loss(tokens, targets).total.item() == pytest.approx(math.log(256), abs=0.01)


def test_a_scale_moves_by_initial_over_rate() -> None:
    """Adam moves what is stored by lr; what counts moves by lr * initial / rate, from the same first value."""
    learning_rate = 1e-3
    for initial, rate in ((1.0, 1.0), (1.0, 0.125), (0.05, 0.125)):
        layer = Scale(initial=initial, rate=rate).build(5, 64)
        with torch.no_grad():
            layer.weight.fill_(rate)
        optimiser = torch.optim.Adam(layer.parameters(), lr=learning_rate)
        before = layer().detach().clone()
        torch.testing.assert_close(before, torch.full((5,), initial))
        layer().sum().backward()
        optimiser.step()
        moved = (before - layer().detach()).mean().item()
        assert moved == pytest.approx(learning_rate * initial / rate, rel=1e-4)


def test_scales_start_where_the_papers_table_says() -> None:
    spec = wt.recipes.get("ngpt")(size="0.5b")
    mixer, mlp = spec.blocks[0].mixer, spec.blocks[0].mlp
    rate = 1024**-0.5
    with torch.device("meta"):
        found = {
            "s_qk": mixer.query_key_scale.build(1, 1024).factor,  # type: ignore[attr-defined]
            "s_u": mlp.up_scale.build(1, 1024).factor,  # type: ignore[union-attr]
            "s_v": mlp.gate_scale.build(1, 1024).factor,  # type: ignore[union-attr]
            "s_z": spec.head.token_scale.build(1, 1024).factor,  # type: ignore[union-attr]
            "a": spec.blocks[0].residual.rate.build(1, 1024).factor,  # type: ignore[attr-defined]
        }
    expected = {"s_qk": 1 / rate, "s_u": 1.0, "s_v": 1.0, "s_z": 1 / rate, "a": 0.05 / rate}
    assert found == pytest.approx(expected)


@torch.no_grad()
def test_only_distances_matter_while_s_qk_is_even() -> None:
    """Shifting a text changes nothing; would have caught the rotary bug of the authors' code."""
    model = wt.build(wt.recipes.get("ngpt")(vocab=50, layers=2, width=64)).to(torch.float64)
    x = F.normalize(torch.randn(1, 12, 64, dtype=torch.float64), dim=-1)
    near, far = (model.blocks["0"].mixer(x, Context(torch.arange(12) + shift))[0] for shift in (0, 100))
    torch.testing.assert_close(near, far, rtol=0, atol=EXACT)
