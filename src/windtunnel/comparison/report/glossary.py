"""How to read it: the report's words in one place."""

from windtunnel.report import Facts, Section

_WORDS = (
    (
        "S_tok, S_flop, S_time",
        "How many times fewer tokens, FLOPs or seconds the variant needs, in a run whose schedule ends there, to "
        "reach the baseline's final loss. S = 1.20 saves 1 − 1/1.20 = 17 %. S_time = S_tok × throughput ratio, "
        "for this machine and these kernels.",
    ),
    (
        "no estimate, a bound",
        "The variant's horizons do not bracket the baseline's loss, or the method refuses; then only a bound, or "
        "nothing, is printed.",
    ),
    (
        "Δ nats",
        "Held-out loss of the variant minus the baseline's at equal tokens, paired by seed. Below zero is better.",
    ),
    (
        "95 % interval",
        "From Student's t over seeds: where the mean would lie if the study were repeated with other seeds. Other "
        "text adds the document variance, given under “The numbers”.",
    ),
    (
        "horizon",
        "A training length whose learning rate has fully decayed. A point in the middle of a run is not one and "
        "is marked within-run.",
    ),
    (
        "bits/byte",
        "Loss per byte of text rather than per token, so that it does not depend on the vocabulary.",
    ),
    (
        "body parameters",
        "All parameters but the input and output tables. Arms are matched on these; where there are experts, on those "
        "that a token meets (“120k of 400k”).",
    ),
    (
        "wins, loses",
        "The simultaneous 95 % interval of the primary speedup lies wholly beyond the margin (“small”: wholly on "
        "one side of 1, but not beyond the margin).",
    ),
    (
        "equivalent",
        "The 90 % interval lies inside the margin. Not the same as inconclusive.",
    ),
    (
        "inconclusive",
        "The interval holds both better and worse; more seeds would be needed.",
    ),
    (
        "mixed",
        "The sign differs between tracks, for example fewer tokens but more seconds. There is no single word for that.",
    ),
    (
        "preliminary",
        "Something caps the verdict: an untuned arm, too few seeds, a parameter gap, a failed control.",
    ),
    (
        "grade",
        "E: one seed. D: at least three seeds and a sweep for every arm, one scale. C: five seeds, three "
        "horizons, enough tokens, a second way of matching. B: three sizes. A: two data sets and a second "
        "implementation.",
    ),
)


def glossary_section() -> Section:
    """Short definitions."""
    return Section(key="reading", title="How to read this", parts=[Facts(facts=_WORDS, words=True)])
