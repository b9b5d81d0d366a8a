"""What a monitor reads: counters, gauges and histograms in Prometheus' text format 0.0.4."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from windtunnel.serving.served import Served

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

Labels = tuple[tuple[str, str], ...]


class Histogram:
    """How often a time fell between bounds, in seconds."""

    def __init__(self) -> None:
        self.counts = [0] * (len(_BOUNDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count a time."""
        self.counts[bisect_left(_BOUNDS, seconds)] += 1
        self.total += seconds

    def lines(self, name: str, labels: Labels) -> Iterator[str]:
        """The series of one histogram."""
        below = 0
        for bound, count in zip((*map(str, _BOUNDS), "+Inf"), self.counts, strict=True):
            below += count
            yield _line(f"{name}_bucket", (*labels, ("le", bound)), below)
        yield _line(f"{name}_sum", labels, self.total)
        yield _line(f"{name}_count", labels, below)


class Metrics:
    """What has been counted since the start. All of it is called in the event loop."""

    def __init__(self, served: Sequence[Served]) -> None:
        self._served = served
        self._requests: Counter[Labels] = Counter()
        self._tokens: Counter[Labels] = Counter()
        self._first: dict[str, Histogram] = {each.name: Histogram() for each in served}
        self._whole: dict[str, Histogram] = {each.name: Histogram() for each in served}

    def request(self, model: str, endpoint: str, outcome: str, seconds: float) -> None:
        """A request has ended: "ok", "cancelled" by a client that left, or the code of its error."""
        self._requests[("model", model), ("endpoint", endpoint), ("outcome", outcome)] += 1
        self._whole[model].observe(seconds)

    def tokens(self, model: str, prompt: int, generated: int) -> None:
        """Tokens that were read and made."""
        self._tokens[("model", model), ("kind", "prompt")] += prompt
        self._tokens[("model", model), ("kind", "generated")] += generated

    def first_token(self, model: str, seconds: float) -> None:
        """The time from a request's arrival to its first token."""
        self._first[model].observe(seconds)

    def text(self) -> str:
        """Everything, as it stands now."""
        lines = [
            *_family("windtunnel_requests_total", "counter", "Requests that have ended.", self._requests),
            *_family("windtunnel_tokens_total", "counter", "Tokens read and made.", self._tokens),
        ]
        for name, kind, explained, values in self._readings():
            lines += _family(f"windtunnel_{name}", kind, explained, values)
        for name, explained, histograms in (
            ("first_token_seconds", "From arrival to the first token.", self._first),
            ("request_seconds", "From arrival to the end.", self._whole),
        ):
            lines += _head(f"windtunnel_{name}", "histogram", explained)
            for model, histogram in histograms.items():
                lines += histogram.lines(f"windtunnel_{name}", (("model", model),))
        return "\n".join(lines) + "\n"

    def _readings(self) -> Iterator[tuple[str, str, str, dict[Labels, float]]]:
        def of(kind: str | None, value: float, model: str) -> tuple[Labels, float]:
            return (("model", model), *((("kind", kind),) if kind else ())), value

        workers = [(each.name, each.worker) for each in self._served]
        yield "queue", "gauge", "Requests that wait.", dict(of(None, w.engine.waiting, n) for n, w in workers)
        yield "running", "gauge", "Requests in the batch.", dict(of(None, w.engine.running, n) for n, w in workers)
        used = [of("used", w.state_bytes_used, n) for n, w in workers]
        held = [of("reserved", w.state_bytes, n) for n, w in workers]
        yield "state_bytes", "gauge", "Decoding state: set aside, and needed by what runs.", dict(used + held)
        drafted = [of("drafted", w.engine.drafted, n) for n, w in workers]
        kept = [of("kept", w.engine.kept, n) for n, w in workers]
        yield "draft_tokens_total", "counter", "Speculation: tokens drafted and kept.", dict(drafted + kept)
        yield (
            "engine_failures_total",
            "counter",
            "Engines started again.",
            dict(of(None, w.crashes, n) for n, w in workers),
        )


def _family(name: str, kind: str, explained: str, values: Mapping[Labels, float]) -> list[str]:
    return [*_head(name, kind, explained), *(_line(name, labels, value) for labels, value in values.items())]


def _head(name: str, kind: str, explained: str) -> list[str]:
    return [f"# HELP {name} {explained}", f"# TYPE {name} {kind}"]


def _line(name: str, labels: Labels, value: float) -> str:
    inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
    return f"{name}{{{inside}}} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
