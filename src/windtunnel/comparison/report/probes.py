"""How far the answer depends on seeds and on the batch, where the study asked."""

from windtunnel.comparison.report.reading import Study, bounded, items, mapping
from windtunnel.comparison.report.wording import estimate_words
from windtunnel.report import Part, Section, Table, figures

_VARIED = {"both": "both, as in the study", "data": "the data alone", "initial-values": "the initial values alone"}


def probes_section(study: Study) -> Section | None:
    """A table for each probe; None where none was asked."""
    found = mapping(study.raw.get("probes"))
    parts: list[Part] = [table for table in (_noise(study, found), _batch(study, found)) if table.rows]
    lead = "Runs made beside the study's own: what its noise is made of, and whether the answer holds at another batch."
    return Section(key="probes", title="Probes", lead=lead, parts=parts) if parts else None


def _noise(study: Study, found: object) -> Table:
    noise = mapping(mapping(found).get("noise"))
    rows = [
        (words, estimate_words(bounded(one.get("deviation"), one.get("ci95")), digits=4), figures.plain(one.get("n")))
        for name, words in _VARIED.items()
        if (one := mapping(noise.get(name)))
    ]
    base = study.baseline.name if study.baseline else "the baseline"
    note = "Intervals by chi squared. Shares need not add up: the three sets of runs have few seeds in common."
    columns = ("what a seed varies", "s.d. of the loss (nats)", "runs")
    caption = f"What the noise of {base} is made of"
    return Table(caption=caption, columns=columns, rows=rows, numeric=(1, 2), note=note)


def _batch(study: Study, found: object) -> Table:
    names = {arm.label: arm.name for arm in study.arms}
    given = [mapping(row) for row in items(mapping(found).get("batch"))]
    rows = [
        (
            names.get(str(row.get("variant")), str(row.get("variant"))),
            figures.plain(row.get("batch_size")),
            estimate_words(bounded(row.get("delta_nats"), row.get("ci95")), digits=4, signed=True),
            figures.plain(row.get("n")),
        )
        for row in sorted(given, key=lambda row: (str(row.get("variant")), row.get("batch_size", 0)))
    ]
    note = (
        "Held-out loss at D minus the baseline's at the same batch. The rate was tuned at the study's own batch and "
        "goes with the square root of the batch elsewhere."
    )
    columns = ("arm", "sequences a step", "Δ nats a token", "pairs of seeds")
    return Table(caption="The difference at other batches", columns=columns, rows=rows, numeric=(1, 2, 3), note=note)
