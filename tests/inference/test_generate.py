"""`wt.generate`: prompts begin documents, answers have the prompt's kind, drafts change nothing but the speed."""

from pathlib import Path
from typing import Any

import pytest
import torch

import windtunnel as wt
from tests.recipes.cases import disturbed
from windtunnel.data.tokenizers import ByteTokenizer, CharacterTokenizer, Tokenizer
from windtunnel.errors import InputError, WorkError
from windtunnel.inference.generate import Generation, ids_of
from windtunnel.inference.request import Request
from windtunnel.inference.sampling import Sampling
from windtunnel.mlps import ExpertChoice, Experts
from windtunnel.runs import Run

BYTES = ByteTokenizer()
GREEDY = {"temperature": 0.0}


def opened(spec: Any, tokenizer: Tokenizer | None = BYTES, seed: int = 0) -> Run:
    """A run of weights that nobody trained, far enough from their initial values to have opinions."""
    return Run(disturbed(wt.build(spec, seed).double(), seed).eval(), tokenizer, spec, {})


def spec_of(recipe: str = "llama", vocab: int = 257, context: int = 64, **settings: Any) -> Any:
    return wt.recipes.get(recipe)(vocab=vocab, layers=2, width=32, context=context, **settings)


@pytest.fixture(scope="module")
def run() -> Run:
    return opened(spec_of())


@torch.no_grad()
def alone(run: Run, ids: list[int], count: int) -> list[int]:
    """The likeliest next token, again and again, each from a full pass."""
    text = list(ids)
    for _ in range(count):
        logits = run.model(torch.tensor([text])).logits
        text.append(int(logits[0, -1, : run.tokenizer.vocab if run.tokenizer else None].argmax()))
    return text[len(ids) :]


def test_a_prompt_begins_a_document_as_in_training(run: Run) -> None:
    expected = alone(run, [BYTES.end_of_text, *b"ab"], 12)
    assert BYTES.end_of_text not in expected
    assert wt.generate(run, "ab", tokens=12, temperature=0.0) == BYTES.decode(expected)
    assert ids_of(BYTES, "é") == (256, 0xC3, 0xA9)
    assert wt.generate(run, "", tokens=3, temperature=0.0) == BYTES.decode(alone(run, [256], 3))


def test_ids_are_answered_with_ids_as_they_stand(run: Run) -> None:
    assert wt.generate(run, [1, 2, 3], tokens=8, temperature=0.0) == alone(run, [1, 2, 3], 8)
    nameless = opened(spec_of(vocab=31), tokenizer=None)
    asked = [[1, 2, 3], [4]]
    assert wt.generate(nameless, asked, tokens=8, temperature=0.0) == [alone(nameless, ids, 8) for ids in asked]
    with pytest.raises(InputError, match="no tokenizer; give token ids"):
        wt.generate(nameless, "ab")
    with pytest.raises(InputError, match="no text to stop at"):
        wt.generate(nameless, [1], stop=("x",))


@pytest.mark.parametrize("draft", [None, "lookup"])
def test_texts_of_a_list_are_what_they_are_alone(run: Run, draft: Any) -> None:
    """More prompts than are decoded side by side, so that some join later."""
    prompts = [f"{'ab' * (k % 5)}{k}" for k in range(19)]
    together = wt.generate(run, prompts, tokens=10, seed=3, top_p=0.9, draft=draft)
    assert together == [wt.generate(run, each, tokens=10, seed=3, top_p=0.9, draft=draft) for each in prompts]
    assert len(set(together)) > 10


def test_the_seed_decides(run: Run) -> None:
    texts = [wt.generate(run, "ab", tokens=20, seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("drafter", ["lru", "llama", "lookup"])
def test_a_draft_changes_nothing(run: Run, drafter: str) -> None:
    draft: Any = "lookup" if drafter == "lookup" else opened(spec_of(drafter), seed=1)
    expected = wt.generate(run, "abab", tokens=30, temperature=0.0)
    assert wt.generate(run, "abab", tokens=30, temperature=0.0, draft=draft) == expected


def test_experts_that_chose_tokens_in_training_draft_and_verify_exactly() -> None:
    """In evaluation tokens choose, so that a token's experts do not depend on what else a pass holds."""
    spec = spec_of()
    mlp = Experts(experts=4, hidden=16, router=ExpertChoice(acausal=True))
    chosen = opened(spec.replace(blocks=tuple(block.replace(mlp=mlp) for block in spec.blocks)))
    expected = BYTES.decode(alone(chosen, [256, *b"abab"], 30))
    for draft in ("lookup", chosen):
        assert wt.generate(chosen, "abab", tokens=30, temperature=0.0, draft=draft) == expected


def test_drafts_of_other_tokens_are_refused(run: Run) -> None:
    other = opened(spec_of(), CharacterTokenizer("".join(chr(256 + k) for k in range(256))))
    with pytest.raises(InputError, match=r"draft: has the tokenizer characters-257 .*bytes-257 .*one tokenizer"):
        wt.generate(run, "ab", draft=other)
    with pytest.raises(InputError, match="draft: has the tokenizer none"):
        wt.generate(run, "ab", draft=opened(spec_of(), tokenizer=None))
    with pytest.raises(InputError, match="draft: expected another run"):
        wt.generate(run, "ab", draft=Path("runs/small"))  # type: ignore[arg-type]


def test_a_full_context_stops_or_slides(run: Run) -> None:
    stopped = wt.generate(run, [5] * 40, tokens=60, temperature=0.0)
    assert len(stopped) == 64 - 40 + 1
    slid = wt.generate(run, [5] * 40, tokens=60, temperature=0.0, at_limit="slide")
    assert len(slid) == 60
    assert slid[:25] == stopped
    with pytest.raises(InputError, match="64 tokens leave no room in a context of 64"):
        wt.generate(run, [5] * 64)
    with pytest.raises(InputError, match="expected stop or slide, got 'roll'"):
        wt.generate(run, "a", at_limit="roll")  # type: ignore[arg-type]


def test_stop_strings_are_left_out(run: Run) -> None:
    text = wt.generate(run, "ab", tokens=40, seed=1)
    stop = text[7:9]
    assert wt.generate(run, "ab", tokens=40, seed=1, stop=(stop, "never there")) == text[: text.index(stop)]
    assert wt.generate(run, "ab", tokens=40, seed=1, stop=stop) == text[: text.index(stop)]


def test_what_makes_no_sense_is_refused(run: Run) -> None:
    with pytest.raises(InputError, match="temperature 0 takes the likeliest token; top_k"):
        wt.generate(run, "ab", temperature=0.0, top_k=3)
    with pytest.raises(InputError, match="list is empty"):
        wt.generate(run, [])
    with pytest.raises(InputError, match="token 257 is not in the vocabulary"):
        wt.generate(run, [257])


def test_a_damaged_model_says_so() -> None:
    broken = opened(spec_of())
    with torch.no_grad():
        broken.model.embedding.weight[BYTES.end_of_text] = torch.nan
    with pytest.raises(WorkError, match="not numbers"):
        wt.generate(broken, "ab")


def test_pieces_and_figures(run: Run) -> None:
    requests = [Request(prompt=ids_of(BYTES, text), sampling=Sampling(temperature=0.0), tokens=9) for text in "ab"]
    generation = Generation(run, requests, draft=run)
    engine = generation._engine
    assert engine.drafter is not None
    engine.pace, engine.drafter.cost = None, 0.6  # the clock has no say, and one draft at a time pays
    pieces = list(generation)
    for place, text in enumerate("ab"):
        assert "".join(p.text for p in pieces if p.request == place) == wt.generate(run, text, 9, **GREEDY)
    figures = generation.figures
    assert (figures.prompt_tokens, figures.new_tokens) == (4, 18)
    assert figures.acceptance == 1.0
    assert figures.tokens_per_pass == 9 / (1 + 4)  # one from the prompt, then the one that may be drafted each time
    assert 0 < figures.first_seconds <= figures.seconds
    assert figures.tokens_per_second == 18 / figures.seconds
    # Keys and values of 2 layers for 2 rows of 11 tokens in float64, and where each slot's token stands.
    assert figures.state_bytes == 2 * 2 * 11 * (2 * 32 * 8 + 8)
    assert Generation(run, requests, cache_dtype="bfloat16").figures.state_bytes == 2 * 2 * 11 * (2 * 32 * 2 + 8)
    assert len(wt.generate(run, "ab", 9, **GREEDY, cache_dtype="float16")) > 0


def test_cancelling_gives_back_what_was_held(run: Run) -> None:
    prompt = ids_of(BYTES, "ab")
    generation = Generation(run, [Request(prompt=prompt, tokens=40, sampling=Sampling(seed=1))])
    seen = ""
    for count, piece in enumerate(generation):
        seen += piece.text
        if count == 9:
            (last,) = generation.cancel()
    assert last.finish == "cancelled"
    assert seen + last.text == wt.generate(run, "ab", tokens=10, seed=1)
    assert generation.figures.new_tokens == 10
