"""Griffin's recurrent block: its parts against dense and plain forms, its initial values, its documents, its nulls."""

import math

import pytest
import torch
from torch import Tensor

import windtunnel as wt
from tests.proof import Proof
from tests.recipes.cases import model_of, spec_of, tokens_for
from windtunnel.init import roles
from windtunnel.layer import Context
from windtunnel.mixers import RGLRU, Attention, Recurrent
from windtunnel.mixers.recurrent import RecurrentLayer
from windtunnel.mixers.rg_lru import BlockDiagonalLayer, RGLRULayer

EXACT = 1e-12


def context(length: int, documents: Tensor | None = None) -> Context:
    return Context(torch.arange(length), documents)


def filled(layer: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """The layer in float64 with random parameters; decays as they start."""
    draw = torch.Generator().manual_seed(seed)
    layer = layer.to(torch.float64)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64) * 0.5)
            if name.endswith("decay"):
                parameter.sub_(4)
    return layer


def block(width: int = 6, channels: int = 8) -> RecurrentLayer:
    layer = filled(Recurrent(recurrent_width=channels, recurrence=RGLRU(blocks=2)).build(width))
    assert isinstance(layer, RecurrentLayer)
    return layer


def test_block_diagonal_is_dense_with_zeros_elsewhere() -> None:
    layer, x = filled(BlockDiagonalLayer(12, 3)), torch.randn(2, 5, 12, dtype=torch.float64)
    dense = torch.block_diag(*layer.weight)  # type: ignore[arg-type]
    torch.testing.assert_close(layer(x), x @ dense + layer.bias, rtol=0, atol=EXACT)


def test_the_unit_is_its_equations_token_by_token(proof: Proof) -> None:
    layer, x = filled(RGLRU(blocks=2).build(8)), torch.randn(2, 11, 8, dtype=torch.float64)
    assert isinstance(layer, RGLRULayer)
    h, states = torch.zeros(2, 8, dtype=torch.float64), []
    for t in range(11):
        r = torch.sigmoid(x[:, t] @ torch.block_diag(*layer.decay_gate.weight) + layer.decay_gate.bias)
        i = torch.sigmoid(x[:, t] @ torch.block_diag(*layer.input_gate.weight) + layer.input_gate.bias)
        a = torch.sigmoid(-layer.decay) ** (8 * r)
        h = i * x[:, t] if t == 0 else a * h + (1 - a**2).sqrt() * i * x[:, t]
        states.append(h)
    expected = torch.stack(states, 1)
    torch.testing.assert_close(layer(x, context(11)), expected, rtol=0, atol=EXACT)
    error = (layer(x, context(11)) - expected).abs().max() / expected.abs().max()
    proof("RG-LRU", "its equations token by token", values=error.item())


def test_a_document_starts_from_nothing() -> None:
    layer, x = block(), torch.randn(1, 12, 6, dtype=torch.float64)
    documents = torch.tensor([[0] * 5 + [1] * 7])
    packed, _ = layer(x, context(12, documents))
    alone = [layer(part, context(part.shape[1]))[0] for part in x.split((5, 7), dim=1)]
    torch.testing.assert_close(packed, torch.cat(alone, 1), rtol=0, atol=EXACT)


def test_the_state_is_of_fixed_size_and_owns_its_memory() -> None:
    layer = block()
    state = layer.initial_state(2, torch.device("cpu"), torch.float64)
    for length in (1, 2, 40):
        _, state = layer(torch.randn(2, length, 6, dtype=torch.float64), context(length), state)
        assert [tuple(tensor.shape) for tensor in state] == [(2, 8), (2, 3, 8)]
        assert all(tensor.untyped_storage().nbytes() == tensor.numel() * 8 for tensor in state)


def test_the_recurrence_stays_in_float32_under_bfloat16() -> None:
    layer = block().to(torch.bfloat16)
    state = layer.initial_state(1, torch.device("cpu"), torch.bfloat16)
    y, state = layer(torch.randn(1, 5, 6).bfloat16(), context(5), state)
    assert (y.dtype, state.hidden.dtype, state.inputs.dtype) == (torch.bfloat16, torch.float32, torch.bfloat16)


@pytest.mark.parametrize(("memory", "exponent", "low", "high"), [("text", 8, 0.9, 0.999), ("code", 2, 0.81, 0.998001)])
def test_decays_start_uniformly_in_their_ring(memory: str, exponent: int, low: float, high: float) -> None:
    """a^8 uniform in [0.9, 0.999] as the text says, a² in [0.9², 0.999²] as the code does."""
    spec = RGLRU(memory=memory)  # type: ignore[arg-type]
    parameter = spec.draw(torch.Size([20_000]), torch.Generator().manual_seed(0))
    ring = torch.sigmoid(-parameter) ** exponent
    assert low - 1e-9 <= ring.min().item() < low + 1e-3
    assert high - 1e-3 < ring.max().item() <= high + 1e-9
    assert ring.mean().item() == pytest.approx((low + high) / 2, abs=4 * (high - low) / math.sqrt(12 * 20_000))
    assert ring.std().item() == pytest.approx((high - low) / math.sqrt(12), rel=0.02)
    bounds = (4.32, 8.99) if memory == "text" else (2.19, 6.91)
    assert bounds[0] - 0.01 < (-parameter).min() < (-parameter).max() < bounds[1] + 0.01


def test_initial_deviations_are_the_published_ones() -> None:
    """1/sqrt(fan-in); sqrt(2 / layers) of it for what writes to the stream; 0.05 for the convolution."""
    spec = spec_of("griffin", layers=8)
    model = wt.build(spec)
    found = roles(model)
    expected = {
        "embedding.weight": 1 / 8,
        "blocks.0.mixer.x.weight": 1 / 8,
        "blocks.0.mixer.o.weight": math.sqrt(2 / 8 / 80),
        "blocks.0.mixer.conv.weight": 0.05,
        "blocks.0.mixer.recurrence.decay_gate.weight": 1 / math.sqrt(5),
        "blocks.0.mlp.gate.weight": 1 / 8,
        "blocks.0.mlp.down.weight": math.sqrt(2 / 8 / 192),
        "blocks.2.mixer.o.weight": math.sqrt(2 / 8 / 64),
    }
    for name, deviation in expected.items():
        role = found[name]
        assert deviation == pytest.approx(
            role.deviation if role.deviation is not None else spec.initial.deviation(role, 8)
        ), name


def test_the_window_counts_back_from_the_query() -> None:
    """A token `window` back is seen, one more is not (the authors' mask: 0 <= q - k <= window)."""
    model = model_of("griffin", layers=1, pattern="A", window=5, dtype=torch.float64)
    tokens = tokens_for(model.spec, batch=1, length=20)
    for distance, seen in ((4, True), (5, True), (6, False), (7, False)):
        changed = tokens.clone()
        changed[0, -1 - distance] = (changed[0, -1 - distance] + 1) % model.spec.vocab
        same = torch.equal(model(tokens).logits[0, -1], model(changed).logits[0, -1])
        assert same is not seen, distance


@torch.no_grad()
def test_bounded_logits() -> None:
    model = model_of("griffin", soft_cap=30.0, scaled=True)
    model.embedding.weight.mul_(40)
    logits = model(tokens_for(model.spec)).logits
    assert 25 < logits.abs().max() <= 30


def test_the_pattern_is_cut_off_at_the_last_layer() -> None:
    kinds = [type(block.mixer) for block in spec_of("griffin", layers=8).blocks]
    assert kinds == [Recurrent, Recurrent, Attention] * 2 + [Recurrent] * 2


@pytest.mark.parametrize(
    ("recipe", "settings", "message"),
    [
        ("griffin", {"pattern": "RRX"}, "pattern.*'RRX'"),
        ("griffin", {"pattern": ""}, "pattern"),
        ("griffin", {"window": 0}, "window.*0"),
        ("griffin", {"recurrent_width": 50}, "recurrent_width: 50.*16"),
        ("hawk", {"heads": 7}, "heads: 7.*64"),
    ],
)
def test_refusals(recipe: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spec_of(recipe, **settings)


def test_refusals_of_the_parts() -> None:
    with pytest.raises(ValueError, match="blocks 3"):
        RGLRU(blocks=3).build(8)
    with pytest.raises(ValueError, match="taps"):
        Recurrent(recurrent_width=8, taps=1)
    with pytest.raises(ValueError, match="memory"):
        RGLRU(memory="paper")  # type: ignore[arg-type]
