"""The coordinate check as a page: how much every site changes at every width, under muP and without it."""

from collections.abc import Sequence
from typing import Any

from windtunnel.report import Axis, Chart, Notice, Part, Prose, Section, Series, Table, colour, figures, marker, page
from windtunnel.training.coordinates import TOLERANCE, Result, Slope

_TITLES = {"mup": "Under muP", "standard": "Under the standard parametrisation"}


def to_json(results: Sequence[Result]) -> dict[str, Any]:
    """Verdict, faults, and every site's slopes and sizes."""
    plan = results[0].plan
    return {
        "recipe": plan.recipe,
        "widths": list(plan.widths),
        "steps": plan.steps,
        "seeds": plan.seeds,
        "learning_rate": plan.rate,
        "tolerance": TOLERANCE,
        "passed": results[0].passed,
        "faults": results[0].faults,
        "sites": {
            result.parametrisation: {site.name: _site(result, site) for site in result.sites} for result in results
        },
    }


def _site(result: Result, site: Any) -> dict[str, Any]:
    change, size = result.slope(site, "changes"), result.slope(site, "sizes")
    return {
        "change": site.changes.mean(0).tolist(),
        "change_slope": change.value,
        "change_ci95": [change.low, change.high],
        "size": site.sizes.mean(0).tolist(),
        "size_slope": size.value,
    }


def table(result: Result) -> Table:
    """The slopes of one parametrisation."""
    rows = []
    for site in result.sites:
        change, size = result.slope(site, "changes"), result.slope(site, "sizes")
        widths = (figures.plain(float(f"{value:.3g}")) for value in site.changes.mean(0))
        rows.append((site.name, _slope(change), figures.signed(size.value, 2), *widths))
    return Table(
        caption=_TITLES[result.parametrisation],
        columns=("site", "slope of the change", "slope of the size", *(f"change at {w}" for w in result.plan.widths)),
        rows=rows,
        numeric=tuple(range(1, 3 + len(result.plan.widths))),
    )


def render(results: Sequence[Result]) -> str:
    """The whole page; the first result is the one that is judged."""
    plan, judged = results[0].plan, results[0]
    word = "passes" if judged.passed else "fails"
    sections = [
        Section(
            key=result.parametrisation,
            title=_TITLES[result.parametrisation],
            lead=_lead(result),
            parts=[*_faults(result), _chart(result), table(result)],
        )
        for result in results
    ]
    return page(
        f"Coordinate check: {plan.recipe} {word}",
        sections,
        kicker=f"{plan.steps} steps · {plan.seeds} seeds · learning rate {figures.rate(plan.rate)}",
        summary=(
            f"{plan.recipe} at the widths {', '.join(map(str, plan.widths))}, trained for {plan.steps} steps at one "
            "learning rate. It passes if under muP no size grows, and every change goes with a power of the width of "
            f"at most {TOLERANCE:g} either way; scores and logits, of which a part is random, may fall with its root."
        ),
    )


def _lead(result: Result) -> str:
    if result.parametrisation == "standard":
        return (
            "For contrast: the same recipe with the same learning rate at every width. Rising lines blow up with width."
        )
    return (
        "Flat lines keep their size. Scores and logits may fall with 1/√width: what is random in them shrinks, what is "
        "learned stays."
    )


def _faults(result: Result) -> list[Part]:
    if result.parametrisation == "standard":
        return []
    if result.passed:
        return [Prose(["Every site passes: this recipe may be compared under muP."])]
    return [Notice(title="It fails", kind="warning", parts=[Prose([f"{fault}." for fault in result.faults])])]


def _chart(result: Result) -> Chart:
    series = [
        Series(
            name=site.name,
            x=result.plan.widths,
            y=site.changes.mean(0).tolist(),
            colour=colour(index),
            marker=marker(index),
            line="solid",
            tips=[f"{site.name}, width {width}" for width in result.plan.widths],
        )
        for index, site in enumerate(result.sites)
    ]
    return Chart(
        key=f"changes-{result.parametrisation}",
        title="Change of every activation since the first step",
        description="RMS of the change after the last step, mean over seeds, against the width; both axes logarithmic.",
        x=Axis(title="width", log=True, base=2, places=result.plan.widths),
        y=Axis(title="RMS of the change (log scale)", log=True),
        series=series,
    )


def _slope(slope: Slope) -> str:
    return f"{figures.signed(slope.value, 2)} {figures.interval(slope.low, slope.high, 2)}"
