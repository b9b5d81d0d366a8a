"""The ledger against torch's operation counter, and against formulas worked out by hand."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor

import windtunnel as wt
from tests.recipes.cases import CASES, model_of, spec_of, tokens_for
from windtunnel.kernels import (
    attention_reference,
    banded_attention_reference,
    causal_efficient_attention_recurrent,
    differential_attention_reference,
    linear_attention_recurrent,
    top_k_attention_reference,
)
from windtunnel.kernels.blocked import LONGEST
from windtunnel.kernels.top_k import multiplied_pairs
from windtunnel.layer import Context
from windtunnel.ledger import decode_flops, keeps_maps, ledger
from windtunnel.mixers import (
    H3,
    LRU,
    DiffAttention,
    DiffAttentionV2,
    LinearAttention,
    Mamba,
    Nothing,
    Recurrent,
    Sliding,
    SparseAttention,
    TopKAttention,
)
from windtunnel.mixers.sparse import pattern_mask
from windtunnel.model import LanguageModel
from windtunnel.selftest.operations import LENGTH, SAME, counted, executed

EVERY_CASE = pytest.mark.parametrize("case", CASES)
RECURRENT = (Mamba, LRU, H3, Nothing, Recurrent)
BY_CHUNKS = ("linear attention core",)  # executed in chunks, with pairs that the step-by-step form does not have


@EVERY_CASE
def test_forward_of_the_plain_equations_equals_the_dense_column(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windtunnel.mixers.attention.attention", attention_reference)
    monkeypatch.setattr("windtunnel.mixers.differential_v2.attention", attention_reference)
    monkeypatch.setattr("windtunnel.mixers.attention.banded_attention", banded_attention_reference)
    monkeypatch.setattr("windtunnel.mixers.differential.differential_attention", differential_attention_reference)
    monkeypatch.setattr("windtunnel.mixers.linear.linear_attention", linear_attention_recurrent)
    monkeypatch.setattr("windtunnel.mixers.linear.causal_efficient_attention", causal_efficient_attention_recurrent)
    monkeypatch.setattr("windtunnel.mixers.sparse.attention", attention_reference)
    monkeypatch.setattr("windtunnel.mixers.sparse.dilated", dilated_by_a_mask)
    monkeypatch.setattr("windtunnel.mixers.prefix.attention", attention_reference)
    monkeypatch.setattr("windtunnel.mixers.top_k.top_k_attention", top_k_attention_reference)
    model = model_of(case)
    tokens = tokens_for(model.spec, length=LENGTH)
    dense = ledger(model.spec, LENGTH, maps_kept=False).forward.dense
    forward = counted(lambda: model(tokens))
    assert forward / tokens.numel() == pytest.approx(dense, rel=SAME)
    both = counted(lambda: model(tokens).logits.sum().backward())
    assert both / tokens.numel() == pytest.approx(3 * dense, rel=SAME)


def dilated_by_a_mask(context: Context, q: Tensor, past: Any, scale: float, pattern: Sliding) -> Tensor:
    return attention_reference(q, *past, scale, pattern_mask(pattern, context))


@EVERY_CASE
def test_forward_of_the_sdpa_kernel(case: str) -> None:
    model = model_of(case).requires_grad_(False)
    tokens = tokens_for(model.spec, length=LENGTH)
    found = ledger(model.spec, LENGTH, maps_kept=False)
    expected = found.forward.dense
    if isinstance(
        model.spec.layers[0].mixer, DiffAttention
    ):  # two calls, keys padded to the width of the values: 16 t² d instead of 12 t² d
        core = next(row for row in found.rows if row.mechanism == "attention core")
        expected += core.dense / 3
        assert core.hardware == pytest.approx(core.model * 4 / 3)
    expected += sum(row.hardware - row.dense for row in found.rows if row.mechanism in BY_CHUNKS)
    expected += sum(saved_by_residues(block.mixer, model.spec.width) for block in model.spec.layers)
    assert counted(lambda: model(tokens)) / tokens.numel() == pytest.approx(expected, rel=SAME)


def saved_by_residues(mixer: Any, width: int) -> float:
    """d tables of (t/d)² instead of one of t², where heads leave keys out, or blocks; negative, what it saves."""
    if isinstance(mixer, TopKAttention):
        return per_key(mixer, width) * (multiplied_pairs(LENGTH) / LENGTH - LENGTH)
    if not isinstance(mixer, SparseAttention):
        return 0.0
    saved = 0.0
    for head in range(mixer.heads):
        window = mixer.patterns[head % len(mixer.patterns)].sliding()
        per_class = -(-LENGTH // window.dilation) if window is not None else LENGTH
        pairs = window.dilation * per_class**2 - LENGTH**2 if window is not None else 0
        saved += per_key(mixer, width) / mixer.heads * pairs / LENGTH
    return saved


@EVERY_CASE
def test_training_executes_the_hardware_column(case: str) -> None:
    model = model_of(case)
    assert keeps_maps(LENGTH)
    assert max(executed(model, tokens_for(model.spec, length=LENGTH))) <= SAME


def test_the_rule_of_the_route_is_the_kernels_own() -> None:
    model = wt.build(wt.recipes.get("llama")(layers=1, width=16, heads=2, vocab=5))
    for length, by_blocks in ((LONGEST, True), (LONGEST + 1, False)):
        tokens = tokens_for(model.spec, batch=1, length=length)
        found = counted(lambda tokens=tokens: model(tokens).logits) / length
        kept = ledger(model.spec, length, maps_kept=True).forward
        assert found == pytest.approx(kept.hardware if by_blocks else kept.dense, rel=SAME)
        recomputed = ledger(model.spec, length, maps_kept=False).forward
        assert (kept.hardware != recomputed.hardware) is by_blocks
    assert keeps_maps(LONGEST + 1)
    assert not keeps_maps(1)
    assert not keeps_maps(64, device="cuda")
    assert not keeps_maps(64, dtype="bfloat16")
    assert not keeps_maps(64, compiled=True)


def test_differential_attention_under_both_kernels() -> None:
    """diff-transformer with half the heads equals its baseline where maps are kept, and is 1.5 times its core else."""
    sizes = {"layers": 2, "width": 64, "vocab": 32, "hidden": 96}
    differential = ledger(wt.recipes.get("diff_transformer")(heads=2, **sizes), 128)
    baseline = ledger(wt.recipes.get("llama")(heads=4, **sizes), 128)
    assert differential.flops_by_kernel["maps kept"] == baseline.flops_per_token == differential.flops_per_token
    core = next(row for row in baseline.rows if row.mechanism == "attention core").model
    extra = differential.flops_by_kernel["maps recomputed"] - differential.flops_by_kernel["maps kept"]
    assert extra == pytest.approx(3 * 0.5 * core)


def test_long_differential_attention_forms_its_scores_again() -> None:
    """Beyond the kernel that keeps maps: the same products by blocks, and the scores once more."""
    spec = wt.recipes.get("diff_transformer")(heads=2, layers=1, width=16, vocab=5, hidden=8)
    length = LONGEST + 70
    model, tokens = wt.build(spec), torch.randint(5, (1, length))
    found = ledger(spec, length)
    assert counted(lambda: model(tokens)) / length == pytest.approx(found.forward.hardware, rel=SAME)
    step = counted(lambda: model(tokens).logits.sum().backward())
    assert step / length == pytest.approx(found.training.hardware, rel=SAME)
    core = next(row for row in found.rows if row.mechanism == "attention core")
    assert found.training.hardware - 3 * found.forward.hardware == pytest.approx(core.hardware / 2)


def test_columns_by_hand() -> None:
    """Llama with one layer: d = 8, h = 4, g = 2, k = 6, f = 20, v = 11, t = 10; band, PaLM's convention, softmax."""
    found = ledger(
        wt.recipes.get("llama")(layers=1, width=8, heads=4, kv_heads=2, head_width=6, hidden=20, vocab=11), 10, False
    )
    rows = {row.mechanism: row for row in found.rows}
    assert rows["attention projections"].model == 2 * 8 * (24 + 12 + 12) + 2 * 24 * 8
    assert rows["attention projections"].elementwise == 3 * (4 + 2) * 6
    assert rows["attention core"].model == 2 * 4 * 5.5 * (6 + 6)
    assert rows["attention core"].dense == 4 * 4 * 6 * 10
    assert rows["attention core"].elementwise == 5 * 4 * 5.5
    assert rows["MLP"].model == 6 * 8 * 20
    assert rows["MLP"].elementwise == 2 * 20
    assert rows["norms"].elementwise == 3 * 4 * 8
    assert rows["unembedding"].model == 2 * 8 * 11
    assert rows["unembedding"].elementwise == 5 * 11
    assert rows["embedding"].model == 0
    assert found.forward.model == sum(row.model for row in found.rows)
    assert found.training.model == 3 * found.forward.model
    # Flash attention forms its scores again: 3.5 instead of 3 times the core.
    assert found.training.hardware == pytest.approx(3 * found.forward.hardware + rows["attention core"].hardware / 2)


def test_a_band_is_discounted_in_the_model_column_alone() -> None:
    window, length = 7, 40
    found = ledger(
        wt.recipes.get("gpt3")(layers=2, width=8, heads=1, window=window, vocab=4, context=40), length, False
    )
    core = next(row for row in found.rows if row.mechanism == "attention core")
    full = sum(range(1, length + 1)) / length
    band = sum(min(at, window) for at in range(1, length + 1)) / length
    assert core.model == pytest.approx(2 * (8 + 8) * (full + band))
    assert core.hardware == pytest.approx(2 * (8 + 8) * (full + length))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("length", "window"), [(300, 7), (LONGEST + 70, 90)])
def test_a_window_costs_what_its_kernel_executes(length: int, window: int, training: bool) -> None:
    """A window in every layer: with a backward pass its maps are kept at any length, else blocks overlap."""
    spec = wt.recipes.get("gpt3")(layers=2, width=8, heads=1, window=window, vocab=4, context=length)
    spec = spec.replace(blocks=(spec.blocks[1],))
    model = wt.build(spec).requires_grad_(training)
    tokens = tokens_for(spec, batch=1, length=length)
    found = ledger(spec, length, maps_kept=training)
    assert counted(lambda: model(tokens)) / length == pytest.approx(found.forward.hardware, rel=SAME)
    core = next(row for row in found.rows if row.mechanism == "attention core")
    assert core.model < core.hardware < core.dense / 2
    if training:
        step = counted(lambda: model(tokens).logits.sum().backward())
        assert step / length == pytest.approx(found.training.hardware, rel=SAME)


@EVERY_CASE
def test_rows_hold_every_parameter_and_add_up(case: str) -> None:
    found = ledger(spec_of(case), 64)
    assert sum(row.parameters for row in found.rows) == found.parameters.n_total
    assert "other" not in {row.mechanism for row in found.rows}
    for column in ("model", "dense", "hardware", "elementwise"):
        assert sum(getattr(row, column) for row in found.rows) == pytest.approx(getattr(found.forward, column))


@pytest.mark.parametrize("case", [case for case in CASES if isinstance(spec_of(case), LanguageModel)])
def test_decoding_is_twice_the_matrices_and_what_is_attended(case: str) -> None:
    spec = spec_of(case)
    with torch.device("meta"):
        model = spec.build()
    active = ledger(spec, 64).parameters.n_active
    for position in (1, 2, 7, 50, 3000):
        attended = 0.0
        for block in spec.blocks:
            attended += of_the_past(block.mixer.core, spec.width, position)
        assert decode_flops(model, position) == pytest.approx(2 * active + attended, rel=1e-9)


def of_the_past(mixer: Any, width: int, position: int) -> int:
    """Operations of one token beside its matrices: a row of scores and values, or a step of the state."""
    if isinstance(mixer, RECURRENT):
        return 0  # nothing grows with the position, and the rest is element-wise
    if isinstance(mixer, LinearAttention):
        summed = width // mixer.heads + (mixer.features not in ("exp", "softmax"))  # a mass that is a sum like values
        return 4 * width * summed
    if isinstance(mixer, TopKAttention):
        return per_key(mixer, width) * (position + min(position, mixer.top)) // 2  # scores of all, values of some
    if isinstance(mixer, SparseAttention):
        own = mixer.own_prefix and position <= mixer.patterns[0].prefix  # type: ignore[attr-defined]
        return round(per_key(mixer, width) * seen_by_patterns(mixer, position)) + 6 * width**2 * own
    return per_key(mixer, width) * min(position, getattr(mixer, "window", None) or position)


def seen_by_patterns(mixer: SparseAttention, position: int) -> float:
    """Keys that the token at a position sees, in the mean over heads, asked pair by pair."""
    query, keys = torch.tensor(position - 1), torch.arange(position)
    return sum(int(each.sees(query, keys).sum()) for each in mixer.patterns) / len(mixer.patterns)


def per_key(mixer: Any, width: int) -> int:
    """Operations of one query's row of scores and values for one key."""
    if isinstance(mixer, DiffAttention):
        return 2 * 2 * mixer.heads * 3 * (mixer.head_width or width // mixer.heads // 2)
    maps = 2 if isinstance(mixer, DiffAttentionV2) else 1
    return 4 * maps * mixer.heads * (mixer.head_width or width // mixer.heads)


def test_optimiser_line() -> None:
    llama = ledger(spec_of("llama"), 64)
    assert llama.optimiser == {"AdamW": 14.0 * llama.parameters.n_total, "projection": 0.0}
    assert llama.optimiser_per_token(100) == pytest.approx(0.14 * llama.parameters.n_total)
    ngpt = ledger(spec_of("ngpt"), 64)
    matrices = ngpt.parameters.n_matmul + ngpt.parameters.n_emb
    assert ngpt.optimiser["projection"] == 4.0 * matrices


@EVERY_CASE
def test_json(case: str) -> None:
    data = ledger(spec_of(case), 64).to_json()
    again = json.loads(json.dumps(data, allow_nan=False))
    assert again["parameters"]["n_body"] > 0
    assert {"mechanism", "parameters", "model", "dense", "hardware", "elementwise"} == set(again["rows"][0])
    assert list(again["state_bytes"]) == ["64", "128", "256", "512"]
    assert again["flops_per_token"] == again["training"]["model"]
