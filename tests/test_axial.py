"""The Axial Transformer against its definition on flat pictures with masks, and the counts that its shifts promise."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import windtunnel as wt
from tests.proof import Proof
from windtunnel.axial import AxialTransformerLayer, as_columns, as_rows, axial_pairs, from_columns, from_rows
from windtunnel.errors import InputError
from windtunnel.init import roles
from windtunnel.layer import Context
from windtunnel.ledger import decode_flops, n_body
from windtunnel.mixers import Attention, UnmaskedAttention
from windtunnel.model import Block, LanguageModel
from windtunnel.norms import LayerNorm
from windtunnel.residuals import PreNorm

EXACT = 1e-12
K = 17
ANYWHERE = Context(torch.arange(0))  # for layers that do not ask where they are


def model_of(outer: int = 2, inner: int = 2, rows: int = 8, columns: int = 8, **settings: Any) -> AxialTransformerLayer:
    """Weights large enough that everything is felt."""
    sizes = {"vocab": K, "width": 16, "heads": 2, "layers": outer + inner, "outer": outer, "rows": rows}
    spec = wt.recipes.get("axial_image")(**{**sizes, "columns": columns, "context": rows * columns, **settings})
    model = wt.build(spec).double()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.4)
    return model


def by_definition(weights: Mapping[str, Tensor], spec: Any, tokens: Tensor) -> Tensor:
    """Section 3 for one flat picture [(r c)] at a time, all attention full with a mask; tokens [b t] with t = r c."""
    heads, cells = 2, spec.rows * spec.columns
    row, column = torch.arange(cells) // spec.columns, torch.arange(cells) % spec.columns
    same_row, same_column = row[:, None] == row, column[:, None] == column
    earlier = torch.arange(cells)[None, :] <= torch.arange(cells)[:, None]

    def norm(x: Tensor, name: str) -> Tensor:
        x = x - x.mean(-1, keepdim=True)
        return (
            x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weights[f"{name}.weight"] + weights[f"{name}.bias"]
        )

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def block(x: Tensor, index: int, mask: Tensor) -> Tensor:
        name = f"blocks.{index}"
        n = norm(x, f"{name}.residual.mixer_norm")
        q, k, v = (linear(n, f"{name}.mixer.{each}").unflatten(-1, (heads, -1)) for each in "qkv")
        scores = torch.einsum("ihd,jhd->hij", q, k) / math.sqrt(q.shape[-1])
        mixed = torch.einsum("hij,jhd->ihd", scores.masked_fill(~mask, -math.inf).softmax(-1), v)
        x = x + linear(mixed.flatten(1), f"{name}.mixer.o")
        up = linear(norm(x, f"{name}.residual.mlp_norm"), f"{name}.mlp.up")
        return x + linear(up * torch.sigmoid(1.702 * up), f"{name}.mlp.down")

    position = weights["embedding.positions.axis0"][row] + weights["embedding.positions.axis1"][column]
    logits = []
    for sequence in tokens:
        vectors = weights["embedding.weight"][sequence]
        condition, pixels = vectors[0], torch.cat([vectors[1:], vectors[:1]])  # the last pixel: seen by nothing
        u = pixels + position + condition
        for index in range(len(spec.outer)):
            u = block(u, index, same_column & earlier if index % 2 else same_row)
        down = torch.cat([torch.zeros(spec.columns, spec.width, dtype=u.dtype), u[: -spec.columns]])
        right = torch.cat([torch.zeros_like(pixels[:1]), pixels[:-1]]) * (column > 0)[:, None]
        h = right + down + position + condition
        for index in range(len(spec.outer), len(spec.layers)):
            h = block(h, index, same_row & earlier)
        logits.append(linear(norm(h, "norm"), "head"))
    return torch.stack(logits)


def tokens_for(rows: int, columns: int, batch: int = 2, vocab: int = K) -> Tensor:
    return torch.randint(0, vocab, (batch, rows * columns), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    ("outer", "inner", "rows", "columns"), [(2, 2, 8, 8), (4, 1, 3, 5), (0, 2, 5, 3), (2, 0, 4, 4)]
)
def test_the_definition(outer: int, inner: int, rows: int, columns: int, proof: Proof) -> None:
    model, tokens = model_of(outer, inner, rows, columns), tokens_for(rows, columns)
    weights = dict(model.named_parameters())
    expected = by_definition(weights, model.spec, tokens)
    found = model(tokens).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=EXACT)
    ours = torch.autograd.grad(model.loss(tokens, tokens).total, list(weights.values()))
    loss = F.cross_entropy(expected.flatten(0, 1), tokens.flatten())
    theirs = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    worst = 0.0
    for name, left, right in zip(weights, ours, theirs, strict=True):
        assert right is not None, name
        torch.testing.assert_close(left, right, rtol=0, atol=EXACT)
        worst = max(worst, ((left - right).abs().max() / right.abs().max().clamp(min=1e-9)).item())
    parts, state = [], model.initial_state(2)
    for chunk in tokens.split(1, 1):
        out = model(chunk, state=state)
        parts.append(out.logits)
        state = out.state
    stepped = torch.cat(parts, 1)
    torch.testing.assert_close(stepped, expected, rtol=0, atol=EXACT)
    size = expected.abs().max()
    errors = {"logits": found - expected, "decoding": stepped - expected}
    figures = {name: (error.abs().max() / size).item() for name, error in errors.items()}
    proof("axial_image", "flat pictures, full attention with masks", **figures, gradients=worst)


def dependencies(model: AxialTransformerLayer) -> Tensor:
    """[cell, pixel]: whether the logits of a cell move with a pixel's vector; pixel p is token p + 1."""
    tokens = tokens_for(model.spec.rows, model.spec.columns, batch=1)
    before, cells = model(tokens).logits[0], tokens.shape[1]
    found = torch.zeros(cells, cells, dtype=torch.bool)
    for pixel in range(cells - 1):
        changed = tokens.clone()
        changed[0, pixel + 1] = (changed[0, pixel + 1] + 1) % model.spec.vocab
        found[:, pixel] = (model(changed).logits[0] != before).any(-1)
    return found


@torch.no_grad()
@pytest.mark.parametrize(
    ("outer", "inner", "rows", "columns"), [(2, 2, 8, 8), (2, 1, 8, 8), (4, 2, 4, 9), (2, 3, 9, 4)]
)
def test_a_cell_depends_on_every_pixel_before_it_and_on_no_other(
    outer: int, inner: int, rows: int, columns: int
) -> None:
    found, cells = dependencies(model_of(outer, inner, rows, columns)), rows * columns
    assert torch.equal(found, torch.ones(cells, cells, dtype=torch.bool).tril(-1))
    assert int(found.sum()) == cells * (cells - 1) // 2  # 2016 for 8 x 8


@torch.no_grad()
def test_without_an_upper_part_only_the_row_and_the_one_above_are_seen() -> None:
    """(i, j) sees (i, <j) and, by the shifted vectors, (i - 1, j); inner rows carry that along: (i - 1, <= j)."""
    found = dependencies(model_of(outer=0, inner=2))
    assert int(found.sum()) == 224 + 252
    for cell, pixel in found.nonzero().tolist():
        (i, j), (r, c) = divmod(cell, 8), divmod(pixel, 8)
        assert (r == i and c < j) or (r == i - 1 and c <= j)


@torch.no_grad()
def test_the_condition_is_seen_by_all() -> None:
    model, tokens = model_of(), tokens_for(8, 8, batch=1)
    changed = tokens.clone()
    changed[0, 0] = (changed[0, 0] + 1) % K
    assert bool((model(changed).logits != model(tokens).logits).any(-1).all())


@torch.no_grad()
def test_probabilities_of_all_pictures_sum_to_one() -> None:
    model = model_of(rows=2, columns=2, vocab=3)
    pictures = torch.tensor(list(itertools.product(range(3), repeat=4)))
    tokens = torch.cat([torch.zeros(81, 1, dtype=torch.int64), pictures[:, :-1]], 1)
    each = model(tokens).logits.log_softmax(-1).gather(2, pictures[..., None])[..., 0]
    assert each.sum(1).exp().sum().item() == pytest.approx(1, abs=1e-12)


@torch.no_grad()
def test_sampling_row_by_row_draws_the_pictures_of_whole_passes() -> None:
    """With the noise fixed in advance, the argmax of logits + noise: upper part once a row, inner part once a pixel."""
    model, batch = model_of(rows=5, columns=4), 3
    noise = -torch.rand(batch, 20, K, dtype=torch.float64).log().neg().log()
    start = torch.full((batch, 1), 3)
    slow = start
    for cell in range(20):
        logits = model(slow).logits[:, -1]
        slow = torch.cat([slow, (logits + noise[:, cell]).argmax(-1, keepdim=True)], 1)
    pixel, state, fast = start, model.initial_state(batch), [start]
    calls: list[tuple[int, ...]] = []
    model.blocks["0"].register_forward_pre_hook(lambda _, given: calls.append(tuple(given[0].shape)))
    for cell in range(20):
        out = model(pixel, state=state)
        pixel, state = (out.logits[:, -1] + noise[:, cell]).argmax(-1, keepdim=True), out.state
        fast.append(pixel)
    assert torch.equal(torch.cat(fast, 1), slow)
    assert calls == [(batch, 4, 16)] * 4  # the row above, once for each row but the first
    other = model(torch.full((batch, 1), 4)).logits
    assert (other - model(start).logits).abs().max() > 1e-3


def test_rows_and_columns_are_each_others_transpose() -> None:
    x = torch.randn(2, 3, 5, 16, dtype=torch.float64)
    layer = UnmaskedAttention(heads=2, bias=True).build(16).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, 0, 0.4)
    ids = torch.zeros(2, 3, 5)
    rows = from_rows(layer(as_rows(x), ANYWHERE)[0], ids)
    columns = from_columns(layer(as_columns(x), ANYWHERE)[0], ids)
    turned = from_rows(layer(as_rows(x.transpose(1, 2)), ANYWHERE)[0], ids.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(columns, turned, rtol=0, atol=EXACT)
    assert (rows - columns).abs().max() > 1e-2
    single = x[:, :, :1]
    alone = from_rows(layer(as_rows(single), ANYWHERE)[0], ids[:, :, :1])
    torch.testing.assert_close(alone, layer.o(layer.v(single)), rtol=0, atol=EXACT)  # a row of one mixes nothing


def test_maps_of_unmasked_attention() -> None:
    layer, x = UnmaskedAttention(heads=2).build(16).double(), torch.randn(2, 6, 16, dtype=torch.float64)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, 0, 0.4)
    maps = layer.attention_maps(x, ANYWHERE)
    values = layer.v(x).view(2, 6, 2, 8).transpose(1, 2)
    torch.testing.assert_close(
        layer.o((maps @ values).transpose(1, 2).flatten(2)), layer(x, ANYWHERE)[0], rtol=0, atol=EXACT
    )
    assert bool((maps > 0).all())


@pytest.mark.parametrize(
    ("width", "outer", "inner", "expected"),
    [(64, 2, 2, 203_281), (128, 4, 4, 1_592_849), (192, 4, 4, 3_568_913), (256, 4, 4, 6_331_409)],
)
def test_parameters(width: int, outer: int, inner: int, expected: int) -> None:
    with torch.device("meta"):
        model = wt.recipes.get("axial_image")(
            vocab=K, width=width, heads=4, layers=outer + inner, outer=outer, context=64
        ).build()
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_pairs_of_a_row_and_a_column_layer() -> None:
    """Section 2 of the paper: 2 N^1.5 for a square of N cells."""
    assert sum(axial_pairs(8, 8)) == 1024
    assert sum(axial_pairs(32, 32)) == 65_536
    assert axial_pairs(3, 5) == (75, 45)


@torch.no_grad()
def test_it_begins_as_a_uniform_guess() -> None:
    spec = wt.recipes.get("axial_image")(vocab=K, width=64, layers=4, context=64)
    model, tokens = wt.build(spec), tokens_for(8, 8)
    assert model.loss(tokens, tokens).cross_entropy.item() == pytest.approx(math.log(K), abs=1e-4)
    found = roles(model)
    for name, role in found.items():
        if role.kind in ("writes", "unembedding"):
            assert model.get_parameter(name).abs().max() < 1e-5
    assert model.embedding.weight.std().item() == pytest.approx(5 / 8, rel=0.1)


def test_operations_of_one_step_by_hand() -> None:
    """Within a row: inner blocks, and the head. At a row's first pixel also the upper part, on the row above."""
    rows, columns, d = 5, 4, 16
    spec = model_of(rows=rows, columns=columns).spec
    with torch.device("meta"):
        model = spec.build()
    block = 2 * (4 * d * d + 8 * d * d)
    for position in range(1, rows * columns + 1):
        row, column = divmod(position - 1, columns)
        expected = 2 * block + 2 * 4 * d * (column + 1) + 2 * d * K
        if column == 0 and row:
            expected += columns * (2 * block + 4 * d * columns + 4 * d * row)
        assert decode_flops(model, position) == pytest.approx(expected), position
    assert n_body(spec) == model_count(spec)


def model_count(spec: Any) -> int:
    blocks = len(spec.layers) * (12 * spec.width**2 + 13 * spec.width)
    return blocks + 2 * spec.width + K  # the head's bias is no table


ATTENTION, UNMASKED = (
    Block(residual=PreNorm(norm=LayerNorm()), mixer=kind(heads=2)) for kind in (Attention, UnmaskedAttention)
)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows": 3}, ("rows 3", "columns 8", "24", "context 64")),
        ({"columns": 0}, ("columns", "0")),
        ({"outer": (UNMASKED,)}, ("pairs", "got 1")),
        ({"outer": (UNMASKED, UNMASKED)}, ("causal",)),
        ({"inner": (UNMASKED,)}, ("causal",)),
        ({"outer": (), "inner": ()}, ("empty",)),
    ],
    ids=str,
)
def test_grids_that_cannot_be_are_refused(changes: dict[str, Any], words: tuple[str, ...]) -> None:
    spec = model_of().spec
    with pytest.raises(InputError) as caught:
        spec.replace(**changes)
    assert all(word in str(caught.value) for word in ("AxialTransformer", *words))


def test_what_else_is_refused() -> None:
    with pytest.raises(InputError, match="mixers must be causal"):
        LanguageModel(vocab=5, width=8, context=9, blocks=(UNMASKED,))
    with pytest.raises(InputError, match=r"outer: .* 4 layers, got 6"):
        wt.recipes.get("axial_image")(layers=4, outer=6)
    with pytest.raises(InputError, match="window is 3"):
        UnmaskedAttention(heads=2, window=3)
    model = model_of(rows=2, columns=2)
    with pytest.raises(InputError, match="5 tokens do not fit into a grid of 2 rows x 2 columns = 4"):
        model(torch.zeros(1, 5, dtype=torch.int64))
    with pytest.raises(InputError, match="6 tokens do not fit"):
        model(torch.zeros(1, 3, dtype=torch.int64), state=model(torch.zeros(1, 3, dtype=torch.int64)).state)
