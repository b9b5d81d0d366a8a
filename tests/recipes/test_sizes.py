"""Published sizes have the published parameters; any other size works or is refused by name."""

import importlib
import inspect
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import windtunnel as wt
from tests.recipes.griffin_sizes import BODIES, WIDTHS, body
from windtunnel.errors import InputError
from windtunnel.ledger import Parameters, count

# Exact: Llama's and GPT-2's released weights; PaLM table 1 to all digits that it prints (8.63B, 62.50B, 540.35B).
EXACT = {
    ("llama", "7b"): 6_738_415_616,
    ("llama", "13b"): 13_015_864_320,
    ("llama", "33b"): 32_528_943_616,
    ("llama", "65b"): 65_285_660_672,
    ("llama", "llama2-70b"): 68_976_648_192,
    ("llama", "llama3-8b"): 8_030_261_248,
    ("llama", "llama3-70b"): 70_553_706_496,
    ("palm", "8b"): 8_632_012_800,
    ("palm", "62b"): 62_495_662_080,
    ("palm", "540b"): 540_356_474_880,
    ("diff_transformer", "diffllama"): 1_204_885_504,  # transformers' default configuration
    ("axial_image", "imagenet32"): 227_626_240,  # V d + 64 d + L (6 d² + 10 d) + 2 d + V (d + 1) for one channel
    ("efficient_attention", "tiny"): 2_964_480,  # GPT-3's count at this size: V d + T d + L (12 d² + 13 d) + 2 d
    ("griffin", "recurrentgemma-2b"): 2_682_862_080,  # as the authors' code makes them
    ("griffin", "recurrentgemma-9b"): 8_579_977_216,
    ("longformer", "41m"): 37_960_704,  # see test_longformer_counts
    ("longformer", "102m"): 94_703_616,
    ("ngpt", "0.5b"): 468_491_520,  # the paper prints 468.4M, its own formula gives this
    ("ngpt", "1b"): 1_026_177_280,
    ("mamba", "130m"): 129_135_360,
    ("h3", "125m"): 126_387_456,  # as the authors' script prints it
    # by hand: 6 blocks of 3 N + 4 N D + D + 2 (D² + D) + 2 D, a final norm of 2 D and two tables of V D
    ("lru", "text"): 6 * (3 * 192 + 4 * 192 * 256 + 256 + 2 * (256**2 + 256) + 512) + 512 + 2 * 256 * 256,
    ("gpt_neo", "125m"): 125_198_592,
    ("gpt_neo", "350m"): 355_798_016,
    ("gpt_neo", "1.3b"): 1_315_575_808,
    ("gpt_neo", "2.7b"): 2_651_307_520,
    ("gpt_j", "6b"): 6_050_882_784,
    ("mpt_alibi", "7b"): 6_649_286_656,
    ("mixtral", "8x7b"): 46_702_792_704,
    ("mixtral", "8x22b"): 140_620_634_112,
    ("mixtral", "tiny"): 3_609_728,
    # by hand: two tables, a final norm and 4 blocks of attention, norms and MLPs
    ("router_first", "tiny"): 2 * 1024 * 128 + 128 + 4 * (4 * 128**2 + 2 * 128 + 8 * (128 + 3 * 128 * 256)),
    ("switch", "tiny"): 2 * 1024 * 128 + 128 + 4 * (4 * 128**2 + 2 * 128) + 2 * (9 * 2 * 128 * 512 + 8 * 128),
    ("gshard", "tiny"): 2 * 1024 * 128 + 128 + 4 * (4 * 128**2 + 2 * 128) + 2 * (17 * 2 * 128 * 512 + 16 * 128),
    ("sparsely_gated_moe", "tiny"): 2 * 1024 * 128 + 128 + 4 * (4 * 128**2 + 2 * 128 + 16 * (2 * 128 + 2 * 128 * 128)),
}
# Printed to two or three digits. GPT-3's table rounds with a generous hand: 350M has 356M.
ROUNDED = {
    ("mpt_alibi", "30b"): (30.0e9, 0.005),
    ("gpt3", "125m"): (125e6, 0.01),
    ("gpt3", "350m"): (350e6, 0.02),
    ("gpt3", "760m"): (760e6, 0.01),
    ("gpt3", "1.3b"): (1.3e9, 0.015),
    ("gpt3", "2.7b"): (2.7e9, 0.02),
    ("gpt3", "6.7b"): (6.7e9, 0.01),
    ("gpt3", "13b"): (13.0e9, 0.015),
    ("gpt3", "175b"): (175.0e9, 0.005),
    ("mamba", "370m"): (370e6, 0.005),
    ("mamba", "790m"): (790e6, 0.005),
    ("mamba", "1.4b"): (1.4e9, 0.02),
    ("mamba", "2.8b"): (2.8e9, 0.012),
    ("h3", "355m"): (355e6, 0.018),
    ("h3", "1.3b"): (1.3e9, 0.021),
    ("h3", "2.7b"): (2.7e9, 0.012),
    ("sparse_transformer", "enwik8"): (95e6, 0.002),
    ("sparse_transformer", "imagenet64"): (152e6, 0.003),
    ("diff_transformer", "830m"): (0.834e9, 0.001),
    ("diff_transformer", "1.4b"): (1.413e9, 0.001),
    ("diff_transformer", "2.8b"): (2.773e9, 0.001),
    ("diff_transformer", "3b"): (3.48e9, 0.002),
    ("diff_transformer", "6.8b"): (6.853e9, 0.001),
    ("diff_transformer", "13.1b"): (13.096e9, 0.001),
    ("gpt4_rumour", "1.8t"): (1.831e12, 0.005),  # 16 x 111B + 55B
    ("gpt4_rumour", "8x220b"): (1.76e12, 0.005),
}
HEADLESS = ("mamba", "lru")  # each channel stands for itself
# Without the embedding, worked out in test_sizes_griffin.py: the paper prints widths and depths, not counts.
ROUNDED |= {(recipe, size): (body(recipe, size) + 256_000 * WIDTHS[size].width, 0) for recipe, size in BODIES}
PUBLISHED = [(name, size) for name in wt.recipes.names() for size in wt.recipes.entry(name).sizes]


def counted(recipe: str, **given: Any) -> Parameters:
    """The six counts, without memory for the weights."""
    with torch.device("meta"):
        return count(wt.recipes.get(recipe)(**given).build())


@pytest.mark.parametrize(("recipe", "size"), PUBLISHED)
def test_published_sizes(recipe: str, size: str) -> None:
    found = counted(recipe, size=size).n_total
    if (recipe, size) in EXACT:
        assert found == EXACT[recipe, size]
    else:
        expected, tolerance = ROUNDED[recipe, size]
        assert found == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize(
    ("layers", "width", "heads", "expected"),
    [
        (12, 768, 12, 124_439_808),
        (24, 1024, 16, 354_823_168),
        (36, 1280, 20, 774_030_080),
        (48, 1600, 25, 1_557_611_200),
    ],
)
def test_gpt3_at_the_sizes_of_gpt2_has_its_parameters(layers: int, width: int, heads: int, expected: int) -> None:
    found = counted("gpt3", layers=layers, width=width, heads=heads, vocab=50_257, context=1024)
    assert found.n_total == expected


@pytest.mark.parametrize(
    ("width", "layers", "heads", "hidden", "vocab", "expected", "baseline"),
    [
        (128, 4, 2, 344, 256, 825_216, 824_448),
        (256, 4, 4, 688, 256, 3_230_720, 3_229_952),
        (256, 6, 4, 688, 4096, 5_796_224, 5_795_072),
        (320, 6, 5, 856, 4096, 8_704_192, 8_703_040),
    ],
)
def test_differential_counts(
    width: int, layers: int, heads: int, hidden: int, vocab: int, expected: int, baseline: int
) -> None:
    sizes = {"width": width, "layers": layers, "hidden": hidden, "vocab": vocab, "tied": True}
    assert counted("diff_transformer", heads=heads, **sizes).n_total == expected
    assert counted("llama", heads=2 * heads, **sizes).n_total == baseline


@pytest.mark.parametrize(
    ("width", "layers", "heads", "vocab", "context", "expected"),
    [(128, 4, 4, 512, 256, 890_112), (192, 6, 6, 1024, 512, 2_961_024), (256, 6, 8, 4096, 512, 5_914_112)],
)
def test_gpt_neo_counts(width: int, layers: int, heads: int, vocab: int, context: int, expected: int) -> None:
    sizes = {"width": width, "layers": layers, "heads": heads, "vocab": vocab, "context": context}
    assert counted("gpt_neo", **sizes).n_total == expected
    grid = counted("gpt_neo", axial=True, rows=16, **sizes).n_total
    assert expected - grid == width * (context - 16 - context // 16)
    assert counted("gpt3", **sizes).n_total - expected == layers * 3 * width  # the biases of q, k and v


@pytest.mark.parametrize(
    ("width", "layers", "heads", "vocab", "expected"),
    [(128, 4, 4, 512, 921_856), (192, 6, 6, 1024, 3_056_896), (256, 6, 8, 4096, 6_831_104)],
)
def test_gpt_j_counts(width: int, layers: int, heads: int, vocab: int, expected: int) -> None:
    assert counted("gpt_j", width=width, layers=layers, heads=heads, vocab=vocab).n_total == expected


@pytest.mark.parametrize(("size", "heads", "width"), [("1.3b", 24, 2048), ("13b", 40, 5140)])
def test_rows_of_gpt3s_table_that_do_not_multiply_out_are_refused(size: str, heads: int, width: int) -> None:
    with pytest.raises(InputError, match=f"heads {heads} does not divide width {width}; give head_width"):
        counted("gpt3", size=size, heads=heads, width=width)


def test_gpt3_xl_has_its_count_only_with_heads_of_the_width() -> None:
    """24 heads of 128 would make 1.517 billion."""
    spec = wt.recipes.get("gpt3")(size="1.3b")
    wide = spec.blocks[0].mixer.replace(heads=24, head_width=128)
    with torch.device("meta"):
        found = count(spec.replace(blocks=tuple(block.replace(mixer=wide) for block in spec.blocks)).build())
    assert found.n_total == pytest.approx(1.517e9, rel=0.001)


@pytest.mark.parametrize(
    ("width", "layers", "heads", "vocab", "expected", "baseline"),
    [
        (128, 4, 4, 256, 1_120_000, 1_115_264),
        (192, 6, 6, 256, 3_650_176, 3_639_744),
        (256, 6, 8, 256, 6_439_680, 6_425_856),
        (256, 8, 8, 4096, 10_512_384, 10_490_112),
    ],
)
def test_ngpt_counts(width: int, layers: int, heads: int, vocab: int, expected: int, baseline: int) -> None:
    sizes = {"width": width, "layers": layers, "heads": heads, "vocab": vocab, "hidden": 4 * width}
    assert counted("ngpt", **sizes).n_total == expected
    assert counted("llama", **sizes).n_total == baseline


@pytest.mark.parametrize(
    ("width", "layers", "head_width", "vocab", "expected"),
    [
        (128, 4, 32, 256, 983_680),
        (256, 4, 64, 256, 3_867_904),
        (256, 6, 64, 4096, 6_752_000),
        (320, 6, 80, 4096, 10_221_760),
    ],
)
def test_palm_counts(width: int, layers: int, head_width: int, vocab: int, expected: int) -> None:
    found = counted("palm", width=width, layers=layers, heads=4, head_width=head_width, vocab=vocab)
    assert found.n_total == expected


@pytest.mark.parametrize(("size", "published"), [("41m", 41e6), ("102m", 102e6)])
def test_longformer_counts(size: str, published: float) -> None:
    """Rotary positions have no parameters; the paper's relative ones have a matrix of width² in every layer."""
    spec = wt.recipes.get("longformer")(size=size)
    relative = len(spec.blocks) * spec.width**2
    assert counted("longformer", size=size).n_total + relative == pytest.approx(published, rel=0.006)


@pytest.mark.parametrize("recipe", wt.recipes.names())
def test_the_table_lists_the_sizes_that_there_are(recipe: str) -> None:
    module = importlib.import_module(f"windtunnel.recipes.{recipe}")
    assert wt.recipes.entry(recipe).sizes == tuple(module.SIZES)


@pytest.mark.parametrize("recipe", wt.recipes.names())
def test_the_common_settings_are_keywords_of_every_recipe(recipe: str) -> None:
    parameters = inspect.signature(wt.recipes.get(recipe)).parameters
    assert {"size", "vocab", "layers", "width", "context", "hidden"} <= set(parameters)
    assert ("heads" in parameters) == (recipe not in HEADLESS)
    assert all(parameter.kind == inspect.Parameter.KEYWORD_ONLY for parameter in parameters.values())


@pytest.mark.parametrize("recipe", wt.recipes.names())
def test_a_keyword_goes_before_the_named_size(recipe: str) -> None:
    size = next(iter(wt.recipes.entry(recipe).sizes), None)
    spec = wt.recipes.get(recipe)(size=size, layers=1, vocab=10, context=20)
    assert (spec.depth, spec.vocab, spec.context) == (1, 10, 20)
    assert spec.width == wt.recipes.get(recipe)(size=size).width


@pytest.mark.parametrize("recipe", wt.recipes.names())
@given(
    heads=st.integers(1, 5),
    half=st.integers(1, 9),
    layers=st.integers(1, 3),
    vocab=st.integers(1, 300),
    hidden=st.none() | st.integers(1, 70),
    length=st.integers(1, 9),
)
@settings(max_examples=15)
def test_any_size_works(
    recipe: str, heads: int, half: int, layers: int, vocab: int, hidden: int | None, length: int
) -> None:
    width = heads * 2 * half * (2 if recipe == "diff_transformer" else 1)
    sizes = {"width": width, "layers": layers, "vocab": vocab, "hidden": hidden, "context": length}
    spec = wt.recipes.get(recipe)(**sizes, **({} if recipe in HEADLESS else {"heads": heads}))
    model = wt.build(spec)
    tokens = torch.randint(0, vocab, (2, length))
    out = model(tokens)
    assert out.logits.shape == (2, length, vocab)
    assert bool(out.logits.isfinite().all())
    assert out.state is not None
    assert out.state.position == length
    assert bool(model.loss(tokens, tokens).total.isfinite())
    assert spec.depth == layers


@pytest.mark.parametrize("recipe", wt.recipes.names())
@given(width=st.integers(1, 300))
@settings(max_examples=25)
def test_any_width_works_alone_or_is_refused_by_name(recipe: str, width: int) -> None:
    refusal = ""
    try:
        assert counted(recipe, width=width, layers=1, vocab=7, context=5).n_body > 0
    except InputError as error:
        refusal = str(error)
    assert not refusal or ("width" in refusal and str(width) in refusal)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"size": "999t"}, "size"),
    *(({name: value}, name) for name in ("vocab", "layers", "width", "context") for value in (0, -3, 2.5, "64", True)),
    *(({name: value}, name) for name in ("heads", "hidden") for value in (0, -3, 2.5)),
    ({"width": 64, "heads": 5}, "heads"),
]


@pytest.mark.parametrize("recipe", wt.recipes.names())
@pytest.mark.parametrize(("given_settings", "field"), BAD, ids=str)
def test_sizes_that_cannot_be_are_refused_by_name(recipe: str, given_settings: dict[str, Any], field: str) -> None:
    value = list(given_settings.values())[-1]
    with pytest.raises(InputError) as caught:
        counted(recipe, **given_settings)
    assert field in str(caught.value)
    headless = recipe in HEADLESS and field == "heads"
    assert str(value) in str(caught.value) or headless or recipe == "diff_transformer"


@pytest.mark.parametrize("recipe", wt.recipes.names())
def test_unknown_settings_are_refused_with_the_nearest(recipe: str) -> None:
    with pytest.raises(InputError, match=r"'widht'.*width"):
        wt.recipes.build(recipe, widht=64)
