"""Specs as values: coercion, refusals, JSON, fingerprints, differences."""

import json
import subprocess
import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

import windtunnel as wt
from windtunnel.errors import InputError
from windtunnel.init import FanIn, Normal
from windtunnel.mixers import Attention, DiffAttention, NormalizedAttention
from windtunnel.mlps import Dense, Gated
from windtunnel.model import Block, Embedding, Head, LanguageModel
from windtunnel.norms import LayerNorm, RMSNorm, Scale
from windtunnel.positions import Alibi, DynamicNTK, Interpolation, Learned, Rope, Sinusoidal, YaRN
from windtunnel.residuals import Normalized, Parallel, PreNorm
from windtunnel.spec import Spec, difference, from_json

scalings = (
    st.builds(Interpolation, factor=st.floats(1, 64))
    | st.builds(YaRN, factor=st.floats(1, 64), trained=st.integers(1, 10**5), truncate=st.booleans())
    | st.builds(DynamicNTK, trained=st.integers(1, 10**5), length=st.integers(1, 10**5))
)
additive = st.builds(Sinusoidal, theta=st.floats(1, 1e6)) | st.builds(Learned, length=st.integers(1, 999))
ropes = st.builds(
    Rope,
    scaling=st.none() | scalings,
    theta=st.floats(1.0, 1e7),
    layout=st.sampled_from(["half", "interleaved"]),
    width=st.none() | st.integers(1, 32).map(lambda half: 2 * half),
)
norms = st.builds(RMSNorm, eps=st.floats(1e-8, 1e-3), gain=st.booleans()) | st.builds(LayerNorm, bias=st.booleans())
groups = st.tuples(st.integers(1, 4), st.integers(1, 4))
attentions = st.builds(
    lambda sizes, rope, window, bias, alibi: Attention(
        heads=sizes[0] * sizes[1], kv_heads=sizes[0], rope=rope, window=window, bias=bias, alibi=alibi
    ),
    groups,
    st.none() | ropes,
    st.none() | st.integers(1, 512),
    st.booleans(),
    st.none() | st.builds(Alibi, steepness=st.floats(0.1, 64)),
)
differential = st.builds(DiffAttention, heads=st.integers(1, 8), depth=st.integers(0, 100), rope=st.none() | ropes)
mlps = st.builds(Dense, hidden=st.integers(1, 999)) | st.builds(
    Gated, hidden=st.integers(1, 999), activation=st.sampled_from(["silu", "gelu", "relu"])
)
blocks = st.builds(
    Block,
    residual=st.builds(PreNorm, norm=norms) | st.builds(Parallel, norm=norms),
    mixer=attentions | differential,
    mlp=mlps,
)
models = st.builds(
    LanguageModel,
    vocab=st.integers(1, 10**6),
    width=st.integers(1, 2048).map(lambda half: 2 * half),
    embedding=st.builds(Embedding, positions=st.none() | additive),
    context=st.integers(1, 10**6),
    blocks=st.lists(blocks, min_size=1, max_size=3).map(tuple),
    norm=st.none() | norms,
    head=st.builds(Head, tied=st.booleans(), soft_cap=st.none() | st.floats(1, 100)),
    initial=st.builds(Normal, std=st.floats(1e-3, 1)) | st.builds(FanIn),
)


def small(**changes: object) -> LanguageModel:
    """A one-block model."""
    block = Block(residual=PreNorm(norm=RMSNorm()), mixer=Attention(heads=2, rope=Rope()), mlp=Gated(hidden=24))
    settings: dict[str, object] = {"vocab": 11, "width": 8, "context": 16, "blocks": (block,), **changes}
    return LanguageModel(**settings)  # type: ignore[arg-type]


def test_numbers_are_coerced_by_annotation() -> None:
    whole, real = Rope(theta=500_000), Rope(theta=500_000.0)
    assert whole == real
    assert type(whole.theta) is float
    assert whole.fingerprint() == real.fingerprint()
    counted = Attention(heads=4.0)  # type: ignore[arg-type]
    assert type(counted.heads) is int
    assert counted.fingerprint() == Attention(heads=4).fingerprint()


def test_lists_become_tuples() -> None:
    block = small().blocks[0]
    assert small(blocks=[block, block]).blocks == (block, block)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Rope(theta="10"), ("Rope.theta", "float", "'10'")),
        (lambda: Rope(theta=float("nan")), ("Rope.theta", "nan")),
        (lambda: Rope(theta=float("inf")), ("Rope.theta", "inf")),
        (lambda: Rope(theta=10**400), ("Rope.theta", "float")),
        (lambda: Rope(theta=True), ("Rope.theta", "True")),
        (lambda: Rope(theta=-1), ("theta", "positive", "-1")),
        (lambda: Rope(layout="spiral"), ("Rope.layout", "'half' or 'interleaved'", "'spiral'")),
        (lambda: Rope(width=3), ("width", "even", "3")),
        (lambda: Attention(heads=4.5), ("Attention.heads", "int", "4.5")),
        (lambda: Attention(heads=True), ("Attention.heads", "int", "True")),
        (lambda: Attention(heads=0), ("heads", "positive", "0")),
        (lambda: Attention(heads=4, kv_heads=3), ("kv_heads 3", "heads 4")),
        (lambda: Attention(heads=4, window=0), ("window", "positive")),
        (lambda: Attention(heads=4, bias=1), ("Attention.bias", "bool", "1")),
        (lambda: Attention(heads=4, rope=lambda x: x), ("Attention.rope", "Rope or None", "function")),
        (lambda: DiffAttention(heads=2, depth=-1), ("depth", "-1")),
        (lambda: NormalizedAttention(heads=4, kv_heads=2), ("kv_heads",)),
        (lambda: Scale(rate=0), ("rate", "positive")),
        (lambda: Gated(hidden=0), ("hidden", "positive")),
        (lambda: small(vocab=0), ("vocab", "positive", "0")),
        (lambda: small(blocks=()), ("blocks", "empty")),
        (lambda: small(blocks=(RMSNorm(),)), ("LanguageModel.blocks.0", "Block", "RMSNorm")),
    ],
)
def test_refusals_name_field_value_and_what_is_allowed(make: object, words: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        make()  # type: ignore[operator]
    for word in words:
        assert word in str(caught.value)


def test_normalized_and_ordinary_blocks_do_not_mix() -> None:
    block = small().blocks[0]
    with pytest.raises(InputError, match="residual stream"):
        small(blocks=(block, block.replace(residual=Normalized())))


@pytest.mark.parametrize(
    ("mixer", "words"),
    [
        (Attention(heads=3), ("heads 3", "width 8", "head_width")),
        (Attention(heads=8, rope=Rope()), ("head width of 1", "even")),
        (Attention(heads=2, rope=Rope(width=6)), ("width 6", "head width 4")),
        (DiffAttention(heads=3, depth=0), ("heads 6", "width 8")),
    ],
)
def test_sizes_that_cannot_be_are_refused_when_built(mixer: Spec, words: tuple[str, ...]) -> None:
    spec = small(blocks=(small().blocks[0].replace(mixer=mixer),))
    with pytest.raises(InputError) as caught:
        spec.build()
    for word in words:
        assert word in str(caught.value)


@given(models)
def test_json_round_trip(spec: LanguageModel) -> None:
    again = from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert again.fingerprint() == spec.fingerprint()
    assert difference(again, spec) == []


@given(models, models)
def test_equal_fingerprints_mean_equal_specs(left: LanguageModel, right: LanguageModel) -> None:
    assert (left == right) == (left.fingerprint() == right.fingerprint())
    assert (left == right) == (difference(left, right) == [])


def test_fields_at_their_defaults_are_not_hashed() -> None:
    class Before(Spec):
        heads: int

    class After(Spec):
        heads: int
        window: int | None = None

    before, after = Before(heads=2), After(heads=2)
    assert before.canonical().replace(Before.kind, "") == after.canonical().replace(After.kind, "")
    assert "window" in After(heads=2, window=3).canonical()
    assert after.to_json()["window"] is None


def test_unknown_kinds_and_fields_are_refused_with_their_path() -> None:
    data = small().to_json()
    data["blocks"][0]["mixer"]["head"] = 3
    with pytest.raises(InputError, match=r"spec\.blocks\.0\.mixer.*'head'.*did you mean.*heads.*newer"):
        from_json(data)
    data = small().to_json()
    data["blocks"][0]["mixer"]["kind"] = "Atention"
    with pytest.raises(InputError, match=rf"spec\.blocks\.0\.mixer.*'Atention'.*Attention.*{wt.__version__}.*newer"):
        from_json(data)
    data = small().to_json()
    del data["vocab"], data["blocks"][0]["residual"]["norm"]
    with pytest.raises(InputError, match=r"spec\.blocks\.0\.residual: PreNorm needs norm"):
        from_json(data)
    with pytest.raises(InputError, match="'kind'"):
        from_json({"heads": 2})
    with pytest.raises(InputError, match=r"LanguageModel\.norm.*Norm or None"):
        from_json({**small().to_json(), "norm": {"kind": "Rope"}})


def test_foreign_kinds_load_only_from_named_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    (tmp_path / "my_lab").mkdir()  # type: ignore[operator]
    (tmp_path / "my_lab" / "__init__.py").write_text("")  # type: ignore[operator]
    (tmp_path / "my_lab" / "idea.py").write_text(  # type: ignore[operator]
        "from windtunnel.norms import Norm\n\nclass Idea(Norm):\n    strength: float = 1.0\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    data = {**small().to_json(), "norm": {"kind": "my_lab.idea.Idea", "strength": 2}}
    with pytest.raises(InputError, match=r"spec\.norm.*my_lab.*only when named"):
        from_json(data)
    assert "my_lab" not in sys.modules
    spec = from_json(data, packages=["my_lab"])
    assert spec.to_json()["norm"] == {"kind": "my_lab.idea.Idea", "strength": 2.0}  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"cannot import.*my_lab\.other"):
        from_json({"kind": "my_lab.other.Idea"}, packages=["my_lab"])


def test_reading_needs_no_import_of_parts() -> None:
    data = json.dumps(wt.recipes.get("ngpt")(layers=1, width=64).to_json())
    code = f"import json, windtunnel as wt; print(wt.from_json(json.loads({data!r})).fingerprint())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == wt.recipes.get("ngpt")(layers=1, width=64).fingerprint()


def test_difference_lists_leaves_with_their_path() -> None:
    left = small()
    right = left.replace(vocab=12, norm=RMSNorm(eps=1e-5))
    assert difference(left, right) == [
        ("vocab", 11, 12),
        ("norm", None, {"kind": "RMSNorm", "eps": 1e-5, "gain": True}),
    ]


def test_difference_merges_layers_and_names_changed_kinds() -> None:
    llama = wt.recipes.get("llama")(layers=3, width=64)
    wider = wt.recipes.get("llama")(layers=3, width=64, hidden=200)
    assert difference(llama, wider) == [("blocks.*.mlp.hidden", 176, 200)]
    rows = {
        path: (ours, theirs) for path, ours, theirs in difference(llama, wt.recipes.get("palm")(layers=3, width=64))
    }
    assert rows["blocks.*.residual"] == ("PreNorm", "Parallel")
    assert rows["blocks.*.mixer.kv_heads"] == (None, 1)
    assert rows["head.tied"] == (False, True)


def test_initialisation_is_identity_but_not_function() -> None:
    left, right = small(initial=FanIn()), small(initial=Normal(std=0.1))
    assert left.fingerprint() != right.fingerprint()
    assert left.same_function(right)
    assert not left.same_function(small(initial=FanIn(), norm=RMSNorm()))


def test_specs_are_frozen_and_hashable() -> None:
    spec = small()
    with pytest.raises(AttributeError):
        spec.vocab = 3
    assert len({spec, small(), small(vocab=12)}) == 2
    assert spec.replace(vocab=12) == small(vocab=12)
    with pytest.raises(TypeError):
        LanguageModel(11, 8, 16, blocks=spec.blocks)  # type: ignore[misc, call-arg]


def test_recipes_of_ones_own_load_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("my_own_lab")
    module.idea = lambda **settings: small(**settings)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_own_lab", module)
    assert wt.recipes.get("my_own_lab:idea")(vocab=12) == small(vocab=12)
    with pytest.raises(InputError, match="my_own_lab:nothing"):
        wt.recipes.get("my_own_lab:nothing")
    with pytest.raises(InputError, match="did you mean llama"):
        wt.recipes.get("lama")
