"""Rotary positions stretched over more than the trained context: theirs, the papers' numbers, and identities."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

import windtunnel as wt
from tests.proof import Proof
from tests.test_positions import EXACT, heads, rotated
from windtunnel.errors import InputError
from windtunnel.mixers import Attention
from windtunnel.positions import NTK, DynamicNTK, Interpolation, Llama3, Rope, Scaling, YaRN, scaled, scaling_for

SINGLE = 1e-7  # relative to the largest entry: theirs are computed in float32
NEAR = 3e-6  # relative to each entry
SCALINGS: list[Scaling] = [
    Interpolation(factor=4),
    NTK(factor=4),
    DynamicNTK(factor=2, trained=16, length=40),
    YaRN(factor=4, trained=32),
    YaRN(factor=8, trained=64, ramp="rotations", fast=8),
    Llama3(factor=8, trained=64),
]
every_scaling = pytest.mark.parametrize("scaling", SCALINGS, ids=str)


def frequencies(scaling: Scaling | None, width: int = 128, theta: float = 10_000.0) -> Tensor:
    return Rope(theta=theta, scaling=scaling).frequencies(width)


def theirs(width: int, theta: float, trained: int, length: int | None = None, **given: Any) -> tuple[Tensor, float]:
    """The frequencies and the attention factor of transformers."""
    config = LlamaConfig(
        hidden_size=width,
        num_attention_heads=1,
        max_position_embeddings=trained if given["rope_type"] == "dynamic" else int(trained * given["factor"]),
        rope_parameters={"rope_theta": theta, **given},
    )
    found, magnitude = ROPE_INIT_FUNCTIONS[given["rope_type"]](config, torch.device("cpu"), seq_len=length)
    return found.double(), magnitude


def original(trained: int, **given: Any) -> dict[str, Any]:
    return {"original_max_position_embeddings": trained, **given}


LLAMA3 = original(8192, rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
HELD: dict[str, tuple[Scaling, dict[str, Any]]] = {
    "linear": (Interpolation(factor=8), {"trained": 2048, "rope_type": "linear", "factor": 8.0}),
    "dynamic": (
        DynamicNTK(factor=2, trained=2048, length=5000),
        {"trained": 2048, "length": 5000, "rope_type": "dynamic", "factor": 2.0},
    ),
    "dynamic, short": (
        DynamicNTK(factor=2, trained=2048, length=100),
        {"trained": 2048, "length": 100, "rope_type": "dynamic", "factor": 2.0},
    ),
    "NTK": (NTK(factor=3), {"trained": 2048, "length": 4096, "rope_type": "dynamic", "factor": 2.0}),
    "YaRN": (
        YaRN(factor=16, trained=4096),
        {"trained": 4096, **original(4096, rope_type="yarn", factor=16.0)},
    ),
    "YaRN, not truncated": (
        YaRN(factor=32, trained=4096, truncate=False),
        {"trained": 4096, **original(4096, rope_type="yarn", factor=32.0, truncate=False)},
    ),
    "YaRN, ends given": (
        YaRN(factor=4, trained=8192, fast=8, slow=2, attention=1.25),
        {
            "trained": 8192,
            **original(8192, rope_type="yarn", factor=4.0, beta_fast=8, beta_slow=2, attention_factor=1.25),
        },
    ),
    "YaRN, beyond both ends": (
        YaRN(factor=4, trained=200_000),
        {"trained": 200_000, **original(200_000, rope_type="yarn", factor=4.0)},
    ),
    "Llama 3": (Llama3(), {"trained": 8192, **LLAMA3}),
}


@pytest.mark.parametrize("width", [128, 64, 6])
@pytest.mark.parametrize("theta", [10_000.0, 500_000.0])
@pytest.mark.parametrize("name", HELD)
def test_frequencies_are_those_of_transformers(name: str, width: int, theta: float, proof: Proof) -> None:
    scaling, given = HELD[name]
    expected, magnitude = theirs(width, theta, **given)
    found = frequencies(scaling, width, theta)
    assert scaling.magnitude == pytest.approx(magnitude, abs=1e-12)
    error = ((found - expected).abs().max() / expected.max()).item()
    assert error < SINGLE
    torch.testing.assert_close(found, expected, rtol=NEAR, atol=0)
    what = f"transformers ROPE_INIT_FUNCTIONS[{given['rope_type']}]"
    proof(f"rotary scaling {type(scaling).__name__}", what, frequencies=error)


@pytest.mark.parametrize("scaling", [Interpolation(factor=4), YaRN(factor=4, trained=32, attention=1.0)], ids=str)
def test_interpolated_positions_stay_in_the_trained_interval(scaling: Scaling) -> None:
    """The slowest pair turns at position N - 1 by less than it did at L."""
    slowest = frequencies(scaling)[-1] * (4 * 32 - 1)
    assert slowest < frequencies(None)[-1] * 32


def test_interpolated_scores_are_those_of_positions_divided_by_the_factor() -> None:
    q, k = heads(), heads()
    plain, stretched = Rope(), Rope(scaling=Interpolation(factor=2))
    for first in (0, 8):
        long = rotated(stretched, q, first)[:, :, ::2] @ rotated(stretched, k, first)[:, :, ::2].mT
        short = rotated(plain, q[:, :, ::2], first // 2) @ rotated(plain, k[:, :, ::2], first // 2).mT
        torch.testing.assert_close(long, short, rtol=0, atol=EXACT)


def test_ntk_keeps_the_fastest_and_divides_the_slowest() -> None:
    ratio = frequencies(NTK(factor=8)) / frequencies(None)
    assert ratio[0] == 1
    assert ratio[-1].item() == pytest.approx(1 / 8)
    raised = 10_000 * 8 ** (128 / 126)
    torch.testing.assert_close(frequencies(NTK(factor=8)), frequencies(None, theta=raised))
    assert torch.equal(frequencies(NTK(factor=8), width=2), frequencies(None, width=2))


def test_the_base_of_dynamic_ntk() -> None:
    """Factor 2, trained at 2048, 4096 tokens: s = 3 and a base of 30527.74."""
    found = frequencies(DynamicNTK(factor=2, trained=2048, length=4096))
    torch.testing.assert_close(found, frequencies(None, theta=30_527.74), rtol=1e-6, atol=0)
    for length in (1, 2048):
        assert torch.equal(frequencies(DynamicNTK(factor=2, trained=2048, length=length)), frequencies(None))


@pytest.mark.parametrize(
    ("trained", "fast", "slow"), [(2048, 16.13, 40.21), (4096, 20.94, 45.03), (8192, 25.76, 49.84)]
)
def test_the_ends_of_yarns_ramp(trained: int, fast: float, slow: float) -> None:
    low, high = math.floor(fast), math.ceil(slow)
    ratio = frequencies(YaRN(factor=16, trained=trained)) / frequencies(None)
    assert (ratio[: low + 1] == 1).all()
    assert (ratio[low + 1 : high] < 1).all()
    assert (ratio[low + 1 : high] > 1 / 16).all()
    torch.testing.assert_close(ratio[high:], torch.full_like(ratio[high:], 1 / 16))


def test_paper_and_code_of_yarn_are_different_functions() -> None:
    """D = 128, L = 4096, s = 16: at pair 38 the paper's frequency is 67 % smaller."""
    index = frequencies(YaRN(factor=16, trained=4096))
    rotations = frequencies(YaRN(factor=16, trained=4096, ramp="rotations"))
    assert (1 - rotations[38] / index[38]).item() == pytest.approx(0.67, abs=0.01)


def test_llama3_is_the_papers_blend_by_parts() -> None:
    """29 pairs kept, 6 blended, 29 divided at D = 128, base 500,000."""
    base, found = frequencies(None, theta=5e5), frequencies(Llama3(), theta=5e5)
    assert ((found == base).sum(), (found == base / 8).sum()) == (29, 29)
    parts = YaRN(factor=8, trained=8192, ramp="rotations", fast=4, slow=1, attention=1.0)
    assert torch.equal(found, frequencies(parts, theta=5e5))


def test_yarn_multiplies_scores_by_the_square_of_its_magnitude() -> None:
    scaling = YaRN(factor=16, trained=4096)
    assert scaling.magnitude == pytest.approx(1.2773, abs=1e-4)
    x = heads(length=3)
    found = rotated(Rope(scaling=scaling), x, 5)
    torch.testing.assert_close(found.norm(dim=-1), x.norm(dim=-1) * scaling.magnitude)
    calm = rotated(Rope(scaling=scaling.replace(attention=1.0)), x, 5)
    torch.testing.assert_close(found @ found.mT, 1.6314 * (calm @ calm.mT), rtol=1e-4, atol=0)


@every_scaling
def test_scores_depend_on_distance_alone(scaling: Scaling) -> None:
    q, k, rope = heads(), heads(), Rope(scaling=scaling, layout="interleaved", width=8)
    near = rotated(rope, q) @ rotated(rope, k).mT
    far = rotated(rope, q, 1000) @ rotated(rope, k, 1000).mT
    torch.testing.assert_close(near, far, rtol=0, atol=EXACT * 10)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Interpolation(factor=1),
        lambda: NTK(factor=1),
        lambda: YaRN(factor=1, trained=99),
        lambda: Llama3(factor=1),
    ],
)
def test_a_factor_of_one_changes_nothing(make: Callable[[], Scaling]) -> None:
    scaling = make()
    torch.testing.assert_close(frequencies(scaling), frequencies(None), rtol=1e-15, atol=0)
    assert scaling.magnitude == 1


@every_scaling
@pytest.mark.parametrize("recipe", ["llama", "palm", "diff_transformer", "ngpt"])
@torch.no_grad()
def test_decoding_a_token_at_a_time_is_the_full_pass(scaling: Scaling, recipe: str) -> None:
    """Of any recipe with rotary positions, past the trained context."""
    plain = wt.recipes.get(recipe)(vocab=31, layers=2, width=32, context=32)
    spec = scaled(plain, scaling)
    model, unscaled = wt.build(spec).double(), wt.build(plain).double()
    tokens = torch.randint(0, 31, (2, 40), generator=torch.Generator().manual_seed(0))
    whole, state, parts = model(tokens).logits, model.initial_state(2), []
    for token in tokens.split(1, dim=1):
        out = model(token, state=state)
        parts.append(out.logits)
        state = out.state
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-10)
    assert (unscaled(tokens).logits - whole).abs().max() > 1e-4


def test_a_recipe_is_extended_by_name() -> None:
    spec = wt.recipes.get("llama")(layers=2, width=32, context=64)
    for method, expected in {
        "linear": Interpolation(factor=4),
        "ntk": NTK(factor=4),
        "dynamic": DynamicNTK(trained=64, length=256),
        "yarn": YaRN(factor=4, trained=64),
        "llama3": Llama3(factor=4, trained=64),
    }.items():
        found = spec.extended(method, 256)
        assert found.context == 256
        assert found == scaled(spec, expected).replace(context=256)
        for block in found.blocks:
            assert isinstance(block.mixer, Attention)
            assert block.mixer.rope == Rope(scaling=expected)
        assert [*found.build().state_dict()] == [*spec.build().state_dict()]
        assert scaled(found, None).replace(context=64) == spec
        again = wt.from_json(found.to_json())
        assert again == found
    assert scaling_for("linear", 64, 10) == Interpolation(factor=1)
    assert spec.extended("yarn", 256, trained=128) == spec.extended("linear", 256).replace(
        blocks=scaled(spec, YaRN(factor=2, trained=128)).blocks
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Interpolation(factor=0.5), r"factor.*at least 1.*0.5"),
        (lambda: YaRN(factor=2, trained=0), r"trained.*positive.*0"),
        (lambda: YaRN(factor=2, trained=8, fast=1, slow=1), r"slow 1.0.*less than fast 1.0"),
        (lambda: YaRN(factor=2, trained=8, attention=0), r"attention.*positive"),
        (lambda: Llama3(low=4), r"low 4.0.*less than high 4.0"),
        (lambda: DynamicNTK(trained=8, length=0), r"length.*positive"),
        (lambda: wt.recipes.get("gpt3")(layers=1, width=32).extended("yarn", 512), "no rotary positions"),
        (lambda: wt.recipes.get("llama")(layers=1, width=32).extended("yarm", 512), r"'yarm'.*yarn"),
    ],
)
def test_refusals(make: Callable[[], object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()
