"""Evidence in the JSON of benchmarks: times over a baseline's, replays of spikes."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from windtunnel.bench.spread import paired_ratio
from windtunnel.claims.claim import Evidence
from windtunnel.claims.filed import Filed
from windtunnel.claims.studies import Reader
from windtunnel.report.figures import counted, fixed
from windtunnel.statistics import Interval, wilson_interval


def step_time(label: str, invert: bool = False) -> Reader:
    """Time of a training step over llama's at equal parameters; inverted it is throughput (`bench steps`)."""

    def read(filed: Filed) -> Iterator[Evidence]:
        for shape in filed.content.get("shapes", ()):
            for one in shape["contestants"]:
                if one["label"] == label:
                    yield _ratio(one["ratio"], _steps_setting(filed, shape, label), invert)

    return read


def parallel_speed(filed: Filed) -> Iterator[Evidence]:
    """Steps a second of PaLM's parallel block over those of its serial form (`bench steps`)."""
    for shape in filed.content.get("shapes", ()):
        yield _ratio(shape["parallel_over_serial"], _steps_setting(filed, shape, "palm"), invert=True)


def doubled(benchmark: str, whole: str, half: str) -> Reader:
    """Time of a contestant at a length over that of the same one at half of it, in the same rounds.

    whole, half: how the labels of the two end.
    """

    def read(filed: Filed) -> Iterator[Evidence]:
        if filed.benchmark != benchmark:
            return
        seconds = {one["label"]: one["seconds"] for one in filed.content["contestants"]}
        long = next(taken for label, taken in seconds.items() if label.endswith(whole))
        short = next(taken for label, taken in seconds.items() if label.endswith(half))
        yield _evidence(Interval(*paired_ratio(long, short)), _race_setting(filed))

    return read


def far_token(label: str) -> Reader:
    """Time of a token far into a text over one near its beginning (`bench generate`, `bench decode`)."""

    def read(filed: Filed) -> Iterator[Evidence]:
        content = filed.content
        found = {"generate": content.get("sections", {}).get("positions", ()), "decode": content.get("positions", ())}
        for one in found.get(filed.benchmark, ()):
            if one["label"] == label:
                near, far = content["settings"]["positions"]
                shape = content["settings"].get("shape")
                size = f"{shape['layers']} x {shape['width']}, " if shape else ""
                yield _ratio(one["ratio"], f"{size}{counted(far)} over {counted(near)} tokens, {_machine(filed)}")

    return read


def token_latency(label: str, baseline: str, least: int) -> Reader:
    """Time between tokens over the baseline's after the longest prompt, if it has `least` tokens (`bench decode`)."""

    def read(filed: Filed) -> Iterator[Evidence]:
        if filed.benchmark != "decode" or filed.content["arms"][0]["label"] != baseline:
            return
        longest = max(cell["prompt"] for cell in filed.content["cells"])
        for cell in filed.content["cells"]:
            for one in cell["arms"]:
                if one["label"] == label and cell["prompt"] == longest >= least:
                    where = f"prompt of {counted(longest)} tokens, {cell['batch']} together, {_machine(filed)}"
                    yield _ratio(one["over_baseline"], where)

    return read


def replays(filed: Filed) -> Iterator[Evidence]:
    """Share of other states that spike on the data of a spike, Wilson's interval (`bench spikes`)."""
    if "replays" not in filed.content or "onsets" not in filed.content:
        return
    spiked = [one["spiked"] for one in filed.content["replays"] if one["state"] != "the same state"]
    models, steps = filed.content["models"], filed.content["steps"]
    setting = f"{models} models of 2 layers x 48, {steps} steps of plain SGD"
    if not spiked:
        doubts = ("no other state read the data of a spike",)
        yield Evidence(value=None, low=0.0, high=1.0, shown="no replay", setting=setting, doubts=doubts)
        return
    share = wilson_interval(sum(spiked), len(spiked))
    yield _evidence(share, setting, f"{sum(spiked)} of {len(spiked)}, {_spelled(share)}")


def utilisation(name: str) -> Reader:
    """A utilisation in percent that the planner computes from a paper's printed inputs (`plan --published`)."""

    def read(filed: Filed) -> Iterator[Evidence]:
        for case in filed.content.get("cases", ()):
            if case["name"] == name:
                value = case["computed"]
                setting = f"computed from the paper's printed inputs ({case['note']}), not measured"
                yield Evidence(value=value, low=value, high=value, shown=f"{value:.1f} %", setting=setting)

    return read


def self_test(name: str) -> Reader:
    """The largest of the differences that a self-test measured (`selftest`)."""

    def read(filed: Filed) -> Iterator[Evidence]:
        if "selftest" in filed.content and name in filed.content["checks"]:
            differences = filed.content["checks"][name]["figures"]["differences"]
            value = max(differences.values())
            setting = f"{len(differences)} cases in float64"
            yield Evidence(value=value, low=0.0, high=value, shown=f"{value:.1e}", setting=setting)

    return read


def _ratio(ratio: Mapping[str, Any], setting: str, invert: bool = False) -> Evidence:
    low, high = ratio["low"], ratio["high"]
    found = Interval(ratio["value"], 0.0 if low is None else low, math.inf if high is None else high)
    if invert:
        found = Interval(1 / found.value, 1 / found.high, 1 / found.low if found.low else math.inf)
    return _evidence(found, setting)


def _evidence(found: Interval, setting: str, shown: str | None = None) -> Evidence:
    return Evidence(value=found.value, low=found.low, high=found.high, shown=shown or _spelled(found), setting=setting)


def _spelled(found: Interval) -> str:
    return f"{fixed(found.value)} [{fixed(found.low)}, {fixed(found.high)}]"


def _steps_setting(filed: Filed, race: Mapping[str, Any], label: str) -> str:
    shape = race["shape"]
    sizes = f"{shape['layers']} x {shape['width']}, {counted(race['body_parameters'][label])} body parameters"
    return f"{sizes}, context {shape['context']}, float32, CPU, {_threads(filed.content['threads'])}"


def _race_setting(filed: Filed) -> str:
    settings = filed.content["settings"]
    sizes = ", ".join(f"{name.replace('_', ' ')} {size}" for name, size in settings["shape"].items())
    return f"{sizes}, forward and backward, CPU, {_threads(settings['threads'])}"


def _machine(filed: Filed) -> str:
    return f"{filed.content['hardware']}, {_threads(filed.content['settings']['threads'])}"


def _threads(number: int) -> str:
    return "1 thread" if number == 1 else f"{number} threads"
