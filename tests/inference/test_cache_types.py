"""Keys and values in fewer bits: memory as counted, results near those of the model's own type, drafts still exact."""

import pytest
import torch
from torch import Tensor

from tests.inference.test_engine import GREEDY, prompts, served
from tests.recipes.cases import model_of, tokens_for
from windtunnel.errors import InputError
from windtunnel.inference import states
from windtunnel.inference.batch import Batch
from windtunnel.inference.engine import CACHES, CacheType, Engine, EngineSettings
from windtunnel.inference.request import Request
from windtunnel.root import ModelLayer

# One of each kind of state: buffers, rings, slots of sparse patterns; attention and recurrences with and without
# convolutions.
CASES = (
    "llama-grouped",
    "llama-convolution",
    "gpt3-window-of-2",
    "gpt3-alibi",
    "mpt_alibi-grouped-window",
    "diff_transformer",
    "diff_transformer_v2",
    "ngpt",
    "griffin",
    "mamba",
    "lru",
    "h3",
    "efficient_attention",
    "gpt_neo-linear",
    "longformer-global",
    "topk_attention",
)
LENGTH = 30
ROUNDINGS = 8  # times the type's precision: how far logits may be off, over the largest of them


def fed(batch: Batch, text: list[int], sizes: list[int]) -> Tensor:
    """The logits [t v] of row 0 over a text in calls of these sizes."""
    with torch.inference_mode():
        parts = [batch.feed(0, [[text.pop(0) for _ in range(size)]], last=size) for size in sizes]
    return torch.cat(parts, 1)[0]


@pytest.mark.parametrize(
    ("case", "name"), [*((case, "bfloat16") for case in CASES), ("llama-grouped", "float16"), ("griffin", "float16")]
)
def test_results_are_near_and_calls_of_any_size_agree(case: str, name: CacheType) -> None:
    model, dtype = model_of(case, dtype=torch.float64), CACHES[name]
    text = tokens_for(model.spec, batch=1, length=LENGTH)[0].tolist()
    exact = fed(Batch(model, 2, 64, 8), list(text), [1] * LENGTH)
    singly = fed(Batch(model, 2, 64, 8, cache=dtype), list(text), [1] * LENGTH)
    mixed = fed(Batch(model, 2, 64, 8, cache=dtype), list(text), [5, 1, 8, 1, 1, 7, 2, 5])
    scale, precision = float(exact.abs().max()), torch.finfo(dtype).eps
    assert 0 < float((singly - exact).abs().max()) / scale < ROUNDINGS * precision
    assert float((mixed - singly).abs().max()) / scale < 1e-5  # recurrences are kept in float32 between calls


@pytest.mark.parametrize("case", [case for case in CASES if "longformer" not in case])
def test_memory_is_what_the_ledger_counts(case: str) -> None:
    """Buffers of as many slots as tokens; what they need beside them are the positions, 8 bytes a slot."""
    model = model_of(case)
    for dtype in CACHES.values():
        tokens = 64 if not windowed(model) else min(windowed(model)) - 1
        state = model.reserve(2, tokens, 1, dtype)
        held = states.state_bytes(state) - sum(8 * each.positions.numel() for each in states.buffers(state.blocks))
        assert held == 2 * model.state_bytes(tokens, dtype.itemsize)
        assert Batch(model, 2, 64, 4, cache=dtype).state_bytes(50) == model.state_bytes(50, dtype.itemsize)


def windowed(model: ModelLayer) -> list[int]:
    return [module.window for module in model.modules() if isinstance(getattr(module, "window", None), int)]


@pytest.mark.parametrize("case", CASES)
def test_drafts_and_rewinding_give_the_text_of_single_tokens(case: str) -> None:
    """Of the model with that cache: copies out of the text are verified in blocks, kept, and rewound."""
    model = model_of(case, dtype=torch.float64)
    settings = EngineSettings(slots=3, chunk=6, draft_tokens=4, cache_dtype="bfloat16")
    asked = [Request(prompt=prompt * 3, sampling=GREEDY, tokens=12) for prompt in prompts(model.spec.vocab)[:4]]
    drafting = Engine(model, settings=settings, draft="lookup")
    found = [[piece.token for piece in pieces] for pieces in served(drafting, asked)]
    assert drafting.drafted > 0
    alone = [served(Engine(model, settings=settings.replace(chunk=1)), [request])[0] for request in asked]
    assert found == [[piece.token for piece in pieces] for pieces in alone]


def test_a_type_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match=r"cache_dtype: expected 'float32' or 'bfloat16'.*got 'int8'"):
        EngineSettings(cache_dtype="int8")  # type: ignore[arg-type]
