"""Decoding: time to the first token, time between tokens, throughput, state, all beside the time of moving the bytes.

Contestants take turns in every cell of prompt length by batch, a copy of two long vectors among them: its bandwidth, in
the same round, gives the floor (weights and states read once a step) and the share of the bandwidth that is used (MBU).
Nothing is timed before decoding step by step has given the logits of the full pass.
"""

import dataclasses
import math
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from windtunnel import ledger
from windtunnel.bench.decode_plan import Plan
from windtunnel.bench.decode_uses import lookup, positions, serving
from windtunnel.bench.decoder import Decoder, Generation, corpus_tokens
from windtunnel.bench.spread import mean_of, paired_ratio
from windtunnel.bench.turns import Say, take_turns
from windtunnel.errors import InputError
from windtunnel.execution import Execution, hardware_name
from windtunnel.inference import states
from windtunnel.kernels import tune_allocator
from windtunnel.root import Model

BUDGET = 2 << 30  # bytes of state, for the number of sequences that fit
_COPIED = 8 << 20  # numbers
_GATE_STEPS = 16
_COPY = "a copy"  # no label holds a space


def run(specs: Mapping[str, Model], plan: Plan, say: Say = lambda words: None) -> dict[str, Any]:
    """Everything, as JSON values. The first of `specs` is the baseline that the others are compared with.

    Raises `InputError` where a table of positions is too short, `WorkError` where decoding is not the full pass.
    """
    tune_allocator()
    before = torch.get_num_threads()
    torch.set_num_threads(plan.threads)
    try:
        return _run(
            [
                Decoder.of(label, spec, plan.chunk, plan.compiled, say, plan.cache_dtype)
                for label, spec in specs.items()
            ],
            plan,
            say,
        )
    finally:
        torch.set_num_threads(before)


def _run(arms: list[Decoder], plan: Plan, say: Say) -> dict[str, Any]:
    for arm in arms:
        if arm.table is not None and arm.table < plan.longest:
            raise InputError(
                f"prompts: {plan.prompts[-1]} and {plan.tokens} new tokens are {plan.longest}, and {arm.label} has a "
                f"table of {arm.table} positions; set context={plan.longest}"
            )
    described = [_described(arm, plan, say) for arm in arms]
    cells = [_cell(arms, plan, prompt, rows, say) for prompt in plan.prompts for rows in plan.batches]
    return {
        "benchmark": "decode",
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "hardware": hardware_name(Execution(device="cpu").resolve().device),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "settings": dataclasses.asdict(plan),
        "arms": described,
        "cells": cells,
        "states": [_state(arm, plan, length) for arm in arms for length in plan.prompts],
        "crossovers": [found for rows in plan.batches for found in _crossovers(arms, cells, rows)],
        "positions": positions(arms, plan, say),
        "serving": serving(arms, plan, say),
        "lookup": lookup(arms, plan, say),
    }


def _described(arm: Decoder, plan: Plan, say: Say) -> dict[str, Any]:
    length = arm.gate_length(plan.longest)
    say(f"{arm.label}: decoding against the full pass, {length:,} tokens")
    return {
        "label": arm.label,
        "fingerprint": arm.model.spec.fingerprint(),
        "parameters": sum(parameter.numel() for parameter in arm.model.parameters()),
        "fixed": arm.fixed,
        "state_bytes": {str(at): arm.state_bytes(at) for at in _lengths(plan)},
        "operations": arm.operations(),
        "checked_tokens": length,
        "error": arm.error(length, min(_GATE_STEPS, length // 2)),
    }


def _lengths(plan: Plan) -> list[int]:
    """Doublings from 64 tokens to what is measured at most, and the prompts themselves."""
    farthest = max((plan.longest, *plan.positions))
    return sorted({*plan.prompts, *(64 << k for k in range(64) if 64 << k <= farthest)})


def _cell(arms: list[Decoder], plan: Plan, prompt: int, rows: int, say: Say) -> dict[str, Any]:
    say(f"prompts of {prompt:,}, {rows} together")
    held = {arm.label: arm.reserve(rows, prompt + plan.tokens) for arm in arms}
    found: dict[str, list[Generation]] = {arm.label: [] for arm in arms}
    speeds: list[float] = []

    def turn(arm: Decoder) -> dict[str, Callable[[], object]]:
        text = corpus_tokens(arm.model.spec.vocab, rows * prompt)
        prompts = [text[row * prompt : (row + 1) * prompt] for row in range(rows)]
        return {
            arm.label: lambda: found[arm.label].append(arm.generate(held[arm.label], prompts, plan.tokens)),
            f"{arm.label} whole": lambda: arm.whole(prompts),
        }

    turns: dict[str, Callable[[], object]] = {_COPY: _copier(speeds)}
    for arm in arms:
        turns |= turn(arm)
    seconds = take_turns(turns, plan.rounds)
    baseline = _medians(found[arms[0].label][1:])
    return {
        "prompt": prompt,
        "batch": rows,
        "bandwidth": mean_of(speeds[1:]),
        "arms": [
            {"label": arm.label, "allocated": states.state_bytes(held[arm.label].state) // rows}
            | figures(found[arm.label][1:], _step_bytes(arm, prompt + plan.tokens // 2, rows), speeds[1:], rows, prompt)
            | {
                "over_baseline": paired_ratio(_medians(found[arm.label][1:]), baseline)._asdict(),
                "whole": mean_of([rows * prompt / each for each in seconds[f"{arm.label} whole"]]),
                "over_whole": paired_ratio(
                    [one.first for one in found[arm.label][1:]], seconds[f"{arm.label} whole"]
                )._asdict(),
            }
            for arm in arms
        ],
    }


def figures(
    found: Sequence[Generation], step_bytes: float, speeds: Sequence[float], rows: int, prompt: int
) -> dict[str, Any]:
    """The figures of one contestant in one cell. found, speeds (bytes a second): one entry a round.

    Means are geometric over rounds, with 95 % intervals; percentiles are of all times between tokens; `floor_seconds`
    is the time of `step_bytes` at the mean bandwidth, `bandwidth_use` that of each round over its median time.
    """
    between = [seconds for one in found for seconds in one.between]
    medians = _medians(found)
    floors = [step_bytes / speed for speed in speeds]
    return {
        "first": mean_of([one.first for one in found]),
        "prefill": mean_of([rows * prompt / one.first for one in found]),
        "between": {name: float(np.percentile(between, k)) for name, k in (("p50", 50), ("p90", 90), ("p99", 99))},
        "median": mean_of(medians),
        "medians": medians,
        "throughput": mean_of([rows * len(one.tokens[0]) / (one.first + sum(one.between)) for one in found]),
        "decoding": mean_of([rows / median for median in medians]),
        "step_bytes": step_bytes,
        "floor_seconds": step_bytes / mean_of(speeds)["value"],
        "bandwidth_use": paired_ratio(floors, medians)._asdict(),
    }


def _copier(speeds: list[float]) -> Callable[[], object]:
    """Bytes a second of a copy, both directions counted; the median of five."""
    source, target = torch.rand(_COPIED), torch.empty(_COPIED)

    def copy() -> None:
        taken = []
        for _ in range(5):
            began = time.perf_counter()
            target.copy_(source)
            taken.append(time.perf_counter() - began)
        speeds.append(2 * source.numel() * source.element_size() / statistics.median(taken))

    return copy


def _step_bytes(arm: Decoder, length: int, rows: int) -> float:
    return arm.weight_bytes(rows) + rows * arm.state_bytes(length)


def _medians(found: Sequence[Generation]) -> list[float]:
    return [statistics.median(one.between) for one in found]


def _state(arm: Decoder, plan: Plan, length: int) -> dict[str, Any]:
    read = arm.state_bytes(length)
    with torch.device("meta"):
        reserved = arm.model.spec.build().reserve(1, length + plan.tokens, plan.chunk, arm.cache)
    return {
        "label": arm.label,
        "prompt": length,
        "read": read,
        "allocated": states.state_bytes(reserved),
        "fit": BUDGET // read if read else None,
    }


def _crossovers(arms: list[Decoder], cells: list[dict[str, Any]], rows: int) -> list[dict[str, Any]]:
    """From which prompt on each variant's token takes less time than the baseline's, and by bytes alone."""
    line = [cell["arms"] for cell in cells if cell["batch"] == rows]
    prompts = [cell["prompt"] for cell in cells if cell["batch"] == rows]
    found = []
    for index, arm in enumerate(arms[1:], start=1):
        rounds = [
            [mine / base for mine, base in zip(each[index]["medians"], each[0]["medians"], strict=True)]
            for each in line
        ]
        found.append(
            {
                "label": arm.label,
                "batch": rows,
                "measured": crossing(prompts, [each[index]["over_baseline"]["value"] for each in line]),
                "rounds": [crossing(prompts, ratios) for ratios in zip(*rounds, strict=True)],
                "bytes": bytes_crossing(arms[0], arm, rows),
            }
        )
    return found


def crossing(prompts: Sequence[int], ratios: Sequence[float]) -> float | None:
    """The prompt from which a ratio is below 1, interpolated over log prompt and log ratio.

    The first prompt where it is so from there; None where it is not so at the last one.
    """
    at = len(ratios)
    while at and ratios[at - 1] < 1:
        at -= 1
    if at == len(ratios):
        return None
    if at == 0:
        return float(prompts[0])
    high, low = math.log(ratios[at - 1]), math.log(ratios[at])
    share = high / (high - low)
    return float(prompts[at - 1] * (prompts[at] / prompts[at - 1]) ** share)


def bytes_crossing(baseline: Decoder, arm: Decoder, rows: int) -> int | None:
    """The text from which a step of `arm` moves fewer bytes than one of the baseline; 1 where always, None if never."""

    def difference(length: int) -> float:
        return _step_bytes(arm, length, rows) - _step_bytes(baseline, length, rows)

    if difference(1) < 0:
        return 1
    found = ledger.crossover(lambda n: _step_bytes(arm, n, rows), lambda n: _step_bytes(baseline, n, rows))
    return found if found is not None and difference(2 * found) < 0 else None
