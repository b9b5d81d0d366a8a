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

# Stored run folders are checked against these: a change here makes every old run unreadable.
FINGERPRINTS = {
    "gpt3": "847bd85c9dd7dc01e01cf992030efcbd1b3a90ab8d7df162a1ba53674e79b2f1",
    "gpt_neo": "fb7697382fb68b09290ff2f1c4688578fdc6a1a10ca52de15fd13e97d329dcb7",
    "gpt_j": "991e9563e9528eecf25ff11f9143db2daa9aa584f7763ee8e20ce4a849ccd9fc",
    "mpt_alibi": "18e733de2745193ff5738db104f4c5aa37734c3788de989c21fcb34a48bc831d",
    "axial_text": "c7008a8a5f4e60c0765cf5ed7428273ea396d3faa12a2831d9d429aade56d740",
    "llama": "a9d20eb8b95dd3ee2d1677f1c746f2a34eefe01fe8ff93096b8c6aa4fadd6698",
    "palm": "e41b8548d1005f1ec6edcb595440a8b71d6ff5fe180e4fa2706e1bc6a1a20a28",
    "diff_transformer": "ca68cc327c063cc419bd0d38fd671f4b8fcc10b04d8464bb5a55c2dd8a18ea82",
    "diff_transformer_v2": "f1798d13335282a21ecf88cddb79b6e5ca694bfd11dcb54d1e2e2415d3e2526f",
    "ngpt": "d89fd8e62995b56a03feccc2facab2e05195321f54fc01c0848ed2041d0221bb",
    "griffin": "93fffc9fbbf7555c56bafcc84834bc48a39162f14b720f14d1008ebe20df2e15",
    "hawk": "d452c3e1e00445d4f8facc6ffebd6efcbea158b473ca86514bba9c413d7f5e6c",
    "mqa_transformer": "7c814d540d64f7a0e302d1d975bf818587d2fcfd4a6975358cff8adca86c180f",
    "mamba": "5f83f403920e24fe2532ede7e79fcb43d590e2b6d6b0b90cff1a5e5bcae1233e",
    "lru": "4fe7c571e73b966caec2e7cd5ee03aa7ad43f11c6e4fbc1b9c5cec9b67aae73e",
    "h3": "7089a7b9da2e658084a0b2e2f5523ec397b570f9f4fa0ac8a250c5912b74dd44",
    "longformer": "c93e8e4bac1c8d409db0d11b469d070471f5898aade22da082b5768963533ea0",
    "sparse_transformer": "46590f40f97ff229d5a69f2973daecdd0fc34a7e9087171acf216db7d926f74e",
    "bigbird": "7a8840fc9b812e31d300f841ea80f00101dcf94e2416087ef32dc33ae30b7ab1",
    "efficient_attention": "9009c8a99f93270a7926a295970578eda37464f17ca4e7abf37b3e3fe1a748aa",
    "sparsely_gated_moe": "5a9e203bb3846c670e8e7286316d4ba6aecdefdc375f875171b8ad1fd689c319",
    "switch": "be95e6959ccfd177f9c3709b9d2a442de068e1a479acbd6ccbc439aaa77f117e",
    "gshard": "8e6102c3877b635c01ada76434196a7dba2c080b8fccdbf06f77438b74afcd55",
    "mixtral": "d013850e4d37f8d6e84c1a933c556dec25c5eb36c4925a24d9c2f9b8b9bec6c0",
    "gpt4_rumour": "e3f30cf78e90a6abfaea39be426cfcd4c1a3b82153deee7b1a8ad1d6f46fdc96",
    "router_first": "28240927cb54dee642ddc6ed9f5df4b61375697ee35717da2b522c9acf60ecc0",
    "axial_image": "a4de2b59f5eeb9a2611619fe9eae34f1f616cb50e0edd511fc3470bf416b1489",
}

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


@pytest.mark.parametrize("name", wt.recipes.names())
def test_fingerprints_are_stable(name: str) -> None:
    assert wt.recipes.get(name)(vocab=256, layers=4, width=128, context=64).fingerprint() == FINGERPRINTS[name]


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
