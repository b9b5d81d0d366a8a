"""Decoding beyond the grid: far into a text, many requests in one running batch, and drafts by prompt lookup."""

import statistics
from collections.abc import Callable
from typing import Any

import torch

from windtunnel.bench.decode_plan import Plan
from windtunnel.bench.decoder import Decoder, Replay, corpus_tokens
from windtunnel.bench.spread import mean_of, paired_ratio
from windtunnel.bench.turns import Say, take_turns
from windtunnel.inference.engine import Engine, EngineSettings
from windtunnel.inference.request import Request


def positions(arms: list[Decoder], plan: Plan, say: Say) -> list[dict[str, Any]]:
    """Tokens far into a text against tokens near its beginning: models of fixed state, and the baseline."""
    if not plan.positions:
        return []
    chosen = [arm for index, arm in enumerate(arms) if arm.table is None and (arm.fixed or index == 0)]
    further = (plan.rounds + 1) * plan.tokens
    taken: dict[tuple[str, int], list[float]] = {(arm.label, place): [] for arm in chosen for place in plan.positions}
    turns: dict[str, Callable[[], object]] = {}

    def turn(arm: Decoder, place: int) -> Callable[[], object]:
        batch = arm.reserve(1, place + further)
        with torch.inference_mode():
            batch.read(0, corpus_tokens(arm.model.spec.vocab, place))
        return lambda: taken[arm.label, place].append(statistics.median(arm.steps(batch, plan.tokens)))

    for arm in chosen:
        for place in plan.positions:
            say(f"{arm.label}: a prompt of {place:,}, by chunks of {plan.chunk}")
            turns[f"{arm.label} {place}"] = turn(arm, place)
    if turns:
        take_turns(turns, plan.rounds)
    near, far = plan.positions
    return [
        {
            "label": arm.label,
            "fixed": arm.fixed,
            "near": mean_of(taken[arm.label, near][1:]),
            "far": mean_of(taken[arm.label, far][1:]),
            "ratio": paired_ratio(taken[arm.label, far][1:], taken[arm.label, near][1:])._asdict(),
        }
        for arm in chosen
    ]


def serving(arms: list[Decoder], plan: Plan, say: Say) -> list[dict[str, Any]]:
    """Requests of several lengths in a running batch against the same ones, one after another."""
    say(f"{plan.requests} requests together and one after another")
    turns: dict[str, Callable[[], object]] = {}
    texts: dict[str, list[list[int]]] = {}
    for arm in arms:
        for way, slots in (("together", plan.requests), ("singly", 1)):
            turns[f"{arm.label} {way}"] = _served(arm, plan, slots, texts, f"{arm.label} {way}")
    seconds = take_turns(turns, plan.rounds)
    found = []
    for arm in arms:
        together, singly = (f"{arm.label} {way}" for way in ("together", "singly"))
        tokens = sum(len(text) for text in texts[together])
        pairs = list(zip(texts[together], texts[singly], strict=True))
        found.append(
            {
                "label": arm.label,
                "together": mean_of([tokens / each for each in seconds[together]]),
                "singly": mean_of([tokens / each for each in seconds[singly]]),
                "ratio": paired_ratio(seconds[singly], seconds[together])._asdict(),
                "same": sum(one == other for one, other in pairs) / len(pairs),
            }
        )
    return found


def _served(arm: Decoder, plan: Plan, slots: int, texts: dict[str, list[list[int]]], name: str) -> Callable[[], object]:
    settings = EngineSettings(
        slots=slots,
        context=plan.longest,
        chunk=plan.chunk,
        queue=plan.requests,
        compiled=plan.compiled,
        cache_dtype=plan.cache_dtype,  # type: ignore[arg-type]
    )
    engine = Engine(arm.model, settings=settings, say=arm.say)
    text = corpus_tokens(arm.model.spec.vocab, plan.prompts[0] * plan.requests)

    def serve() -> None:
        numbers = []
        for k in range(plan.requests):
            length = max(1, plan.prompts[0] * (1 + k % 4) // 4)
            tokens = max(1, plan.tokens * (1 + k % 3) // 3)
            start = k * plan.prompts[0]
            numbers.append(engine.submit(Request(prompt=tuple(text[start : start + length]), tokens=tokens)))
        said: dict[int, list[int]] = {number: [] for number in numbers}
        while engine.busy:
            for piece in engine.step():
                if piece.token is not None:
                    said[piece.request].append(piece.token)
        texts[name] = list(said.values())

    return serve


def lookup(arms: list[Decoder], plan: Plan, say: Say) -> list[dict[str, Any]]:
    """The embedded corpus decoded again, with drafts by prompt lookup and without."""
    say("drafts by prompt lookup")
    start = plan.prompts[-1]
    length = start + 2 * plan.tokens
    found: dict[str, list[Replay]] = {}
    turns: dict[str, Callable[[], object]] = {}

    def turn(arm: Decoder, drafts: int) -> Callable[[], object]:
        batch, text = arm.reserve(1, length + drafts), corpus_tokens(arm.model.spec.vocab, length)
        mine = found.setdefault(f"{arm.label} {drafts}", [])
        return lambda: mine.append(arm.replay(batch, text, start, drafts))

    chosen = [arm for arm in arms if arm.table is None or arm.table >= length]
    for arm in chosen:
        for drafts in (0, plan.drafts):
            turns[f"{arm.label} {drafts}"] = turn(arm, drafts)
    if turns:
        take_turns(turns, plan.rounds)
    return [
        _replayed(arm.label, found[f"{arm.label} 0"][1:], found[f"{arm.label} {plan.drafts}"][1:]) for arm in chosen
    ]


def _replayed(label: str, without: list[Replay], drafting: list[Replay]) -> dict[str, Any]:
    one = drafting[0]  # the text decides, so every round has the same passes
    return {
        "label": label,
        "ratio": paired_ratio([each.seconds for each in without], [each.seconds for each in drafting])._asdict(),
        "tokens_a_pass": without[0].passes / one.passes,
        "drafted": one.drafted,
        "kept": one.kept,
    }
