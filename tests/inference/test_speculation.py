"""Speculative decoding changes the speed and nothing else: the same greedy text, the same distribution."""

import itertools
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import windtunnel as wt
from tests.inference.test_engine import GREEDY, SERVED, alone, prompts, served
from tests.recipes.cases import disturbed, model_of
from windtunnel.errors import InputError
from windtunnel.inference.drafts import Draft, PromptLookup, Wanted
from windtunnel.inference.engine import Engine, EngineSettings
from windtunnel.inference.pace import Pace, best_length, step_share
from windtunnel.inference.request import Request
from windtunnel.inference.sampling import Sampling

SETTINGS = EngineSettings(slots=3, chunk=6, draft_tokens=4)


def free_drafts(engine: Engine) -> Engine:
    """Drafts as long as are allowed, even from a model that costs as much as the target."""
    assert engine.drafter is not None
    engine.drafter.cost = 0.0
    engine.pace = None
    return engine


class Oracle:
    """Drafts the text that is to come, with every third token of it wrong."""

    cost = 0.0

    def __init__(self, texts: list[list[int]], vocab: int) -> None:
        self.texts, self.vocab = texts, vocab

    def propose(self, wanted: Sequence[Wanted]) -> list[Draft]:
        return [self._draft(list(each.text), each.length) for each in wanted]

    def _draft(self, text: list[int], length: int) -> Draft:
        (whole,) = (each for each in self.texts if each[: len(text)] == text)
        end = len(text) + length
        tokens = [(token + (place % 3 == 0)) % self.vocab for place, token in enumerate(whole[:end])][len(text) :]
        return Draft(tokens, torch.eye(self.vocab, dtype=torch.float64)[tokens])

    def clear(self, row: int) -> None:
        """Rows are told by their texts."""

    def move(self, source: int, target: int) -> None:
        """Rows are told by their texts."""


@pytest.mark.parametrize("case", SERVED)
def test_greedy_text_is_the_targets_own(case: str) -> None:
    """Drafts that are right and wrong in turn, so that every kind of state is rewound, in batches of three."""
    model = model_of(case, dtype=torch.float64)
    vocab = model.spec.vocab
    asked = [Request(prompt=prompt, sampling=GREEDY, tokens=10) for prompt in distinct(prompts(vocab))]
    expected = [alone(model, request.prompt, 10) for request in asked]
    engine = Engine(model, settings=SETTINGS)
    engine.drafter = Oracle([[*request.prompt, *text] for request, text in zip(asked, expected, strict=True)], vocab)
    assert [[piece.token for piece in pieces] for pieces in served(engine, asked)] == expected
    assert engine.drafted > engine.kept > 0


def distinct(texts: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Only texts that no other one begins with."""
    return [text for text in texts if not any(other != text and other[: len(text)] == text for other in texts)]


@pytest.mark.parametrize(("target", "draft"), [("llama", "lru"), ("mamba", "llama"), ("gpt3", "diff_transformer")])
def test_any_architecture_drafts_for_any_other(target: str, draft: str) -> None:
    model, other = model_of(target, dtype=torch.float64), model_of(draft, dtype=torch.float64)
    engine = free_drafts(Engine(model, settings=SETTINGS, draft=other))
    asked = [Request(prompt=prompt, sampling=GREEDY, tokens=12) for prompt in prompts(97)]
    for pieces, request in zip(served(engine, asked), asked, strict=True):
        assert [piece.token for piece in pieces] == alone(model, request.prompt, 12)


def test_a_drafter_of_shorter_reach_than_its_target() -> None:
    model, other = model_of("mamba", dtype=torch.float64), model_of("llama", dtype=torch.float64, context=12)
    engine = free_drafts(Engine(model, settings=SETTINGS, draft=other))
    (pieces,) = served(engine, [Request(prompt=(1, 2, 3), sampling=GREEDY, tokens=60)])
    assert [piece.token for piece in pieces] == alone(model, (1, 2, 3), 60)


@pytest.mark.parametrize("case", ["llama", "gpt3", "gpt3-dense", "griffin"])
@pytest.mark.parametrize("drafter", ["oracle", "model"])
def test_a_row_at_its_limit_beside_one_with_a_long_draft(case: str, drafter: str) -> None:
    """What fills up the shorter row has no place in its context, nor in a table of positions."""
    model = model_of(case, dtype=torch.float64, context=24)
    asked = [Request(prompt=text, sampling=GREEDY, tokens=count) for text, count in (((1, 2) * 8, 8), ((3,) * 5, 18))]
    expected = [alone(model, request.prompt, request.tokens) for request in asked]
    draft = None if drafter == "oracle" else model_of("llama", dtype=torch.float64, context=12)
    engine = Engine(model, settings=SETTINGS.replace(context=24), draft=draft)
    if drafter == "oracle":
        engine.drafter = Oracle([[*r.prompt, *text] for r, text in zip(asked, expected, strict=True)], 97)
    assert [[piece.token for piece in pieces] for pieces in served(free_drafts(engine), asked)] == expected


@pytest.mark.parametrize("case", ["llama", "mamba"])
def test_a_model_that_drafts_for_itself_is_always_kept(case: str) -> None:
    model = model_of(case, dtype=torch.float64)
    engine = free_drafts(Engine(model, settings=SETTINGS, draft=model))
    served(engine, [Request(prompt=(1, 2, 3), sampling=GREEDY, tokens=20)])
    assert engine.drafted == engine.kept > 10


def test_copied_drafts() -> None:
    model = model_of("llama", dtype=torch.float64)
    engine = Engine(model, settings=SETTINGS, draft="lookup")
    asked = [Request(prompt=prompt, sampling=GREEDY, tokens=30) for prompt in prompts(97)]
    for pieces, request in zip(served(engine, asked), asked, strict=True):
        assert [piece.token for piece in pieces] == alone(model, request.prompt, 30)
    lookup = PromptLookup(vocab=9)
    assert lookup._copied([1, 2, 3, 4, 1, 2, 3], 3) == [4, 1, 2]
    assert lookup._copied([5, 6, 5, 7, 5], 2) == [7, 5]  # the latest place
    assert lookup._copied([1, 2, 3], 2) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 256, 65_536, 1 << 24]), max_size=30), st.integers(1, 5))
def test_copies_are_of_the_longest_end_that_stood_before(text: list[int], count: int) -> None:
    """Token by token; the tokens are such that their bytes match in between."""
    expected: list[int] = []
    for size in range(min(8, len(text) - 1), 0, -1):
        places = [start for start in range(len(text) - size) if text[start : start + size] == text[-size:]]
        if places:
            expected = text[places[-1] + size : places[-1] + size + count]
            break
    assert PromptLookup(vocab=1 << 25)._copied(text, count) == expected


@pytest.mark.parametrize("kind", ["model", "lookup"])
def test_three_tokens_follow_the_targets_joint_law(kind: str) -> None:
    """27 texts of three tokens at temperature 0.8; those that expect fewer than 5 pooled."""
    sizes = {"vocab": 3, "layers": 1, "width": 16, "context": 16}
    target, draft = (disturbed(wt.build(wt.recipes.get("llama")(**sizes), seed).double(), seed) for seed in (0, 1))
    with torch.no_grad():
        for model in (target, draft):
            model.head.weight.mul_(2.0)
    prompt, sampling, trials = (0, 1, 2, 0, 1), Sampling(temperature=0.8), 1500
    engine = Engine(
        target,
        settings=EngineSettings(slots=64, chunk=8, queue=trials, draft_tokens=2),
        draft=draft if kind == "model" else "lookup",
    )
    asked = [Request(prompt=prompt, sampling=sampling.replace(seed=seed), tokens=3) for seed in range(trials)]
    counts: dict[tuple[int | None, ...], int] = {}
    for pieces in served(engine, asked):
        text = tuple(piece.token for piece in pieces)
        counts[text] = counts.get(text, 0) + 1
    assert 0 < engine.kept < engine.drafted
    expected = {}
    for text in itertools.product(range(3), repeat=3):
        with torch.no_grad():
            logits = target(torch.tensor([[*prompt, *text]])).logits[0, len(prompt) - 1 : -1]
        expected[text] = trials * float((logits / 0.8).softmax(-1).gather(1, torch.tensor(text)[:, None]).prod())
    large = [text for text, number in expected.items() if number >= 5]
    rest = sum(number for text, number in counts.items() if text not in large)
    observed, wanted = [counts.get(text, 0) for text in large], [expected[text] for text in large]
    if len(large) < len(expected):
        observed, wanted = [*observed, rest], [*wanted, trials - sum(wanted)]
    assert stats.chisquare(observed, wanted).pvalue > 1e-3


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(seed=3, top_p=0.9)])
def test_a_draft_without_numbers_is_no_draft(sampling: Sampling) -> None:
    """A damaged drafter costs its own row's drafts: the texts are those without it, and it is said once."""
    model, other = model_of("llama", dtype=torch.float64), model_of("llama", dtype=torch.float64)
    with torch.no_grad():
        other.embedding.weight[7] = torch.nan
    said: list[str] = []
    asked = [Request(prompt=prompt, sampling=sampling, tokens=12) for prompt in ((7, 1), (7, 2, 3))]
    engine = Engine(model, settings=SETTINGS, draft=other, say=said.append)
    plain = served(Engine(model, settings=SETTINGS), asked)
    for drafted, alone_ in zip(served(free_drafts(engine), asked), plain, strict=True):
        assert [piece.token for piece in drafted] == [piece.token for piece in alone_]
    assert engine.drafted == 0
    assert ["not numbers" in words for words in said] == [True]
    served(engine, [Request(prompt=(1, 2), sampling=sampling, tokens=12)])
    assert engine.kept > 0


def test_the_length_that_pays() -> None:
    """Leviathan's optimum, table of section 3.4: 0.8 and 0.1 give 6; where a draft costs more than it wins, none."""
    assert best_length(0.8, 0.1, 20) == 6
    assert best_length(0.8, 0.05, 20) == 8
    assert best_length(0.6, 0.1, 20) == 3
    assert best_length(0.05, 0.5, 20) == 0


def pace_of(drafting: float, single: float, more: float) -> Pace:
    """Times as a clock without noise would give them."""
    pace = Pace()
    pace.drafted(1, drafting)
    for width in range(1, 10):
        pace.passed(width, single + more * (width - 1))
    return pace


def test_measured_times_decide_the_length() -> None:
    """With passes that cost the same whatever they read: Leviathan's table again. Dear drafts end in single tokens."""
    for rate, cost, longest, best in ((0.8, 0.1, 20, 6), (0.6, 0.1, 20, 3), (0.8, 0.05, 5, 5), (0.4, 0.9, 8, 0)):
        pace = pace_of(0.002 * cost, 0.002, 0.0)
        assert pace.length(rate, 0.0, longest, 10) == best
    assert pace_of(0.0, 0.002, 0.0018).length(0.5, 0.0, 8, 10) == 0  # where every token verified costs a pass
    assert [pace_of(1.0, 0.002, 0.0).length(0.9, 0.0, 8, place) for place in (31, 32, 33, 34, 35)] == [0, 1, 1, 1, 0]
    assert pace_of(0.0, 0.002, 0.0).length(0.9, 0.0, 8, 16) == 0  # a single token, so that its time stays known
    fresh = Pace()
    assert fresh.length(0.9, 0.1, 8, 40) == 0
    fresh.passed(1, 0.002)
    assert fresh.length(0.8, 0.05, 20, 40) == best_length(0.8, 0.05 + 0.05, 20)


def test_small_drafts_cost_more_than_their_share_of_the_weights() -> None:
    sizes = {"vocab": 97, "context": 32}
    large = wt.build(wt.recipes.get("llama")(layers=4, width=64, **sizes))
    small = wt.build(wt.recipes.get("llama")(layers=2, width=16, **sizes))
    parameters = [sum(weight.numel() for weight in model.parameters()) for model in (small, large)]
    assert parameters[0] / parameters[1] < 0.1
    assert 0.5 < step_share(small, large, compiled=False) < 1
    wide = torch.nn.Module()
    wide.blocks = torch.nn.ModuleList([torch.nn.Linear(3000, 3000) for _ in range(4)])
    narrow = torch.nn.Module()
    narrow.blocks = torch.nn.ModuleList([torch.nn.Linear(900, 900) for _ in range(4)])
    assert step_share(narrow, wide, compiled=True) < 0.2  # where weights are most of the time


class Times:
    """A clock that shows drafts as dear or as cheap as is wanted."""

    def __init__(self, steps: Sequence[float]) -> None:
        self.now, self.steps = 0.0, itertools.cycle(steps)

    def __call__(self) -> float:
        self.now += next(self.steps)
        return self.now


DEAR, CHEAP = (0.0, 1.0, 0.01), (0.0, 1e-6, 0.01)  # seconds before a step, of its drafts, of its pass


def test_drafts_that_do_not_pay_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = (model_of(name, dtype=torch.float64, context=200) for name in ("llama", "lru"))
    asked = [Request(prompt=(1, 2, 3), sampling=GREEDY, tokens=70)]
    plain = served(Engine(model, settings=SETTINGS), asked)
    counts = {}
    for name, steps in (("dear", DEAR), ("cheap", CHEAP)):
        monkeypatch.setattr("windtunnel.inference.engine.perf_counter", Times(steps))
        engine = Engine(model, settings=SETTINGS, draft=other)
        assert served(engine, asked) == plain
        counts[name] = engine.drafted
    assert 0 < counts["dear"] <= 3 * 3 + 4 < counts["cheap"]


@pytest.mark.parametrize("cost", [0.0, 5.0])
def test_drawn_text_does_not_depend_on_the_clock(cost: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = (model_of(name, dtype=torch.float64, context=200) for name in ("llama", "lru"))
    asked = [Request(prompt=(1, 2, 3), sampling=Sampling(seed=seed), tokens=40) for seed in range(2)]
    found = []
    for steps in (DEAR, CHEAP):
        monkeypatch.setattr("windtunnel.inference.engine.perf_counter", Times(steps))
        engine = Engine(model, settings=SETTINGS, draft=other)
        assert engine.drafter is not None
        engine.drafter.cost = cost
        found.append([[piece.token for piece in pieces] for pieces in served(engine, asked)])
        assert engine.drafted > 0
    assert found[0] == found[1]


def test_vocabularies_must_agree() -> None:
    other = wt.build(wt.recipes.get("llama")(vocab=31, layers=1, width=32, context=32))
    with pytest.raises(InputError, match=r"vocabulary of 31.*97"):
        Engine(model_of("llama"), draft=other)
