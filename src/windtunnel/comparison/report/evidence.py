"""Why to believe it, and what it does not say: what was held equal, failures, caveats, data and machine."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from windtunnel.comparison.report.reading import Study, bounded, items, mapping
from windtunnel.comparison.report.wording import estimate_words
from windtunnel.report import Block, Facts, Items, Part, Prose, Section, Table, figures
from windtunnel.report.markup import tag

_DATA = {
    "name": "Corpus", "source": "Source", "fingerprint": "Fingerprint", "bytes": "Bytes", "documents": "Documents",
    "train_tokens": "Training tokens", "heldout_tokens": "Held-out tokens", "heldout_documents": "Held-out documents",
    "duplicates_dropped": "Duplicates dropped",
    "near_duplicates_dropped": "Near duplicates dropped", "overlap_13gram_documents": "Held-out documents sharing one",
    "overlap_13gram": "Held-out 13-grams also in training",
    "epochs": "Epochs", "tokenizer": "Tokenizer", "tokenizer_fingerprint": "Tokenizer fingerprint",
    "vocab": "Vocabulary", "bytes_per_token": "Bytes a token", "leak": "Document boundaries",
}  # fmt: skip
_HASHES = ("fingerprint", "tokenizer_fingerprint")


def equal_section(study: Study) -> Section:
    """The rules and the hashes that prove them."""
    rows = [mapping(row) for row in items(study.raw.get("held_equal"))]
    lines = [
        (str(r.get("what", "")), str(r.get("rule", "")), tag("code", figures.plain(r.get("evidence", ""))))
        for r in rows
    ]
    parts: list[Part] = []
    if lines:
        parts.append(Table(caption="Equal for all arms", columns=("what", "rule", "evidence"), rows=lines))
    hashes = [(arm.name, str(arm.raw["batch_hash"])) for arm in study.arms if arm.raw.get("batch_hash")]
    if hashes:
        parts.append(_hashes(hashes))
    lead = (
        "A comparison is fair only when everything except the idea is the same. These are the rules, and what "
        "shows that they held."
    )
    return Section(
        key="equal",
        title="What was held equal",
        short="Held equal",
        lead=lead,
        parts=parts or [Prose(["Nothing was recorded."])],
    )


def _hashes(hashes: list[tuple[str, str]]) -> Table:
    """One line a hash: a single line says that every arm read the same."""
    values = list(dict.fromkeys(value for _, value in hashes))
    note = "All arms read the same batches in the same order."
    if len(values) > 1:
        note = "The arms did NOT read the same batches: their losses are not comparable."
    rows = [(", ".join(name for name, own in hashes if own == value), tag("code", value)) for value in values]
    caption = "Hash of the token ids of the first and last 64 batches"
    return Table(caption=caption, columns=("arms", "SHA-256"), rows=rows, note=note)


def caveats_section(study: Study) -> Section:
    """Failures and caveats, and notes of the study."""
    failures = [mapping(one) for one in items(study.raw.get("failures"))]
    parts: list[Part] = []
    if failures:
        lines = [tuple(str(one.get(key, figures.MISSING)) for key in ("arm", "job", "error")) for one in failures]
        parts.append(Table(caption="What failed", columns=("arm", "job", "error"), rows=lines))
    else:
        parts.append(Prose(["No run failed."]))
    parts += [table for table in (_health(study),) if table.rows]
    caps = [f"{one.variant.name}: {cap}" for one in study.comparisons for cap in items(one.raw.get("caps"))]
    for title, texts in (
        ("Caveats", study.texts("caveats")),
        ("Caps on verdicts", caps),
        ("What would change a verdict, or raise its grade", _changes(study)),
        ("Notes", study.texts("notes")),
    ):
        if texts:
            parts.append(Block(title=title, parts=[Items(items=texts)]))
    return Section(key="caveats", title="Failures and caveats", short="Caveats", parts=parts)


def _health(study: Study) -> Table:
    """Diverged runs, steps without a finite loss and text learned by heart, arm by arm: what a mean could hide."""
    kinds = ("diverged", "nonfinite_steps", "train_seconds")
    rows = []
    for arm in study.arms:
        diverged, broken, seconds = (arm.number(kind) for kind in kinds)
        if diverged is not None or broken is not None:
            gap = arm.part("training_gap")
            counts = (figures.exact(diverged), figures.exact(broken))
            words = estimate_words(bounded(gap.get("mean"), gap.get("ci95")), digits=3, signed=True)
            rows.append((arm.name, *counts, words, figures.duration(seconds)))
    columns = ("arm", "diverged runs", "steps without a finite loss", "gap to training", "training time of a run")
    note = (
        "Gap to training: held-out loss at D minus that of the last 5 % of the batches before it, in nats. The texts "
        "differ, and so does how hard they are: what counts is whether one arm's gap is wider than another's."
    )
    return Table(caption="Health of the reported runs", columns=columns, rows=rows, numeric=range(1, 5), note=note)


def _changes(study: Study) -> list[str]:
    said = [(one.variant.name, [str(text) for text in items(one.raw.get("would_change"))]) for one in study.comparisons]
    return [f"{name}: {'; '.join(texts)}" for name, texts in said if texts]


def machine_section(study: Study) -> Section:
    """Settings, data, versions."""
    data = study.part("data")
    known = {key: data[key] for key in (*_DATA, *data) if key in data and not isinstance(data[key], dict)}
    parts: list[Part] = []
    for title, facts in (
        ("Settings", _facts(study.part("settings"))),
        ("Data", [(_DATA.get(key, str(key)), _datum(key, value)) for key, value in known.items()]),
        ("Versions and machine", _facts(study.part("versions"))),
        ("Study", _facts({key: study.raw[key] for key in ("study", "preset", "created") if key in study.raw})),
    ):
        if facts:
            parts.append(Block(title=title, parts=[Facts(facts=facts)]))
    return Section(key="machine", title="Settings, data, machine and versions", short="Data and machine", parts=parts)


def _facts(values: Mapping[str, Any]) -> list[tuple[str, str | Markup]]:
    return [(str(key).replace("_", " "), figures.plain(value)) for key, value in values.items()]


def _datum(key: str, value: Any) -> str | Markup:
    if key in _HASHES:
        return tag("code", str(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return figures.exact(value)
    if key.startswith("overlap") and isinstance(value, float) and value <= 1:
        return f"{100 * value:.1f}\u00a0%"
    return figures.plain(value)
