"""The page of the decoding benchmark: one file that opens from disk."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from windtunnel.bench import decode_tables
from windtunnel.bench.spread import spelled
from windtunnel.report import (
    Axis,
    Chart,
    Details,
    Facts,
    Part,
    Row,
    RowChart,
    RowGroup,
    Section,
    Series,
    Tabs,
    colour,
    figures,
    marker,
    page,
)


def render(result: dict[str, Any]) -> str:
    """The page; the same result gives the same text."""
    sections = [
        _between(result),
        _throughput(result),
        _first(result),
        _state(result),
        _positions(result),
        _serving(result),
        _lookup(result),
        _method(result),
    ]
    labels = [arm["label"] for arm in result["arms"]]
    settings = result["settings"]
    return page(
        "Decoding",
        [section for section in sections if section is not None],
        kicker=f"windtunnel bench decode · {result['hardware']} · {result['created'][:10]}",
        summary=f"{', '.join(labels)}: {settings['rounds']} rounds in turns, {settings['tokens']} new tokens after "
        f"prompts of {figures.plain(settings['prompts'])}, on {_threads(settings['threads'])}. Baseline: {labels[0]}.",
        footer="Everything here can be recomputed from decode.json.",
    )


def _between(result: dict[str, Any]) -> Section:
    charts = [(f"Batch {rows}", _time_chart(result, rows)) for rows in result["settings"]["batches"]]
    table = decode_tables.times(result)
    return Section(
        key="between",
        title="Time between tokens",
        lead="Points are geometric means of the rounds' medians with 95 % intervals. Dashed: the time of "
        "reading weights and states once, at the bandwidth of a copy.",
        parts=[
            Tabs(title="Sequences together", tabs=charts),
            decode_tables.crossovers(result),
            Details(title=table.caption, parts=[table]),
        ],
    )


def _time_chart(result: dict[str, Any], rows: int) -> Chart:
    series = []
    for index, arm in enumerate(result["arms"]):
        line = _line(result, index, lambda cell: cell["batch"] == rows)
        prompts = [cell["prompt"] for cell, _ in line]
        floor = [1e3 * found["floor_seconds"] for _, found in line]
        series.append(_measured(arm["label"], index, prompts, [found["median"] for _, found in line], 1e3, _milli))
        series.append(Series(name=arm["label"], x=prompts, y=floor, colour=colour(index), line="dashed"))
    return Chart(
        key=f"between-{rows}",
        title=f"Milliseconds between tokens, {rows} together",
        description="Median time between tokens against prompt length, with the time of moving the bytes below",
        x=_prompt_axis(result),
        y=Axis(title="milliseconds (log scale)", log=True, form=_milli),
        series=series,
    )


def _throughput(result: dict[str, Any]) -> Section:
    charts = [(f"Prompt {figures.exact(prompt)}", _speed_chart(result, prompt)) for prompt in _prompts(result)]
    table = decode_tables.speeds(result)
    return Section(
        key="throughput",
        title="Throughput",
        lead="Tokens a second of all sequences together while decoding, the prompt's time left out.",
        parts=[Tabs(title="Tokens before", tabs=charts), Details(title=table.caption, parts=[table])],
    )


def _speed_chart(result: dict[str, Any], prompt: int) -> Chart:
    series = []
    for index, arm in enumerate(result["arms"]):
        line = _line(result, index, lambda cell: cell["prompt"] == prompt)
        batches = [cell["batch"] for cell, _ in line]
        found = [each["decoding"] for _, each in line]
        series.append(_measured(arm["label"], index, batches, found, 1.0, figures.counted))
    batches = result["settings"]["batches"]
    return Chart(
        key=f"throughput-{prompt}",
        title=f"Tokens a second after {figures.exact(prompt)} tokens",
        description="Throughput of decoding against the number of sequences",
        x=Axis(title="sequences together (log scale)", log=True, form=figures.exact, places=batches),
        y=Axis(title="tokens a second (log scale)", log=True, form=figures.counted),
        series=series,
    )


def _first(result: dict[str, Any]) -> Section:
    charts = [(f"Batch {rows}", _first_chart(result, rows)) for rows in result["settings"]["batches"]]
    table = decode_tables.prefill(result)
    return Section(
        key="first",
        title="Time to the first token",
        short="First token",
        lead=f"The prompt is read in chunks of {result['settings']['chunk']} tokens, its state kept.",
        parts=[Tabs(title="Sequences together", tabs=charts), Details(title=table.caption, parts=[table])],
    )


def _first_chart(result: dict[str, Any], rows: int) -> Chart:
    series = []
    for index, arm in enumerate(result["arms"]):
        line = _line(result, index, lambda cell: cell["batch"] == rows)
        prompts = [cell["prompt"] for cell, _ in line]
        series.append(_measured(arm["label"], index, prompts, [found["first"] for _, found in line], 1e3, _milli))
    return Chart(
        key=f"first-{rows}",
        title=f"Milliseconds to the first token, {rows} together",
        description="Time to the first token against prompt length",
        x=_prompt_axis(result),
        y=Axis(title="milliseconds (log scale)", log=True, form=_milli),
        series=series,
    )


def _state(result: dict[str, Any]) -> Section:
    series = [
        Series(
            name=arm["label"],
            x=[int(at) for at in arm["state_bytes"]],
            y=list(arm["state_bytes"].values()),
            colour=colour(index),
            marker=marker(index),
            line="solid",
            tips=[f"{arm['label']}, {at} tokens: {figures.byte_count(n)}" for at, n in arm["state_bytes"].items()],
        )
        for index, arm in enumerate(result["arms"])
        if all(arm["state_bytes"].values())
    ]
    chart = Chart(
        key="state-bytes",
        title="State of one sequence",
        description="Bytes of decoding state that a step reads against tokens seen",
        x=Axis(title="tokens seen (log scale)", log=True, form=figures.exact, base=2),
        y=Axis(title="bytes that a step reads (log scale)", log=True, form=figures.byte_count, base=2),
        series=series,
    )
    return Section(
        key="state",
        title="State",
        lead="Counted from the specs. Small states leave room for more sequences at once.",
        parts=[*([chart] if series else []), decode_tables.held(result)],
    )


def _positions(result: dict[str, Any]) -> Section | None:
    if not result["positions"]:
        return None
    near, far = (figures.exact(place) for place in result["settings"]["positions"])
    ratios = [(each["label"], each["ratio"]) for each in result["positions"]]
    chart = _ratio_chart(result, "far", f"Time of a token after {far} over that after {near}", ratios)
    return Section(
        key="positions",
        title="Far into a text",
        lead="A fixed state should make a late token take as long as an early one. Beside it: the baseline.",
        parts=[chart, decode_tables.positions(result)],
    )


def _serving(result: dict[str, Any]) -> Section:
    ratios = [(each["label"], each["ratio"]) for each in result["serving"]]
    return Section(
        key="serving",
        title="Requests together",
        lead="The same requests served in one running batch and one after another.",
        parts=[_ratio_chart(result, "together", "Speedup of a running batch", ratios), decode_tables.serving(result)],
    )


def _lookup(result: dict[str, Any]) -> Section | None:
    if not result["lookup"]:
        return None
    ratios = [(each["label"], each["ratio"]) for each in result["lookup"]]
    return Section(
        key="lookup",
        title="Drafts from the text itself",
        short="Drafts",
        lead="What followed the last tokens where they stood before is verified in one pass.",
        parts=[_ratio_chart(result, "drafts", "Speedup by prompt lookup", ratios), decode_tables.lookup(result)],
    )


def _ratio_chart(result: dict[str, Any], key: str, title: str, ratios: list[tuple[str, Mapping[str, Any]]]) -> RowChart:
    places = {arm["label"]: index for index, arm in enumerate(result["arms"])}
    rows = [
        Row(
            label=label,
            value=spelled(ratio, figures.ratio),
            point=ratio["value"],
            low=ratio["low"] or None,
            high=ratio["high"] if math.isfinite(ratio["high"]) else None,
            colour=colour(places[label]),
            marker=marker(places[label]),
        )
        for label, ratio in ratios
    ]
    return RowChart(
        key=f"ratio-{key}",
        title=title,
        description="; ".join(f"{row.label} {row.value}" for row in rows),
        x=Axis(title="ratio (log scale)", log=True, form=figures.ratio),
        groups=[RowGroup(title="means with 95 % intervals", rows=rows)],
        reference=1.0,
    )


def _method(result: dict[str, Any]) -> Section:
    bandwidths = [cell["bandwidth"]["value"] for cell in result["cells"]]
    arms: list[tuple[str, str]] = [
        (
            arm["label"],
            f"{figures.exact(arm['parameters'])} parameters, {figures.exact(arm['operations'])} operators a step; "
            f"within {arm['error']:.1g} of the full pass over {figures.exact(arm['checked_tokens'])} tokens",
        )
        for arm in result["arms"]
    ]
    machine = [
        ("hardware", result["hardware"]),
        ("versions", figures.plain(result["versions"])),
        ("copy", f"{min(bandwidths) / 1e9:.3g} to {max(bandwidths) / 1e9:.3g} GB/s over the cells, both directions"),
    ]
    parts: list[Part] = [Facts(facts=[*arms, *machine])]
    return Section(
        key="method",
        title="What was measured",
        short="Method",
        lead="Weights as initialised, float32, eager, the likeliest token each time; buffers are allocated before. "
        "Each contestant runs once unmeasured, then in turns. Decoding had to give the logits of the full pass first.",
        parts=parts,
    )


def _measured(
    name: str,
    index: int,
    x: list[int],
    found: list[Mapping[str, float]],
    factor: float,
    form: Callable[[float], str],
) -> Series:
    """Means with their intervals; an unbounded one is not drawn."""
    bounded = [math.isfinite(each["high"]) for each in found]
    values = [factor * each["value"] for each in found]
    return Series(
        name=name,
        x=x,
        y=values,
        low=[factor * each["low"] if known else None for each, known in zip(found, bounded, strict=True)],
        high=[factor * each["high"] if known else None for each, known in zip(found, bounded, strict=True)],
        colour=colour(index),
        marker=marker(index),
        line="solid",
        tips=[f"{name}, {figures.exact(at)}: {form(value)}" for at, value in zip(x, values, strict=True)],
    )


def _line(
    result: dict[str, Any], index: int, chosen: Callable[[dict[str, Any]], bool]
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(cell, cell["arms"][index]) for cell in result["cells"] if chosen(cell)]


def _prompts(result: dict[str, Any]) -> list[int]:
    return list(result["settings"]["prompts"])


def _prompt_axis(result: dict[str, Any]) -> Axis:
    return Axis(title="tokens of the prompt (log scale)", log=True, form=figures.exact, places=_prompts(result))


def _threads(number: int) -> str:
    return "one thread" if number == 1 else f"{number} threads"


def _milli(value: float) -> str:
    return f"{value:.3g}"
