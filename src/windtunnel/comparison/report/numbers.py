"""The numbers behind everything, as tables."""

from windtunnel.comparison.report.reading import MEASURES, Comparison, Estimate, Study, bounded, dig, items
from windtunnel.comparison.report.summary import overview
from windtunnel.comparison.report.wording import speedup_words
from windtunnel.report import Block, Part, Section, Table, figures


def numbers_section(study: Study) -> Section:
    """The overview, tests and intervals, horizons, seeds."""
    parts: list[Part] = [Block(title="Overview", parts=[overview(study)])]
    if study.comparisons:
        parts.append(Block(title="Intervals and tests", parts=[_tests(study), _speedups(study)]))
    horizons = _horizons(study)
    if horizons.rows:
        parts.append(Block(title="Horizons", parts=[horizons]))
    seeds = _seeds(study)
    if seeds.rows:
        parts.append(Block(title="Seeds", parts=[seeds]))
    return Section(
        key="numbers",
        title="The numbers",
        lead="Everything above, to copy. The same figures are in results.json.",
        parts=parts,
    )


def _tests(study: Study) -> Table:
    rows = []
    for one in study.comparisons:
        rows.append(
            (
                one.variant.name,
                figures.plain(one.raw.get("n")),
                _words(one.delta),
                *(
                    _pair(one, name)
                    for name in ("ci95_documents", "welch_ci95", "ci95_simultaneous", "equivalent_ci90")
                ),
                _probability(one, "p_value"),
                _probability(one, "p_holm"),
                figures.fixed(figures.number_or_none(one.raw.get("p_improvement")), 2),
                figures.signed(figures.number_or_none(one.raw.get("bits_per_byte_delta")), 4),
            )
        )
    columns = (
        "arm",
        "n",
        "Δ nats, paired t",
        "seeds and documents",
        "Welch",
        "simultaneous",
        "90 % (equivalence)",
        "p",
        "p (Holm)",
        "P(better)",
        "Δ bits/byte",
    )
    note = "The paired interval over seeds is the primary one. P(better): chance that a run of the variant beats a run of the baseline."
    return Table(
        caption="Difference of loss to the baseline, 95 % intervals unless said",
        columns=columns,
        rows=rows,
        numeric=range(1, 11),
        note=note,
    )


def _speedups(study: Study) -> Table:
    rows = []
    for one in study.comparisons:
        slope = ", ".join(
            f"{name} {figures.fixed(figures.number_or_none(dig(one.raw, 'slope', name)))}"
            for name in ("baseline", "variant", "used")
        )
        primary = str(one.raw.get("primary") or figures.MISSING).replace("_", "-")
        rows.append(
            (
                one.variant.name,
                *(speedup_words(one.speedup(m)) for m in MEASURES),
                primary,
                slope if one.raw.get("slope") else figures.MISSING,
            )
        )
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
                (arm.name, f"{fraction:g}", figures.exact(tokens), _words(loss, signed=False), figures.fixed(bits))
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


def _words(estimate: Estimate, signed: bool = True) -> str:
    value = figures.signed(estimate.value, 4) if signed else figures.fixed(estimate.value, 4)
    return value if estimate.low is None else f"{value} {figures.interval(estimate.low, estimate.high, 4)}"


def _pair(one: Comparison, name: str) -> str:
    pair = bounded(None, one.raw.get(name))
    return figures.interval(pair.low, pair.high, 4)


def _probability(one: Comparison, name: str) -> str:
    value = figures.number_or_none(one.raw.get(name))
    return figures.MISSING if value is None else "< 0.0001" if value < 0.0001 else f"{value:.2g}"
