"""The numbers behind everything, as tables."""

from collections.abc import Callable

from windtunnel.comparison.report.reading import MEASURES, Comparison, Study, bounded, dig, items
from windtunnel.comparison.report.summary import overview
from windtunnel.comparison.report.wording import estimate_words, speedup_words
from windtunnel.report import Section, Table, figures


def numbers_section(study: Study) -> Section:
    """The overview, tests and intervals, horizons, seeds."""
    tables = [overview(study, "\n"), _tests(study), _speedups(study), _horizons(study), _seeds(study)]
    lead = "Everything above, to copy. The same figures are in results.json."
    return Section(key="numbers", title="The numbers", lead=lead, parts=[table for table in tables if table.rows])


def _tests(study: Study) -> Table:
    """One line a statistic, one column an arm: there are more of the first than of the second."""
    compared = study.comparisons
    lines: list[tuple[str, Callable[[Comparison], str]]] = [
        ("Δ nats a token, paired t over seeds", lambda one: estimate_words(one.delta, digits=4, signed=True)),
        ("pairs of seeds", lambda one: figures.plain(one.raw.get("n"))),
        ("interval over seeds and documents", lambda one: _pair(one, "ci95_documents")),
        ("interval by Welch, unpaired", lambda one: _pair(one, "welch_ci95")),
        ("simultaneous interval, all arms", lambda one: _pair(one, "ci95_simultaneous")),
        ("90 % interval of S, for equivalence", lambda one: _pair(one, "equivalent_ci90")),
        ("p", lambda one: _probability(one, "p_value")),
        ("p after Holm", lambda one: _probability(one, "p_holm")),
        ("P(a run beats a run of the baseline)", lambda one: figures.fixed(_number(one, "p_improvement"), 2)),
        ("Δ bits/byte", lambda one: figures.signed(_number(one, "bits_per_byte_delta"), 4)),
    ]
    rows = [(name, *(write(one) for one in compared)) for name, write in lines] if compared else []
    caption = "Difference of loss to the baseline; intervals are 95 % unless said"
    columns = ("statistic", *(one.variant.name for one in compared))
    return Table(caption=caption, columns=columns, rows=rows, numeric=range(1, len(columns)))


def _number(one: Comparison, name: str) -> float | None:
    return figures.number_or_none(one.raw.get(name))


def _speedups(study: Study) -> Table:
    rows = []
    for one in study.comparisons:
        slopes = [
            (name, figures.number_or_none(dig(one.raw, "slope", name))) for name in ("baseline", "variant", "used")
        ]
        slope = "\n".join(f"{name} {figures.fixed(value)}" for name, value in slopes if value is not None)
        primary = str(one.raw.get("primary") or figures.MISSING).replace("_", "-")
        words = [speedup_words(one.speedup(measure)).replace(" · ", "\n") for measure in MEASURES]
        rows.append((one.variant.name, *words, primary, slope or figures.MISSING))
    columns = ("arm", "tokens", "FLOPs", "time", "primary track", "slopes −dL/dlnD")
    return Table(caption="Speedups to the baseline's final loss", columns=columns, rows=rows)


def _horizons(study: Study) -> Table:
    rows = []
    for arm in study.arms:
        for fraction, tokens, loss in arm.horizons:
            bits = figures.number_or_none(
                dig(arm.part("horizons"), _key(arm.part("horizons"), fraction), "bits_per_byte")
            )
            rows.append(
                (arm.name, f"{fraction:g}", figures.exact(tokens), estimate_words(loss, digits=4), figures.fixed(bits))
            )
    return Table(
        caption="Fully decayed horizons",
        columns=("arm", "share of D", "tokens", "loss (nats)", "bits/byte"),
        rows=rows,
        numeric=range(1, 5),
    )


def _seeds(study: Study) -> Table:
    known = [(arm, items(dig(arm.raw, "loss", "seeds"))) for arm in study.arms]
    most = max((len(seeds) for _, seeds in known), default=0)
    names = [figures.plain(seed) for seed in items(dig(study.raw, "settings", "seeds"))][:most]
    names += [str(k + 1) for k in range(len(names), most)]
    rows = [
        (arm.name, *(figures.fixed(figures.number_or_none(v), 4) for v in [*seeds, *[None] * (most - len(seeds))]))
        for arm, seeds in known
        if seeds
    ]
    columns = ("arm", *(f"seed {name}" for name in names))
    return Table(caption="Final loss (nats a token) by seed", columns=columns, rows=rows, numeric=range(1, most + 1))


def _key(horizons: object, fraction: float) -> str:
    names = horizons if isinstance(horizons, dict) else {}
    return next((name for name in names if float(name) == fraction), "")


def _pair(one: Comparison, name: str) -> str:
    pair = bounded(None, one.raw.get(name))
    return figures.interval(pair.low, pair.high, 4)


def _probability(one: Comparison, name: str) -> str:
    value = figures.number_or_none(one.raw.get(name))
    return figures.MISSING if value is None else "< 0.0001" if value < 0.0001 else f"{value:.2g}"
