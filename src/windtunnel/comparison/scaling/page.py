"""The page of a fit, and its tables for terminals, from the document that `fit_arms` made."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from windtunnel.comparison.scaling.frontier_page import frontier_section
from windtunnel.comparison.scaling.marks import COMPUTE, LOSS, flops
from windtunnel.report import (
    Axis,
    Chart,
    Finding,
    Guide,
    Items,
    Notice,
    Part,
    Section,
    Series,
    Table,
    colour,
    figures,
    marker,
    page,
)

_DIGITS = 2  # more digits of an exponent say nothing


def render(document: Mapping[str, Any], more: Sequence[Section] = ()) -> str:
    """One self-contained page; the same document gives the same text. `more` sections stand at its end."""
    names = list(document["arms"])
    sections = [
        *([_answer_section(document)] if document["multipliers"] else []),
        Section(key="curves", title="Loss against compute", short="Loss", parts=[_curves(document)]),
        frontier_section(document["frontiers"], list(document["arms"])),
        Section(key="fits", title="The fits", short="Fits", parts=[*tables(document), *_reasons(document)]),
        *more,
    ]
    return page(
        f"Scaling of {' · '.join(names)}",
        sections,
        kicker=f"{_runs(document)} runs · fits with hold-outs",
        summary=" ".join(_sentence(document, name) for name in document["multipliers"]),
        footer=f"Windtunnel · {', '.join(document['sources'])} · seed {document['seed']}, {document['draws']} refits",
    )


def tables(document: Mapping[str, Any]) -> list[Table]:
    """Savings, both fits of every arm, and the best size of each budget."""
    found = [_savings(document)] if document["multipliers"] else []
    return [*found, _laws(document), _envelopes(document), _budgets(document)]


def _savings(document: Mapping[str, Any]) -> Table:
    low, high = _ends(document)
    arms = {
        name: {
            f"at {low} FLOPs": _ratio(one["at"]["smallest"]),
            f"at {high} FLOPs": _ratio(one["at"]["largest"]),
            "exponents": "one each" if one["separate_exponents"] else "one for both",
            "p of one for both": f"{one['p_of_one_exponent']:.2g}",
            "meets the baseline at": _crossing(one),
            **_standing(one),
        }
        for name, one in document["multipliers"].items()
    }
    note = (
        "Compute of the baseline over compute of the arm for equal loss, 95 % intervals; above 1 the arm saves compute."
    )
    return _by_arm(f"Compute multiplier against {document['baseline']}", arms, note)


def _laws(document: Mapping[str, Any]) -> Table:
    arms = {}
    for name, arm in document["arms"].items():
        law = arm["loss_of_size_and_tokens"]
        arms[name] = {
            **{each: _value(law[each], _DIGITS) for each in ("E", "alpha", "beta")},
            "beta / (alpha + beta)": _value(law["optimum_exponent"], _DIGITS),
            "spread of a run": f"{100 * law['deviation']:.2g} %",
            **_standing(law),
        }
    note = (
        "N counts parameters multiplied for each token, the head included; C is the ledger's count of FLOPs, not 6 N D."
    )
    return _by_arm("L(N, D) = E + A / N^alpha + B / D^beta", arms, note)


def _envelopes(document: Mapping[str, Any]) -> Table:
    arms = {}
    for name, arm in document["arms"].items():
        found = arm["loss_of_compute"]
        best = found["optimum_exponent"]
        told = {each: _value(best[each], _DIGITS) if best["quotable"] else "not told" for each in ("with_head", "body")}
        arms[name] = {
            "gamma": _value(found["gamma"], _DIGITS),
            "E": "not told from gamma" if found["E"] is None else _value(found["E"], _DIGITS),
            "correlation of both": figures.fixed(found["correlation_of_E_and_gamma"], 2),
            "a in N_opt ~ C^a": told["with_head"],
            "a, body alone": told["body"],
            **_standing(found),
        }
    note = (
        "Through the best size of each budget. E needs 1.5 decades of compute; a is not told where counting the "
        "body alone moves it to the other side of one half."
    )
    return _by_arm("L(C) = E + K / C^gamma", arms, note)


def _by_arm(caption: str, arms: Mapping[str, Mapping[str, str]], note: str) -> Table:
    """One column an arm, so that intervals have room in a terminal."""
    names = list(next(iter(arms.values())))
    rows = [(name, *(arm[name] for arm in arms.values())) for name in names]
    return Table(caption=caption, columns=("", *arms), rows=rows, note=note)


def _standing(one: Mapping[str, Any]) -> dict[str, str]:
    test = one["held_out"]
    low, high = (figures.signed(100 * each, 2) for each in test["band90"])
    return {
        "largest budget missed by": f"{figures.signed(100 * test['error'], 2)} %",
        "allowed": f"[{low}, {high}] %",
        "stands as": _claim(one),
    }


def _budgets(document: Mapping[str, Any]) -> Table:
    rows = [
        (
            name,
            flops(budget["compute"]),
            str(budget["runs"]),
            str(budget["sizes"]),
            _value(budget["loss"], 3),
            figures.counted(budget["parameters"]["value"]) if budget["inside"] else "at the end of those tried",
        )
        for name, arm in document["arms"].items()
        for budget in arm["budgets"]
    ]
    columns = ("arm", "FLOPs", "runs", "sizes", "best loss", "best size")
    return Table(caption="Budgets", columns=columns, rows=rows, numeric=range(1, 6))


def _answer_section(document: Mapping[str, Any]) -> Section:
    names = list(document["arms"])
    parts: list[Part] = []
    for name, one in document["multipliers"].items():
        word, tone = _word(one)
        parts.append(
            Finding(
                title=name,
                word=word,
                text=_sentence(document, name),
                tone=tone,
                colour=colour(names.index(name)),
                remarks=one["reasons"],
            )
        )
    return Section(
        key="answer",
        title="What one arm saves another",
        short="Savings",
        lead="How much more compute the baseline needs for the same loss, at the best size of each budget.",
        parts=[*parts, _multiplier_chart(document)],
    )


def _word(one: Mapping[str, Any]) -> tuple[str, Any]:
    if not one["claim"]:
        return "descriptive only", "unknown"
    low, high = (one["at"][end] for end in ("smallest", "largest"))
    if all(end["ci95"][0] > 1 for end in (low, high)):
        return "saves compute", "good"
    if all(end["ci95"][1] < 1 for end in (low, high)):
        return "costs compute", "bad"
    return ("depends on compute", "mixed") if one["separate_exponents"] else ("not told apart", "unknown")


def _sentence(document: Mapping[str, Any], name: str) -> str:
    one = document["multipliers"][name]
    small, large = _ends(document)
    word, _ = _word(one)
    low, high = (_ratio(one["at"][end]) for end in ("smallest", "largest"))
    ratios = f"{low} at {small} FLOPs and {high} at {large}" if one["separate_exponents"] else high
    return f"{name}, {word}: {document['baseline']} spends {ratios} for the same loss."


def _multiplier_chart(document: Mapping[str, Any]) -> Chart:
    names = list(document["arms"])
    series = [
        line
        for name, one in document["multipliers"].items()
        for line in _lines(name, one["curve"], colour(names.index(name)), figures.ratio)
    ]
    return Chart(
        key="multiplier",
        title="Compute multiplier against compute",
        description=" ".join(_sentence(document, name) for name in document["multipliers"]),
        x=COMPUTE,
        y=Axis(title="baseline's compute over the arm's", log=False, form=figures.ratio),
        series=series,
        guides=[Guide(axis="y", value=1.0, label=str(document["baseline"]))],
        note="Bands are 95 % intervals; dashed: beyond the runs, by 4x at most.",
    )


def _curves(document: Mapping[str, Any]) -> Chart:
    series: list[Series] = []
    for k, (name, arm) in enumerate(document["arms"].items()):
        series += _lines(name, arm["loss_of_compute"]["curve"], colour(k), figures.fixed)
        budgets = arm["budgets"]
        series.append(
            Series(
                name=name,
                x=[one["compute"] for one in budgets],
                y=[one["loss"]["value"] for one in budgets],
                low=[one["loss"]["ci95"][0] for one in budgets],
                high=[one["loss"]["ci95"][1] for one in budgets],
                colour=colour(k),
                marker=marker(k),
                tips=[
                    f"{name}, best of {one['sizes']} sizes\n{_value(one['loss'], 3)} nats\n"
                    f"{flops(one['compute'])} FLOPs, {figures.counted(one['parameters']['value'])} parameters"
                    for one in budgets
                ],
            )
        )
    return Chart(
        key="loss-of-compute",
        title="Loss of the best size against compute",
        description="; ".join(f"{name}: {_claim(arm['loss_of_compute'])}" for name, arm in document["arms"].items()),
        x=COMPUTE,
        y=LOSS,
        series=series,
        note="Markers: the best size of each budget. Bands are 95 % intervals; dashed: beyond the runs, by 4x at most.",
    )


def _lines(name: str, curve: Mapping[str, Any], shade: str, form: Any) -> list[Series]:
    """A band over everything, a solid line over the runs and a dashed one beyond them."""
    beyond = list(curve["extrapolated"])
    turn = beyond.index(True)
    found = [
        Series(name=name, x=curve["compute"], y=curve["value"], low=curve["low"], high=curve["high"], colour=shade)
    ]
    parts: list[tuple[slice, Literal["solid", "dashed"]]] = [(slice(turn), "solid"), (slice(turn - 1, None), "dashed")]
    for part, line in parts:
        x, y = curve["compute"][part], curve["value"][part]
        tips = [f"{name}\n{form(b)}\n{flops(a)} FLOPs" for a, b in zip(x, y, strict=True)]
        found.append(Series(name=name, x=x, y=y, colour=shade, line=line, tips=tips))
    return found


def _reasons(document: Mapping[str, Any]) -> list[Part]:
    said = [
        f"{name}, {law}: {reason}"
        for name, arm in document["arms"].items()
        for law, key in (("L(N, D)", "loss_of_size_and_tokens"), ("L(C)", "loss_of_compute"))
        for reason in arm[key]["reasons"]
    ]
    said += list(document["notes"])
    return (
        [Notice(title="What does not stand, and what would do", parts=[Items(items=said)], kind="warning")]
        if said
        else []
    )


def _ends(document: Mapping[str, Any]) -> tuple[str, str]:
    first = next(iter(document["multipliers"].values()))["at"]
    return flops(first["smallest"]["compute"]), flops(first["largest"]["compute"])


def _runs(document: Mapping[str, Any]) -> int:
    return sum(len(arm["runs"]["losses"]) for arm in document["arms"].values())


def _value(found: Mapping[str, Any], digits: int) -> str:
    low, high = found["ci95"]
    return f"{figures.fixed(found['value'], digits)} {figures.interval(low, high, digits)}"


def _ratio(found: Mapping[str, Any]) -> str:
    low, high = found["ci95"]
    return f"{figures.ratio(found['value'])} {figures.interval(low, high, 2)}"


def _crossing(one: Mapping[str, Any]) -> str:
    found = one["crossing"]
    if found is None:
        return figures.MISSING
    ends: Sequence[float] = found["ci95"]
    return f"{flops(found['value'])} [{flops(ends[0])}, {flops(ends[1])}]"


def _claim(one: Mapping[str, Any]) -> str:
    return "a claim" if one["claim"] else "descriptive only"
