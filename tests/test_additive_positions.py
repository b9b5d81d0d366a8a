"""Positions added to the token vectors: by their definitions, against transformers, and inside a model."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import ReformerConfig
from transformers.models.reformer.modeling_reformer import AxialPositionEmbeddings

import windtunnel as wt
from tests.proof import Proof
from tests.recipes.cases import model_of, spec_of, tokens_for
from windtunnel.errors import InputError
from windtunnel.layer import Context
from windtunnel.model import LanguageModelLayer
from windtunnel.positions import Axial, Learned, Positions, Sinusoidal, stretched

EXACT = 1e-12


def at(first: int, count: int) -> Context:
    """A call whose tokens stand at first, first + 1, .."""
    return Context(torch.arange(first, first + count), reach=first + count)


def table(positions: Positions, width: int, length: int, first: int = 0, seed: int = 0) -> Tensor:
    """The vectors [t d] of a module with random tables."""
    layer = positions.build(width).double()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(generator=draw)
    found: Tensor = layer(at(first, length), torch.empty(3, length, width, dtype=torch.float64))
    return found


@settings(max_examples=20, deadline=None)
@given(half=st.integers(1, 9), first=st.integers(0, 5000), length=st.integers(1, 20))
def test_sines_and_cosines_by_the_formula(half: int, first: int, length: int) -> None:
    found = table(Sinusoidal(), 2 * half, length, first)
    for m in range(length):
        for i in range(half):
            angle = (first + m) / 10_000 ** (2 * i / (2 * half))
            assert found[m, 2 * i].item() == pytest.approx(math.sin(angle), abs=EXACT)
            assert found[m, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=EXACT)


def test_the_layout_of_the_authors_library() -> None:
    """Sines, then cosines; wave lengths from 2 pi to 10000 * 2 pi, both ends reached."""
    found = table(Sinusoidal(layout="concatenated"), 8, 30)
    slowest = 10_000 ** -(np.arange(4) / 3)
    angles = np.arange(30)[:, None] * slowest
    expected = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=EXACT)
    assert torch.isfinite(table(Sinusoidal(layout="concatenated"), 2, 5)).all()


@pytest.mark.parametrize("layout", ["interleaved", "concatenated"])
def test_sinusoids_have_one_length_and_products_of_distance(layout: Any) -> None:
    found = table(Sinusoidal(layout=layout), 12, 40)
    torch.testing.assert_close(found.square().sum(-1), torch.full((40,), 6.0, dtype=torch.float64))
    gram = found @ found.T
    for distance in range(1, 40):
        assert gram.diagonal(distance).std(correction=0).item() < EXACT


@pytest.mark.parametrize(("shape", "widths"), [((8, 12), (20, 44)), ((4, 24), (1, 63)), ((96, 1), (32, 32))])
@pytest.mark.parametrize("length", [96, 41, 1])
def test_concatenated_axes_are_reformers(
    shape: tuple[int, int], widths: tuple[int, int], length: int, proof: Proof
) -> None:
    config = ReformerConfig(axial_pos_shape=shape, axial_pos_embds_dim=widths, hidden_size=64, hidden_dropout_prob=0.0)
    theirs = AxialPositionEmbeddings(config).double().eval()
    ours = Axial(length=96, shape=shape, widths=widths).build(64).double()
    with torch.no_grad():
        for axis, weight in enumerate(theirs.weights):
            weight.normal_()
            ours.get_parameter(f"axis{axis}").copy_(weight.view(shape[axis], widths[axis]))
    found = ours(at(0, length), torch.empty(length, 64, dtype=torch.float64))
    expected = theirs(torch.arange(length)[None])[0]
    assert torch.equal(found, expected)
    errors, probe = [], torch.randn(length, 64, dtype=torch.float64)
    for axis, weight in enumerate(theirs.weights):
        (mine,) = torch.autograd.grad(found, ours.get_parameter(f"axis{axis}"), probe, retain_graph=True)
        (other,) = torch.autograd.grad(expected, weight, probe, retain_graph=True)
        errors.append((mine - other.view_as(mine)).abs().max().item())
    assert max(errors) < EXACT
    proof("axial positions", "transformers Reformer AxialPositionEmbeddings", values=0.0, gradients=max(errors))


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    combine=st.sampled_from(["concatenate", "sum", "average"]),
    width=st.integers(3, 9),
    data=st.data(),
)
def test_every_point_by_its_rows(shape: list[int], combine: Any, width: int, data: st.DataObject) -> None:
    length = math.prod(shape)
    first = data.draw(st.integers(0, length - 1))
    spec = Axial(length=length, shape=tuple(shape), combine=combine)
    layer = spec.build(width).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    found = layer(at(first, length - first), torch.empty(length - first, width, dtype=torch.float64)).detach()
    for p in range(first, length):
        point = np.unravel_index(p, shape)
        rows = [layer.get_parameter(f"axis{axis}")[r].detach() for axis, r in enumerate(point)]
        expected = torch.cat(rows) if combine == "concatenate" else torch.stack(rows).sum(0)
        if combine == "average":
            expected = expected / len(shape)
        torch.testing.assert_close(found[p - first], expected, rtol=0, atol=EXACT)


@pytest.mark.parametrize("combine", ["concatenate", "sum", "average"])
def test_a_rectangle_of_the_grid_closes(combine: Any) -> None:
    """P[r, c] - P[r, c'] - P[r', c] + P[r', c'] = 0, which an arbitrary table does not satisfy."""
    grid = table(Axial(length=30, shape=(5, 6), combine=combine), 8, 30).view(5, 6, 8)
    around = grid[:1, :1] - grid[:1] - grid[:, :1] + grid
    torch.testing.assert_close(around, torch.zeros_like(around), rtol=0, atol=EXACT)
    free = table(Learned(length=30), 8, 30).view(5, 6, 8)
    assert (free[:1, :1] - free[:1] - free[:, :1] + free).abs().max() > 1


@pytest.mark.parametrize(
    ("combine", "deviation", "expected"),
    [("concatenate", None, 1.0), ("sum", None, 1.0), ("average", None, 0.01), ("sum", 0.3, 0.3)],
)
def test_initial_tables(combine: Any, deviation: float | None, expected: float) -> None:
    spec = spec_of("axial_text")
    axial = Axial(length=96, shape=(8, 12), combine=combine, deviation=deviation)
    model = wt.build(spec.replace(width=512, embedding=spec.embedding.replace(positions=axial)))
    for axis in (0, 1):
        values = model.get_parameter(f"embedding.positions.axis{axis}")
        assert values.std().item() == pytest.approx(expected, rel=0.05)


def with_table(model: LanguageModelLayer) -> LanguageModelLayer:
    """The same weights, with the positions of all of the context written out as one learned table."""
    spec = model.spec
    learned = Learned(length=spec.context)
    other = spec.replace(embedding=spec.embedding.replace(positions=learned)).build().double()
    weights = {name: value for name, value in model.state_dict().items() if "positions" not in name}
    like = torch.empty(spec.context, spec.width, dtype=torch.float64)
    weights["embedding.positions.weight"] = model.embedding.positions(at(0, spec.context), like).detach()
    other.load_state_dict(weights)
    return other


@pytest.mark.parametrize(
    "case", ["axial_text", "axial_text-sum", "axial_text-average", "axial_text-widths", "gpt3-sinusoidal"]
)
@torch.no_grad()
def test_a_model_with_them_is_one_with_their_table(case: str, proof: Proof) -> None:
    """The null setting: any of these is GPT with learned positions at particular values of its table."""
    model = model_of(case, dtype=torch.float64)
    tokens = tokens_for(model.spec)
    found, expected = model(tokens).logits, with_table(model)(tokens).logits
    error = (found - expected).abs().max().item()
    assert error < EXACT
    proof(case.split("-")[0], "the same model with the table written out", logits=error)


@pytest.mark.parametrize(("case", "moves"), [("llama", False), ("mpt_alibi", False), ("gpt_j", False), ("gpt3", True)])
@torch.no_grad()
def test_only_distances_matter_to_rotations_and_biases(case: str, moves: bool) -> None:
    """All positions shifted by 1000, or by 20 in a table that has them: the same hidden vectors, or others."""
    model = model_of(case, dtype=torch.float64)
    tokens, shift = tokens_for(model.spec, length=30), 20 if moves else 1000

    def hidden(first: int) -> Tensor:
        x = model.embedding(tokens, at(first, 30))
        for block in model.blocks.values():
            x = block(x, at(first, 30)).hidden
        return x

    assert ((hidden(0) - hidden(shift)).abs().max().item() > 1e-3) is moves
    if not moves:
        torch.testing.assert_close(hidden(0), hidden(shift), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Axial(length=96, shape=(8, 11)), r"8 x 11 has 88 points, not the length 96"),
        (lambda: Axial(length=0, shape=(0, 3)), r"shape.*positive"),
        (lambda: Axial(length=6, shape=(2, 3), widths=(4,)), r"widths.*2 axes.*\(4,\)"),
        (lambda: Axial(length=6, shape=(2, 3), combine="sum", widths=(4, 4)), r"widths.*'concatenate', not 'sum'"),
        (lambda: spec_of("axial_text", row_width=64), r"widths.*positive.*\(64, 0\)"),
        (lambda: spec_of("axial_text", combine="multiply"), r"combine.*'multiply'"),
        (lambda: spec_of("axial_text", rows=5), r"rows: 5 does not divide the context of 96"),
        (lambda: spec_of("gpt3", positions="learnt"), r"positions.*'learnt'.*learned"),
        (lambda: spec_of("gpt3-sinusoidal", width=63, heads=3), r"even.*63"),
        (lambda: Learned(length=0), r"length must be positive"),
    ],
)
def test_refusals_when_the_spec_is_made(make: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()


def test_widths_must_sum_to_the_models_when_the_spec_is_made() -> None:
    spec = spec_of("axial_text-widths")
    with pytest.raises(InputError, match=r"widths \(11, 53\) sum to 64, not to the width 32"):
        spec.replace(width=32)


def test_a_grid_ends() -> None:
    model = model_of("axial_text")
    with pytest.raises(InputError, match=r"97 positions.*96"):
        model(tokens_for(model.spec, length=97))


def test_grids_are_as_even_as_they_can_be() -> None:
    shapes = {
        context: spec_of("axial_text", context=context).embedding.positions.shape for context in (96, 97, 1024, 1)
    }
    assert shapes == {96: (8, 12), 97: (1, 97), 1024: (32, 32), 1: (1, 1)}


@given(st.integers(1, 9), st.integers(0, 4), st.integers(1, 4))
def test_a_stretched_table_is_interpolated(trained: int, beyond: int, factor: int) -> None:
    """By numpy, at m trained / length; rows beyond the trained ones are not looked at, and whole factors keep rows."""
    table = torch.randn(trained + beyond, 3, dtype=torch.float64)
    table[trained:] = torch.nan
    found = stretched(table, trained, factor * trained)
    assert torch.equal(found[::factor], table[:trained])
    places = np.arange(factor * trained) / factor
    for column in range(3):
        expected = np.interp(places, np.arange(trained), table[:trained, column].numpy())
        np.testing.assert_allclose(found[:, column].numpy(), expected, rtol=1e-12, atol=1e-12)
