"""Sparse attention: every route against the equation with a mask, plain attention, torch's FlexAttention and reach."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.utils._python_dispatch import TorchDispatchMode

import windtunnel as wt
from tests.mixers.test_patterns import PATTERNS
from tests.proof import Proof
from windtunnel.init import FanIn, initialize
from windtunnel.layer import Context
from windtunnel.mixers import Attention, BigBird, Fixed, Pattern, Sliding, SparseAttention, Strided, sparse
from windtunnel.mixers.base import merge_heads
from windtunnel.mixers.sparse import SparseAttentionLayer
from windtunnel.positions import Rope

WIDTH, HEADS = 16, 4
EXACT = {"rtol": 1e-10, "atol": 1e-12}
MIXED = (Sliding(window=5), Sliding(window=5), Sliding(window=5, dilation=3), Fixed(stride=6, columns=2))
GLOBAL = (Sliding(window=5, prefix=3), Sliding(window=5, prefix=3), *(Sliding(window=4, dilation=2, prefix=3),) * 2)


def layer(**given: Any) -> SparseAttentionLayer:
    """A layer in float64 with biases that are felt."""
    module = SparseAttention(heads=HEADS, **{"kv_heads": 2, "rope": Rope(), "bias": True, **given}).build(WIDTH)
    initialize(module, FanIn(), seed=0, layers=1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 1:
                parameter.normal_(generator=torch.Generator().manual_seed(len(parameter)))
    return module.double()


def hidden(length: int, batch: int = 2) -> Tensor:
    draw = torch.Generator().manual_seed(length)
    return torch.randn(batch, length, WIDTH, dtype=torch.float64, generator=draw).requires_grad_()


def by_maps(module: SparseAttentionLayer, x: Tensor) -> Tensor:
    """The layer by its attention maps, which are made by a mask of all pairs; with the values of global tokens."""
    maps, values = module.attention_maps(x, context(x)), module.v(x).view(*x.shape[:2], 2, -1).transpose(1, 2)
    mixed = maps @ values.repeat_interleave(2, 1)
    if module.prefix is not None:
        size = module.prefix.size
        own = module.prefix.v(x[:, :size]).view(x.shape[0], -1, 2, mixed.shape[-1]).transpose(1, 2)
        mixed = torch.cat([maps[:, :, :size, :size] @ own.repeat_interleave(2, 1), mixed[:, :, size:]], 2)
    result: Tensor = module.o(merge_heads(mixed))
    return result


def context(x: Tensor, documents: Tensor | None = None, first: int = 0) -> Context:
    return Context(torch.arange(first, first + x.shape[1]), documents, reach=first + x.shape[1])


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Routes of long sequences at sizes that are quick."""
    monkeypatch.setattr(sparse, "LONGEST", 12)


def assert_same(ours: Tensor, expected: Tensor, module: SparseAttentionLayer, x: Tensor) -> None:
    torch.testing.assert_close(ours, expected, **EXACT)
    weights = torch.randn(ours.shape, dtype=ours.dtype, generator=torch.Generator().manual_seed(9))
    inputs = [x, *module.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(ours, inputs, weights), torch.autograd.grad(expected, inputs, weights), **EXACT
    )


@given(patterns=PATTERNS.map(lambda one: (one,)) | st.tuples(*[PATTERNS] * HEADS), length=st.integers(1, 90))
@settings(max_examples=40)
def test_long_and_short_sequences_against_the_maps(patterns: tuple[Pattern, ...], length: int) -> None:
    module, x = layer(patterns=patterns), hidden(length)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse, "LONGEST", 12)
        assert_same(module(x, context(x))[0], by_maps(module, x), module, x)


@pytest.mark.parametrize("length", [2, 3, 11, 70])
def test_global_tokens_with_projections_of_their_own(length: int) -> None:
    module, x = layer(patterns=GLOBAL, own_prefix=True), hidden(length)
    assert_same(module(x, context(x))[0], by_maps(module, x), module, x)


@given(
    patterns=PATTERNS.map(lambda one: (one,)) | st.just(MIXED) | st.just(GLOBAL),
    ends=st.lists(st.integers(1, 79), max_size=4, unique=True),
    own=st.booleans(),
)
@settings(max_examples=30)
def test_documents_are_as_alone(patterns: tuple[Pattern, ...], ends: list[int], own: bool) -> None:
    module, x = layer(patterns=patterns, own_prefix=own and patterns == GLOBAL), hidden(40)
    ids = torch.zeros(80, dtype=torch.int64)
    for end in ends:
        ids[end:] += 1
    ids = ids.view(2, 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse, "LONGEST", 12)
        packed, alone = module(x, context(x, ids))[0], torch.empty_like(x)
        for row in range(2):
            for document in ids[row].unique():
                at = ids[row] == document
                alone[row, at] = module(x[row : row + 1, at], context(x[:, at]))[0][0]
        assert_same(packed, alone, module, x)


@pytest.mark.parametrize("patterns", [MIXED, GLOBAL, (Strided(stride=5),), (BigBird(block=4),), (Sliding(window=9),)])
@pytest.mark.parametrize("chunks", [(1,) * 70, (50, 1, 19), (3, 40, 2, 25), (70,)])
def test_decoding_by_chunks_keeps_little(patterns: tuple[Pattern, ...], chunks: tuple[int, ...]) -> None:
    """Over three times the largest window; the state is as large as the ledger says, and never grows without need."""
    module, x = layer(patterns=patterns, own_prefix=patterns == GLOBAL), hidden(70).detach()
    whole = module(x, context(x))[0]
    state, parts, first = module.initial_state(2, torch.device("cpu"), torch.float64), [], 0
    for chunk in x.split(chunks, 1):
        given_state = [tensor.clone() for tensor in state]
        y, after = module(chunk, context(chunk, first=first), state)
        assert all(torch.equal(a, b) for a, b in zip(given_state, state, strict=True))
        parts.append(y)
        state, first = after, first + chunk.shape[1]
        assert sum(each.numel() * 8 for each in state) == 2 * module.state_bytes(first, 8)
    torch.testing.assert_close(torch.cat(parts, 1), whole, **EXACT)
    most = {MIXED: (5 - 1) * 3 + 70 // 6 * 2 + 6, GLOBAL: 3 + 2 * 3 + 3, (Sliding(window=9),): 8}.get(patterns, 70)
    assert state.keys.shape[2] <= most


@pytest.mark.parametrize(
    "patterns", [MIXED, GLOBAL, (Strided(stride=5),), (Fixed(stride=7, columns=2),), (BigBird(block=3),)]
)
@pytest.mark.parametrize("length", [11, 64])
def test_outputs_are_bit_stable_when_later_tokens_change_or_go(patterns: tuple[Pattern, ...], length: int) -> None:
    module, x, at = layer(patterns=patterns), hidden(length).detach(), length - 9
    changed = x.clone()
    changed[:, at:] += 1
    whole = module(x, context(x))[0]
    assert torch.equal(whole[:, :at], module(changed, context(x))[0][:, :at])
    shorter = module(x[:, :at], context(x[:, :at]))[0]
    torch.testing.assert_close(whole[:, :at], shorter, rtol=0, atol=1e-14)


@pytest.mark.parametrize("length", [10, 50])
def test_a_window_over_everything_is_plain_attention(length: int) -> None:
    module, x = layer(patterns=(Sliding(window=length),), bias=False), hidden(length)
    plain = Attention(heads=HEADS, kv_heads=2, rope=Rope()).build(WIDTH).double()
    plain.load_state_dict(module.state_dict())
    assert torch.equal(module(x, context(x))[0], plain(x, context(x))[0])
    windowed = Attention(heads=HEADS, kv_heads=2, rope=Rope(), window=7).build(WIDTH).double()
    windowed.load_state_dict(module.state_dict())
    narrow = layer(patterns=(Sliding(window=7),), bias=False)
    assert torch.equal(narrow(x, context(x))[0], windowed(x, context(x))[0])


def test_one_pattern_for_all_heads_is_the_same_pattern_for_each() -> None:
    one, each = (layer(patterns=(Strided(stride=5),) * count) for count in (1, HEADS))
    x = hidden(40)
    torch.testing.assert_close(one(x, context(x))[0], each(x, context(x))[0], **EXACT)


@pytest.mark.parametrize(("window", "dilation", "layers"), [(3, 1, 1), (3, 1, 3), (3, 2, 2), (2, 3, 3)])
def test_gradients_reach_as_far_as_the_receptive_field(window: int, dilation: int, layers: int) -> None:
    """1 + the sum of d (w - 1) over the layers, in steps of d: every such token is felt and no other."""
    modules = [layer(patterns=(Sliding(window=window, dilation=dilation),)) for _ in range(layers)]
    x, at = hidden(40), 33
    y = x
    for module in modules:
        y = y + module(y, context(y))[0]
    felt = torch.autograd.grad(y[0, at].square().sum(), x)[0][0].abs().sum(-1) > 0
    reach = [at - dilation * step for step in range(layers * (window - 1) + 1)]
    assert felt.nonzero().flatten().tolist() == sorted(reach)
    assert at - min(reach) == layers * dilation * (window - 1)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@torch.no_grad()
def test_masks_by_head_are_flex_attentions(proof: Proof) -> None:
    """Torch's FlexAttention with the windows as its users write them, in eager mode, which looks at every pair."""
    length, window, prefix, dilations = 64, 5, 2, torch.tensor([1, 1, 2, 3])
    patterns = tuple(Sliding(window=window, dilation=int(d), prefix=prefix) for d in dilations)
    module, x = layer(patterns=patterns, kv_heads=None), hidden(length)

    def seen(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        near = ((query - key) % dilations[h] == 0) & ((query - key) // dilations[h] < window)
        return (query >= key) & (near | (key < prefix))

    blocks = create_block_mask(seen, None, HEADS, length, length, device="cpu", BLOCK_SIZE=16)
    mixed = flex_attention(*module.project(x, context(x)), block_mask=blocks, scale=module.scale)
    theirs = module.o(merge_heads(mixed))
    error = (module(x, context(x))[0] - theirs).abs().max().item()
    assert error < 1e-12
    proof("sparse attention, a dilation for each head", "torch FlexAttention", values=error)


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation makes."""

    entries = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        made = function(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else (made,):
            if isinstance(each, Tensor):
                self.entries = max(self.entries, each.numel())
        return made


@pytest.mark.parametrize(
    "pattern",
    [
        Sliding(window=8, dilation=3, prefix=2),
        Strided(stride=64),
        Fixed(stride=64, columns=1),
        BigBird(block=8, first=1, chosen=1),
    ],
)
def test_no_tensor_is_of_the_square_of_the_length(pattern: Pattern, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windtunnel.kernels.tiled._SCORES", 2**16)
    length = 4096
    module, x = layer(patterns=(pattern,)), hidden(length, batch=1)
    with Largest() as seen:
        module(x, context(x))[0].sum().backward()
    assert seen.entries < length**2 / 8


def test_specs_travel_as_json() -> None:
    spec = SparseAttention(heads=4, patterns=MIXED, rope=Rope())
    assert wt.from_json(spec.to_json()) == spec
