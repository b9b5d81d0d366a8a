"""What every recipe keeps, whatever its parts: add a recipe, and all of this is asked of it."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import windtunnel as wt
from tests.recipes.cases import CASES, CONTEXT, SIZES, model_of, spec_of, state_tensors, tokens_for
from tests.recipes.manifest import FINGERPRINTS, FOLDER, fingerprints, written
from windtunnel.checkpoint import fill_model, load, model_tensors, save
from windtunnel.errors import InputError
from windtunnel.init import roles
from windtunnel.layer import Layer, Role
from windtunnel.mlps import Experts
from windtunnel.model import LanguageModelLayer
from windtunnel.selftest.causality import AT, TWO_DOCUMENTS, in_chunks, with_another_document, with_another_token

EXACT = 1e-10  # float64: the same sums in another order
SINGLE = 2e-5  # float32, logits of order 1
HALF = 0.05  # bfloat16 keeps 8 bits; relative to the spread of the logits, root mean square

every_case = pytest.mark.parametrize("case", CASES)
every_recipe = pytest.mark.parametrize("recipe", wt.recipes.names())
PACKING = [case for case in CASES if spec_of(case).packs_documents]
every_packing_case = pytest.mark.parametrize("case", PACKING)


def equal(case: str, left: Tensor, right: Tensor) -> bool:
    """Bit for bit; but rows that share an expert's product change in number with the routes of others, and so does its
    rounding, which float64 shows to be no more than that."""
    if any(isinstance(block.mlp, Experts) for block in spec_of(case).layers):
        return left.dtype == torch.float64 and bool(((left - right).abs() <= EXACT).all())
    return torch.equal(left, right)


def exact(case: str) -> torch.dtype:
    """The precision in which `equal` compares."""
    return torch.float64 if any(isinstance(block.mlp, Experts) for block in spec_of(case).layers) else torch.float32


def relative(case: str) -> bool:
    """Whether only distances between positions matter."""
    return spec_of(case).embedding.positions is None


@every_case
@pytest.mark.parametrize("training", [False, True])
def test_nothing_before_a_token_feels_it(case: str, training: bool) -> None:
    model = model_of(case, dtype=exact(case))
    with torch.set_grad_enabled(training):
        before, after = with_another_token(model, tokens_for(model.spec))
    assert equal(case, before[:, :AT], after[:, :AT])
    assert not torch.equal(before[:, AT], after[:, AT])


@every_case
@torch.no_grad()
def test_decoding_in_odd_chunks_equals_one_pass(case: str) -> None:
    model = model_of(case, dtype=torch.float64)
    tokens = tokens_for(model.spec)
    whole, (parts, state) = model(tokens), in_chunks(model, tokens)
    torch.testing.assert_close(parts, whole.logits, rtol=0, atol=EXACT)
    assert state.position == whole.state.position == tokens.shape[1]
    for stepped, at_once in zip(state_tensors(state), state_tensors(whole.state), strict=True):
        torch.testing.assert_close(stepped, at_once, rtol=0, atol=EXACT)


@every_case
@torch.no_grad()
def test_a_call_leaves_the_state_it_was_given_alone(case: str) -> None:
    model = model_of(case)
    tokens = tokens_for(model.spec)
    state = model(tokens[:, :20]).state
    kept = [tensor.clone() for tensor in state_tensors(state)]
    first = model(tokens[:, 20:], state=state).logits
    assert all(torch.equal(a, b) for a, b in zip(kept, state_tensors(state), strict=True))
    assert torch.equal(first, model(tokens[:, 20:], state=state).logits)


@every_packing_case
@pytest.mark.parametrize("training", [False, True])
def test_documents_do_not_leak(case: str, training: bool) -> None:
    model = model_of(case, dtype=exact(case))
    with torch.set_grad_enabled(training):
        before, after = with_another_document(model, tokens_for(model.spec))
    second = TWO_DOCUMENTS == 1
    assert equal(case, before[second], after[second])
    assert not torch.equal(before[~second], after[~second])


@pytest.mark.parametrize("case", [case for case in PACKING if relative(case)])
@torch.no_grad()
def test_a_document_after_another_is_as_alone(case: str) -> None:
    model = model_of(case, dtype=torch.float64)
    for name, parameter in model.named_parameters():
        if "query_key_scale" in name:  # unequal within a rotated pair, nGPT's s_qk sees absolute positions
            parameter.fill_(parameter.mean())
    tokens = tokens_for(model.spec)
    packed = model(tokens, documents=TWO_DOCUMENTS).logits
    for row, ids in enumerate(TWO_DOCUMENTS):
        for document in (0, 1):
            own = ids == document
            alone = model(tokens[row : row + 1, own]).logits[0]
            torch.testing.assert_close(packed[row, own], alone, rtol=0, atol=EXACT)


def documents_for(case: str) -> Tensor | None:
    """Two documents a row, for models that keep them apart."""
    return TWO_DOCUMENTS if case in PACKING else None


@pytest.mark.parametrize("case", [case for case in CASES if case not in PACKING])
def test_documents_that_cannot_be_kept_apart_are_refused(case: str) -> None:
    model = model_of(case)
    tokens = tokens_for(model.spec)
    for call in (lambda: model(tokens, documents=TWO_DOCUMENTS), lambda: model.loss(tokens, tokens, TWO_DOCUMENTS)):
        with pytest.raises(InputError, match=f"documents: {model.spec.kind} reads one document a row"):
            call()


@every_packing_case
def test_documents_and_state_exclude_each_other(case: str) -> None:
    model = model_of(case)
    tokens = tokens_for(model.spec)
    out = model(tokens, documents=TWO_DOCUMENTS)
    assert out.state is None
    with pytest.raises(InputError, match="documents"):
        model(tokens, state=model(tokens).state, documents=TWO_DOCUMENTS)


@every_case
def test_json_round_trip(case: str) -> None:
    spec = spec_of(case)
    again = wt.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert again.fingerprint() == spec.fingerprint()


@every_case
def test_save_and_load_are_bit_exact(case: str, tmp_path: Path) -> None:
    model = model_of(case)
    save(tmp_path / "step-0", {"model": model_tensors(model)}, {})
    again = spec_of(case).build()
    fill_model(again, load(tmp_path / "step-0").tensors["model"], tmp_path)
    tokens = tokens_for(model.spec)
    assert torch.equal(model(tokens).logits, again(tokens).logits)
    for (name, left), (other, right) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(left, right)


@every_case
def test_every_parameter_has_a_gradient(case: str) -> None:
    model = model_of(case)
    tokens = tokens_for(model.spec, batch=4)
    model.loss(tokens[:, :-1], tokens[:, 1:], seed=0).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert bool((parameter.grad != 0).any()), name


@every_case
def test_logits_and_the_three_losses_agree(case: str) -> None:
    model = model_of(case)
    tokens = tokens_for(model.spec)
    targets = tokens.roll(-1, 1)
    targets[:, -1], targets[1, 5:9] = -1, -1
    logits = model(tokens, documents=documents_for(case)).logits
    nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="none").view_as(targets)
    each = model.token_losses(tokens, targets, documents=documents_for(case))
    loss = model.loss(tokens, targets, documents=documents_for(case))
    counted = targets >= 0
    torch.testing.assert_close(each, nats.detach(), rtol=SINGLE, atol=SINGLE)
    assert each.dtype == torch.float32
    assert not each[~counted].any()
    assert loss.cross_entropy.item() == pytest.approx(nats[counted].mean().item(), rel=SINGLE)
    assert loss.total.item() == pytest.approx(loss.cross_entropy.item() + sum(v.item() for v in loss.losses.values()))


@every_case
def test_loss_has_the_gradients_of_the_logits(case: str) -> None:
    model = model_of(case, dtype=torch.float64)
    tokens = tokens_for(model.spec)
    model.loss(tokens[:, :-1], tokens[:, 1:]).cross_entropy.backward()
    fast = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    F.cross_entropy(model(tokens[:, :-1]).logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is None:  # what only a training step's noise or the choice of experts reads
            assert fast[name] is None, name
        else:
            torch.testing.assert_close(fast[name], parameter.grad, rtol=0, atol=EXACT)


@every_case
@torch.no_grad()
def test_bfloat16_stays_near_float32(case: str) -> None:
    model = model_of(case)
    tokens = tokens_for(model.spec)
    wide = model(tokens).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model(tokens).logits.float()
    narrow = model.to(torch.bfloat16)(tokens).logits.float()
    for logits in (mixed, narrow):
        assert ((logits - wide).square().mean().sqrt() / wide.std()).item() < HALF


@every_recipe
def test_initial_values_follow_the_table_of_roles(recipe: str) -> None:
    spec = wt.recipes.get(recipe)(**SIZES)
    model = wt.build(spec)
    for name, role in roles(model).items():
        values = model.get_parameter(name)
        if role.constant is not None:
            assert bool((values == role.constant).all()), name
        elif role.draw is not None:
            assert bool(values.isfinite().all()), name  # its distribution is the recipe's own test
        elif model.normalized and role.kind != "gain":
            axis = 0 if role.kind == "writes" else 1
            torch.testing.assert_close(values.norm(dim=axis), torch.ones(values.shape[1 - axis]), rtol=0, atol=1e-6)
        else:
            expected = role.deviation if role.deviation is not None else spec.initial.deviation(role, spec.depth)
            assert abs(values.mean()) < 5 * expected / math.sqrt(values.numel()), name
            assert values.std().item() == pytest.approx(expected, rel=5 / math.sqrt(2 * values.numel())), name


@every_recipe
def test_initial_values_depend_on_the_seed_and_the_name_alone(recipe: str) -> None:
    def values(seed: int, layers: int) -> dict[str, Tensor]:
        return dict(wt.build(wt.recipes.get(recipe)(**{**SIZES, "layers": layers}), seed).named_parameters())

    first, again, other = values(3, 2), values(3, 2), values(4, 2)
    table = roles(wt.recipes.get(recipe)(**{**SIZES, "layers": 2}).build())
    drawn = [name for name, value in first.items() if _random(table[name], value.shape)]
    assert drawn
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in drawn)
    assert len({first[name].flatten()[:4].sum().item() for name in drawn}) == len(drawn)
    deeper = values(3, 3)
    assert torch.equal(first["embedding.weight"], deeper["embedding.weight"])


def _random(role: Role, shape: torch.Size) -> bool:
    """Whether two seeds give two values: constants and published tables of values do not."""
    if role.draw is None:
        return role.constant is None
    streams = (torch.Generator().manual_seed(seed) for seed in (0, 1))
    return not torch.equal(*(role.draw(shape, stream) for stream in streams))


@every_recipe
def test_names_shapes_and_roles_are_as_written_down(recipe: str) -> None:
    """If this change is meant: python -m tests.recipes.manifest."""
    assert (FOLDER / f"{recipe}.json").read_text() == written(recipe)


def test_fingerprints_are_as_written_down() -> None:
    assert FINGERPRINTS.read_text() == fingerprints()


def test_no_manifest_is_left_over() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == sorted(wt.recipes.names())


@every_case
def test_every_parameter_is_declared_with_a_role(case: str) -> None:
    model = model_of(case)
    table = roles(model)
    assert list(table) == [name for name, _ in model.named_parameters()]
    for name, role in table.items():
        parameter = model.get_parameter(name)
        if role.kind == "reads":
            assert parameter.shape[-1] == model.spec.width, name
        if role.kind == "writes":
            assert parameter.shape[-2] == model.spec.width, name
        if role.kind != "decay":
            assert (parameter.dim() == 1) == (role.kind in ("gain", "bias")), name


@every_case
def test_forward_leaves_modules_as_they_were(case: str) -> None:
    model = model_of(case)
    tokens = tokens_for(model.spec)
    before = _attributes(model)
    model(tokens)
    model.loss(tokens, tokens, documents=documents_for(case))
    assert _attributes(model) == before


def _attributes(model: LanguageModelLayer) -> dict[str, Any]:
    return {
        f"{path}.{name}": repr(value)
        for path, module in model.named_modules()
        if isinstance(module, Layer)
        for name, value in vars(module).items()
        if name not in ("_parameters", "_buffers", "_modules")
    }


def test_a_table_of_positions_refuses_what_it_does_not_hold() -> None:
    model = model_of("gpt3")
    tokens = tokens_for(model.spec, length=CONTEXT + 1)
    with pytest.raises(InputError, match=f"{CONTEXT + 1} positions.*{CONTEXT}"):
        model(tokens)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        "gpt3",
        "llama",
        "llama-convolution",
        "diff_transformer-grouped",
        "ngpt",
        "griffin",
        "mamba",
        "lru",
        "h3",
        "efficient_attention",
        "efficient_attention-elu",
        "axial_image",
        "longformer-global",
        "topk_attention",
    ],
)
def test_compiled_equals_eager(case: str) -> None:
    """Once for each mixer class."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.recipes.compiled", case], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
