"""The figures of the decoding benchmark in tables, for terminals and pages alike."""

from typing import Any

from windtunnel.bench.spread import spelled
from windtunnel.report import Table, figures

SPREAD = "Geometric means over rounds with 95 % intervals."


def tables(result: dict[str, Any]) -> list[Table]:
    """Every table that has rows."""
    made = [times(result), prefill(result), speeds(result), held(result), crossovers(result)]
    made += [positions(result), serving(result), lookup(result)]
    return [table for table in made if table.rows]


def times(result: dict[str, Any]) -> Table:
    """Time to the first token and between tokens."""
    rows = [
        (
            *_where(cell, arm),
            spelled(arm["first"], _ms),
            spelled(arm["median"], _ms),
            *(_ms(arm["between"][name]) for name in ("p50", "p90", "p99")),
            spelled(arm["over_baseline"], figures.ratio) if arm["label"] != _baseline(result) else "",
        )
        for cell, arm in _cells(result)
    ]
    return Table(
        caption="Milliseconds to the first token, and between tokens",
        columns=("arm", "prompt", "batch", "first", "median", "p50", "p90", "p99", f"over {_baseline(result)}"),
        rows=rows,
        numeric=(1, 2, 4, 5, 6),
        note=f"{SPREAD} The median is each round's; percentiles are of all times between tokens.",
    )


def prefill(result: dict[str, Any]) -> Table:
    """Reading the prompt, and what keeping its state takes."""
    rows = [
        (
            *_where(cell, arm),
            spelled(arm["prefill"], figures.counted),
            spelled(arm["whole"], figures.counted),
            spelled(arm["over_whole"], figures.ratio),
        )
        for cell, arm in _cells(result)
    ]
    return Table(
        caption="Tokens of the prompt a second",
        columns=("arm", "prompt", "batch", "by chunks, state kept", "one pass without state", "time over that"),
        rows=rows,
        numeric=(1, 2),
        note=SPREAD,
    )


def speeds(result: dict[str, Any]) -> Table:
    """Throughput, and how near decoding comes to the time of its bytes."""
    rows = [
        (
            *_where(cell, arm),
            spelled(arm["throughput"], figures.counted),
            spelled(arm["decoding"], figures.counted),
            figures.byte_count(arm["step_bytes"]),
            _ms(arm["floor_seconds"]),
            spelled(arm["bandwidth_use"], _percent),
        )
        for cell, arm in _cells(result)
    ]
    return Table(
        caption="Tokens a second, and the time of moving the bytes",
        columns=("arm", "prompt", "batch", "with the prompt", "decoding alone", "a step reads", "floor ms", "MBU %"),
        rows=rows,
        numeric=(1, 2, 5, 6),
        note=f"{SPREAD} The floor is weights and states read once a step at the bandwidth of a copy in the same "
        "rounds; MBU is the floor over the median, and above 100 weights stay in the processor's caches.",
    )


def held(result: dict[str, Any]) -> Table:
    """State of one sequence."""
    rows = [
        (
            each["label"],
            figures.exact(each["prompt"]),
            figures.byte_count(each["read"]),
            figures.byte_count(each["allocated"]),
            figures.counted(each["fit"]),
        )
        for each in result["states"]
    ]
    return Table(
        caption="State of one sequence",
        columns=("arm", "prompt", "a step reads", "allocated", "sequences in 2 GiB"),
        rows=rows,
        numeric=(1, 2, 3, 4),
        note="Allocated is for the prompt, the new tokens and, in windows, one chunk of a prompt; 2 GiB counts what is "
        "read.",
    )


def crossovers(result: dict[str, Any]) -> Table:
    """From which prompt on a variant is the faster."""
    first, last = result["settings"]["prompts"][0], result["settings"]["prompts"][-1]
    rows = [
        (
            each["label"],
            str(each["batch"]),
            _prompt(each["measured"], first, last),
            _rounds(each["rounds"], first, last),
            "always" if each["bytes"] == 1 else "never" if each["bytes"] is None else figures.exact(each["bytes"]),
        )
        for each in result["crossovers"]
    ]
    return Table(
        caption=f"Prompt from which a token takes less time than {_baseline(result)}'s",
        columns=("arm", "batch", "measured", "in single rounds", "by bytes alone"),
        rows=rows,
        numeric=(1,),
        note="Interpolated between prompts, both axes logarithmic; single rounds say how sure that is. "
        "By bytes alone: where a step reads less.",
    )


def positions(result: dict[str, Any]) -> Table:
    """Far into a text against near its beginning."""
    near, far = (figures.exact(place) for place in result["settings"]["positions"] or (0, 0))
    rows = [
        (
            each["label"],
            "fixed" if each["fixed"] else "grows",
            spelled(each["near"], _ms),
            spelled(each["far"], _ms),
            spelled(each["ratio"], figures.ratio),
        )
        for each in result["positions"]
    ]
    return Table(
        caption=f"Milliseconds a token, {near} and {far} tokens into a text",
        columns=("arm", "state", f"at {near}", f"at {far}", "ratio"),
        rows=rows,
        note=SPREAD,
    )


def serving(result: dict[str, Any]) -> Table:
    """A running batch against one request after another."""
    rows = [
        (
            each["label"],
            spelled(each["together"], figures.counted),
            spelled(each["singly"], figures.counted),
            spelled(each["ratio"], figures.ratio),
            _percent(each["same"]),
        )
        for each in result["serving"]
    ]
    return Table(
        caption=f"{result['settings']['requests']} requests: tokens a second",
        columns=("arm", "together", "one after another", "speedup", "same texts %"),
        rows=rows,
        numeric=(4,),
        note=f"{SPREAD} Requests differ in prompt and length; those that end leave the batch.",
    )


def lookup(result: dict[str, Any]) -> Table:
    """Drafts by prompt lookup."""
    rows = [
        (
            each["label"],
            f"{each['kept']} of {each['drafted']}",
            figures.fixed(each["tokens_a_pass"], 2),
            spelled(each["ratio"], figures.ratio),
        )
        for each in result["lookup"]
    ]
    return Table(
        caption="Drafts by prompt lookup, on source code as bytes",
        columns=("arm", "drafts kept", "tokens a pass", "speedup"),
        rows=rows,
        numeric=(1, 2),
        note="The corpus decides what is kept, as if the model had learned to write it; passes and rewinding are real.",
    )


def _cells(result: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(cell, arm) for cell in result["cells"] for arm in cell["arms"]]


def _where(cell: dict[str, Any], arm: dict[str, Any]) -> tuple[str, str, str]:
    return arm["label"], figures.exact(cell["prompt"]), str(cell["batch"])


def _baseline(result: dict[str, Any]) -> str:
    return str(result["arms"][0]["label"])


def _prompt(value: float | None, first: int, last: int) -> str:
    if value is None:
        return f"none up to {figures.exact(last)}"
    return f"all from {figures.exact(first)}" if value == first else figures.exact(round(value))


def _rounds(values: list[float | None], first: int, last: int) -> str:
    """The lowest and highest of single rounds; a round without a crossing counts as beyond the last prompt."""
    known = sorted(value for value in values if value is not None)
    ends = (known[0] if known else None, None if len(known) < len(values) else known[-1])
    low, high = (_prompt(value, first, last) for value in ends)
    return low if low == high else f"{low} to {high}"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.0f}" if seconds >= 1 else f"{1e3 * seconds:.3g}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g}"
