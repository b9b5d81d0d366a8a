"""muP: the published table's factors, written out again; a model trained under table 3 by torch and transformers."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.proof import Proof
from tests.recipes import test_oracles_llama as llama
from tests.recipes.cases import tokens_for
from windtunnel import recipes
from windtunnel.errors import InputError
from windtunnel.init import Normal, roles
from windtunnel.layer import Role
from windtunnel.mup import MuP
from windtunnel.root import Model, ModelLayer
from windtunnel.spec import from_json
from windtunnel.training.coordinates import Plan, Result, check
from windtunnel.training.optimisers import build_optimisers
from windtunnel.training.optimisers.groups import parameter_groups
from windtunnel.training.settings import TrainingSettings
from windtunnel.training.transfer import at_width, check_mup, under_mup

R = 4  # how much wider than the base
SIZES: dict[str, Any] = {"vocab": 41, "layers": 2, "context": 24, "heads": 4}
STEPS, RATE = 5, 0.01


def wide(recipe: str = "llama", base: int = 16, **settings: Any) -> Model:
    return under_mup(recipe, {**SIZES, **settings, "width": R * base}, base)


def train(model: Any, optimisers: list[Any], loss_of: Any) -> None:
    for _ in range(STEPS):
        loss_of(model).backward()
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()


def factors(model: ModelLayer, weight_decay: float, **options: Any) -> dict[str, tuple[float, float]]:
    """Factor of the learning rate and decay of every parameter, by name."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, weight_decay, **options)
    return {
        names[parameter]: (group["factor"], group["weight_decay"]) for group in groups for parameter in group["params"]
    }


def test_llama_is_trained_as_table_3_says(proof: Proof) -> None:
    """Table 3 has no factor in the model, ours (table 8) has two: the same model if weights and rates make up for it.

    The rival is transformers' Llama with its own 1/sqrt(head width) and unscaled logits, under torch's AdamW.
    """
    spec = wide()
    ours = spec.build().initialize(0).double()
    theirs = llama.theirs(spec).double().train()
    root = math.sqrt(R)  # heads are R times as wide: scores / width are scores / root of it, times base's, / sqrt(R)
    factor = {"lm_head": (1 / R, 1 / R), "q_proj": (1 / root, 1 / R / root)}  # of the weight, of its rate
    inner = ("k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    factor |= dict.fromkeys(inner, (1.0, 1 / R))
    groups = []
    given = llama.mapped({name: value.detach().clone() for name, value in ours.named_parameters()})
    for name, parameter in theirs.named_parameters():
        weight, rate = next((value for part, value in factor.items() if part in name), (1.0, 1.0))
        parameter.data.copy_(given[name] * weight)
        groups.append({"params": [parameter], "lr": RATE * rate})
    tokens = tokens_for(spec, length=24)
    settings = TrainingSettings(tokens=48, context=24, batch_size=2, learning_rate=RATE, weight_decay=0.0, eps=1e-30)
    optimisers = build_optimisers(ours, settings)
    for group in optimisers[0].param_groups:
        group["lr"] = RATE * group["factor"]
    rival = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-30, weight_decay=0.0)
    before = ours(tokens).logits.detach()
    train(ours, optimisers, lambda model: model.loss(tokens[:, :-1], tokens[:, 1:]).total)
    train(theirs, [rival], lambda m: F.cross_entropy(m(tokens[:, :-1]).logits.flatten(0, 1), tokens[:, 1:].flatten()))
    after, expected = ours(tokens).logits.detach(), theirs(tokens).logits.detach()
    assert float((after - before).abs().max()) > 0.5  # it did learn
    error = float((after - expected).abs().max() / expected.abs().max())
    assert error < 2e-5  # transformers rotates and takes softmaxes in float32
    proof("muP", "transformers Llama under table 3, five steps of torch's AdamW", logits=error)


def test_table_8_written_out() -> None:
    """Deviations and rates by name, as the table has them for r = 4."""
    model = wide(tied=False).build().initialize(0)
    depth = math.sqrt(2 * SIZES["layers"])
    deviations = {
        "embedding.weight": 1.0,
        "head.weight": 1 / math.sqrt(16),
        "blocks.0.mixer.q.weight": 1 / math.sqrt(64),
        "blocks.0.mixer.o.weight": 1 / math.sqrt(64) / depth,
        "blocks.1.mlp.down.weight": 1 / math.sqrt(model.blocks["1"].mlp.down.inputs) / depth,
    }
    for name, expected in deviations.items():
        weight = model.get_parameter(name)
        assert float(weight.detach().std()) == pytest.approx(expected, rel=4 / math.sqrt(2 * weight.numel())), name
    assert model.spec.head.scale == 1 / R
    assert model.blocks["0"].mixer.scale == pytest.approx(math.sqrt(4) / 16)  # of heads that grew from 4 to 16
    found = factors(model, 0.1)
    for name, value in found.items():
        matrix = name.startswith("blocks") and "norm" not in name
        decayed = matrix or name in ("embedding.weight", "head.weight")
        assert value == (1 / R if matrix else 1.0, pytest.approx(0.1 * (R if matrix else 1)) if decayed else 0.0), name
    assert all(group["eps"] == 1e-8 / R for group in parameter_groups(model, 0.1, 1e-8))


def test_rates_of_sgd() -> None:
    model = wide("gpt_j").build()
    for name, (factor, _) in factors(model, 0.0, family="sgd").items():
        matrix = name.startswith("blocks") and name.endswith("weight") and "norm" not in name
        assert factor == (1.0 if matrix or name == "head.bias" else R), name


def test_a_fixed_standard_deviation_falls_with_the_root_of_the_width() -> None:
    mup = MuP(initial=Normal(std=0.02, scale_writes=False), width=256, base=64)
    assert mup.deviation(Role("reads", fan_in=256), 2) == pytest.approx(0.01)
    for kind in ("embedding", "unembedding"):
        assert mup.deviation(Role(kind, fan_in=256), 2) == 0.02


@pytest.mark.parametrize("recipe", ["llama", "gpt3", "palm", "griffin", "diff_transformer"])
def test_at_the_base_width_nothing_changes(recipe: str) -> None:
    settings = {**SIZES, "width": 32}
    if recipe == "diff_transformer":
        settings["heads"] = 2
    plain = recipes.build(recipe, **settings).build().initialize(3)
    ours = under_mup(recipe, settings, 32)
    model = ours.build().initialize(3)
    for (name, parameter), (_, other) in zip(plain.named_parameters(), model.named_parameters(), strict=True):
        assert torch.equal(parameter, other), name
    tokens = tokens_for(plain.spec, length=20)
    assert torch.equal(plain(tokens).logits, model(tokens).logits)
    assert {factor for factor, _ in factors(model, 0.1).values()} == {1.0}
    assert from_json(ours.to_json()) == ours


def test_logits_begin_smaller_by_the_root_of_the_width() -> None:
    """In the limit; the standard parametrisation keeps their size."""
    sizes = []
    for spec in (wide(base=64), recipes.build("llama", **SIZES, width=64)):
        tokens = tokens_for(spec, batch=8)
        sizes.append(np.mean([float(spec.build().initialize(s)(tokens).logits.detach().std()) for s in range(4)]))
    assert sizes[0] / sizes[1] == pytest.approx(1 / math.sqrt(R), rel=0.1)


def test_inner_widths_that_were_given_keep_their_ratio() -> None:
    assert at_width("llama", {**SIZES, "width": 64, "hidden": 160}, 16) == {**SIZES, "width": 16, "hidden": 40}


@pytest.mark.parametrize(
    ("recipe", "settings", "words"),
    [
        ("ngpt", {}, "unit sphere"),
        ("ngpt", {"steps": 2}, "projected"),
        ("efficient_attention", {}, "heads grow from 4 to 16"),
        ("griffin", {"pattern": "A", "heads": None}, None),
    ],
)
def test_what_has_no_rule_is_refused(recipe: str, settings: dict[str, Any], words: str | None) -> None:
    if words is None:
        wide(recipe, **settings)
        return
    with pytest.raises(InputError, match=words):
        wide(recipe, **settings)


def test_optimisers_outside_the_table_are_refused() -> None:
    spec, given = wide(), {"tokens": 48, "context": 24, "batch_size": 2, "learning_rate": RATE}
    for changes, words in (
        ({"optimiser": "muon"}, "no rates for 'muon'"),
        ({"optimiser": "adafactor"}, "take one of adamw, adam, sgd"),
        ({"optimiser": "adam"}, "weight_decay is 0.1"),
    ):
        with pytest.raises(InputError, match=words):
            check_mup(spec, TrainingSettings(**given, **changes))
        check_mup(recipes.build("llama", **SIZES, width=64), TrainingSettings(**given, **changes))
    check_mup(spec, TrainingSettings(**given, optimiser="adam", weight_decay=0.0))


@pytest.fixture(scope="module")
def results() -> dict[tuple[str, str], Result]:
    plan = {"widths": (64, 128, 256), "seeds": 1, "steps": 3, "settings": {"layers": 1}}
    return {
        (recipe, kind): check(Plan(recipe, **plan), kind)  # type: ignore[arg-type]
        for recipe in ("llama", "gpt3")
        for kind in ("mup", "standard")
    }


@pytest.mark.parametrize("recipe", ["llama", "gpt3"])
def test_coordinates_keep_their_size_under_mup_alone(recipe: str, results: dict[tuple[str, str], Result]) -> None:
    mup, standard = results[recipe, "mup"], results[recipe, "standard"]
    assert mup.passed, mup.faults
    assert not standard.passed
    for one, other in zip(mup.sites, standard.sites, strict=True):
        if one.name in ("blocks.0.mixer", "blocks.0.mlp", "blocks.0.mixer scores", "blocks.0"):
            assert standard.slope(other, "changes").value > mup.slope(one, "changes").value + 0.5, one.name


def test_the_first_width_is_the_same_in_both(results: dict[tuple[str, str], Result]) -> None:
    for one, other in zip(results["llama", "mup"].sites, results["llama", "standard"].sites, strict=True):
        assert one.changes[:, 0] == pytest.approx(other.changes[:, 0])


def test_a_missing_factor_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrices that read the stream keep the rate of the base."""
    right = MuP.rate

    def wrong(self: MuP, role: Role, family: Any) -> float:
        return 1.0 if role.kind == "reads" else right(self, role, family)

    monkeypatch.setattr(MuP, "rate", wrong)
    assert not check(Plan("llama", widths=(64, 128, 256), seeds=1, steps=3)).passed


def test_every_parameter_is_of_a_kind_that_the_table_knows() -> None:
    for recipe in ("mamba", "griffin", "mixtral", "h3"):
        model = recipes.build(recipe, vocab=41, layers=3, width=64, context=24).build()
        kinds = {role.kind for role in roles(model).values()}
        mup = MuP(initial=model.spec.initial, width=256, base=64)
        for kind in kinds:
            expected = 0.25 if kind in ("reads", "writes", "inner") else 1.0
            assert mup.rate(Role(kind), "adam") == expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"widths": (64, 128)}, "at least three"), ({"steps": 0}, "steps: 0"), ({"seeds": 0}, "seeds")],
)
def test_plans_that_give_no_slope(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        check(Plan("llama", **changes))
