"""Mamba against `transformers.MambaForCausalLM`, the paper's initial values, and what its equations imply."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import MambaConfig, MambaForCausalLM

import windtunnel as wt
from tests.proof import Proof
from tests.recipes.cases import model_of
from tests.recipes.oracle import Weights, agree, decode_alike, renamed
from windtunnel.init import roles
from windtunnel.layer import Context
from windtunnel.mixers import Mamba
from windtunnel.mixers.mamba import MambaLayer
from windtunnel.model import LanguageModel
from windtunnel.training.optimisers.groups import parameter_groups

NAMES = {
    "backbone.embeddings.weight": "embedding.weight",
    "backbone.norm_f.weight": "norm.weight",
    "backbone.layers.*.norm.weight": "blocks.*.residual.mixer_norm.weight",
    "backbone.layers.*.mixer.A_log": "blocks.*.mixer.log_rates",
    "backbone.layers.*.mixer.D": "blocks.*.mixer.skip",
    "backbone.layers.*.mixer.conv1d.weight": "blocks.*.mixer.conv_weight",
    "backbone.layers.*.mixer.conv1d.bias": "blocks.*.mixer.conv_bias",
    "backbone.layers.*.mixer.dt_proj.weight": "blocks.*.mixer.step_weight",
    "backbone.layers.*.mixer.dt_proj.bias": "blocks.*.mixer.step_bias",
    "backbone.layers.*.mixer.out_proj.weight": "blocks.*.mixer.out.weight",
}
JOINED = {"in_proj": ("u", "z"), "x_proj": ("step_low", "into", "out_of")}
SETTINGS: dict[str, dict[str, Any]] = {
    "as published": {},
    "odd sizes": {"width": 50, "hidden": 37, "state": 5, "taps": 3, "vocab": 41, "layers": 1},
}
# It does not go on from a state with more than one token at a time.
CHUNKS = (7, *[1] * 9)


def theirs(spec: LanguageModel) -> MambaForCausalLM:
    mixer = spec.blocks[0].mixer
    assert isinstance(mixer, Mamba)
    config = MambaConfig(
        vocab_size=spec.vocab,
        hidden_size=spec.width,
        state_size=mixer.state,
        num_hidden_layers=len(spec.blocks),
        conv_kernel=mixer.taps,
        layer_norm_epsilon=spec.norm.eps,  # type: ignore[union-attr]
        residual_in_fp32=False,
        time_step_rank=math.ceil(spec.width / 16),
        tie_word_embeddings=True,
    )
    config.intermediate_size = mixer.hidden
    return MambaForCausalLM(config)


def mapped(weights: Weights) -> dict[str, Tensor]:
    found = renamed(weights, NAMES)
    for name in [name for name in found if name.endswith("conv1d.weight")]:
        found[name] = found[name][:, None]
        layer = name.split(".")[2]
        for joined, parts in JOINED.items():
            linears = [weights[f"blocks.{layer}.mixer.{part}.weight"] for part in parts]
            found[f"backbone.layers.{layer}.mixer.{joined}.weight"] = torch.cat(linears)
    return found


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_values_gradients_and_cached_decoding(settings: dict[str, Any], proof: Proof) -> None:
    ours = model_of("mamba", dtype=torch.float64, **settings)
    other = theirs(ours.spec)
    seen = agree(ours, other, mapped) | decode_alike(ours, other, mapped, CHUNKS)
    proof("mamba", "transformers MambaForCausalLM", **seen)


@torch.no_grad()
def test_initial_values_are_the_papers() -> None:
    model = wt.build(wt.recipes.get("mamba")(layers=3, width=256, vocab=50))
    for block in model.blocks.values():
        mixer: MambaLayer = block.mixer
        step = F.softplus(mixer.step_bias)
        assert 1e-3 * 0.999 < step.min().item() < 1.2e-3
        assert 0.08 < step.max().item() < 1e-1 * 1.001
        centre = step.log().mean().item()  # log-uniform: standard error 1.33 / sqrt(512)
        assert centre == pytest.approx((math.log(1e-3) + math.log(1e-1)) / 2, abs=0.25)
        torch.testing.assert_close(mixer.rates(step)[3], -torch.arange(1.0, 17.0), rtol=1e-6, atol=0)
        for weight, bound in (
            (mixer.step_weight, 16**-0.5),
            (mixer.u.weight, 256**-0.5),
            (mixer.into.weight, 512**-0.5),
            (mixer.out.weight, (512 * 3) ** -0.5),
            (mixer.conv_weight, 0.5),
            (mixer.conv_bias, 0.5),
        ):
            assert 0.97 * bound < weight.abs().max().item() <= bound
            assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
    assert model.embedding.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_what_is_not_decayed() -> None:
    model = wt.build(wt.recipes.get("mamba")(layers=1, width=32, vocab=10))
    decayed, free = parameter_groups(model, 0.1)
    names = {id(parameter): name.removeprefix("blocks.0.") for name, parameter in model.named_parameters()}
    assert {names[id(parameter)] for parameter in free["params"]} == {
        "residual.mixer_norm.weight",
        "norm.weight",
        *(f"mixer.{name}" for name in ("log_rates", "skip", "step_bias", "conv_bias")),
    }
    assert "mixer.conv_weight" in {names[id(parameter)] for parameter in decayed["params"]}


@pytest.mark.parametrize(("width", "expected"), [(128, 116_480), (768, 3_770_880)])
def test_parameters_of_a_block(width: int, expected: int) -> None:
    """2 D d + 5 d + d (R + 2 N) + (R + 1) d + d N + d + d D with d = 2 D, N = 16, R = D / 16."""
    mixer = Mamba(hidden=2 * width).build(width)
    assert sum(parameter.numel() for parameter in mixer.parameters()) == expected
    assert set(roles(mixer)) == {name for name, _ in mixer.named_parameters()}


@torch.no_grad()
@pytest.mark.parametrize(("bias", "remembers"), [(-40.0, False), (8.0, True)])
def test_the_step_gates_reading_and_forgetting(bias: float, remembers: bool) -> None:
    """Δ → 0 reads nothing: y = D u is all there is. A large Δ forgets all but the token itself (section 3.5.2)."""
    mixer = wt.build(wt.recipes.get("mamba")(layers=1, width=32, vocab=10)).double().blocks["0"].mixer
    mixer.step_weight.zero_()
    mixer.step_bias.fill_(bias)
    x = torch.randn(1, 9, 32, dtype=torch.float64)
    context = Context(torch.arange(9))
    state = mixer.initial_state(1, x.device, x.dtype)
    _, after = mixer(x, context, state)
    assert (after.memory.abs().max() > 1e-3).item() == remembers
    _, last = mixer(x[:, -1:], context, after._replace(memory=torch.zeros_like(after.memory), past=_before(mixer, x)))
    assert torch.allclose(after.memory, last.memory, rtol=0.01, atol=1e-12)


def _before(mixer: MambaLayer, x: Tensor) -> Tensor:
    """The convolution's inputs before the last token."""
    return mixer.u(x)[:, -mixer.taps : -1]
