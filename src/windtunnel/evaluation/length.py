"""Reading past the trained length: the same targets with more and more before them, as trained and rescaled."""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, NamedTuple

import numpy as np
import torch

from windtunnel.checkpoint import fill_model, model_tensors
from windtunnel.evaluation.attention_entropy import attention_entropy
from windtunnel.evaluation.base import Arm, Evaluation
from windtunnel.evaluation.estimates import Figures, over_documents
from windtunnel.evaluation.length_page import parts_of
from windtunnel.evaluation.reach import check_reach
from windtunnel.evaluation.segments import Ids, Segments, by_document, check_segments, nats_of, scored, segments
from windtunnel.evaluation.subject import Subject
from windtunnel.evaluation.unseen_angles import unseen_share
from windtunnel.evaluation.work import Work
from windtunnel.positions.scaling import SCALINGS
from windtunnel.report import Part
from windtunnel.root import Model, ModelLayer
from windtunnel.runs import Run
from windtunnel.spec import nearest

AS_IT_IS = "as it is"
MARGIN = 0.02  # nats a token
_LONGEST_MAP = 4096


class Reading(NamedTuple):
    """One way of reading: the length, as a multiple of the trained one and in tokens, and the spec that reads it."""

    method: str
    multiple: float
    length: int
    spec: Model


class Length(Evaluation):
    """X_k: what the last quarter of the trained length costs at k times that length, over what it costs at it.

    The targets are the same at every length: the last ones of pieces that are `longest` times as long as the trained
    context T, so that only what stands before them changes. "disjoint" scores all targets of the pieces in windows of
    the length. base: T; None is what the run was trained at, before it was extended. multiples: up to `longest`.
    scalings: rotary frequencies changed at reading time, all weights as they are: linear, ntk, dynamic, yarn, llama3,
    or all, each for the length that is read. maps: pieces whose attention is measured. pieces: at most so many.
    """

    name: ClassVar[str] = "length"
    title: ClassVar[str] = "Reading past the trained length"
    lead: ClassVar[str] = (
        "The same targets at every length, with more text before them: what it costs, over reading them at the trained "
        "length. Below 0 a model gains from text that is further away than it was trained on."
    )

    base: int | None = None
    multiples: tuple[float, ...] = (1.0, 1.25, 1.5, 2.0, 4.0, 8.0, 16.0)
    longest: float = 8.0
    scalings: tuple[str, ...] = ()
    pieces: int = 32
    maps: int = 2

    def validate(self) -> None:
        rising = list(self.multiples) == sorted(set(self.multiples)) and self.multiples[:1] == (1.0,)
        self.require(rising, f"multiples are {self.multiples}; they rise, from 1 on")
        self.require(self.longest > 1, f"longest is {self.longest}; above 1")
        self.require(self.pieces >= 1, f"pieces is {self.pieces}; at least 1")
        self.require(self.maps >= 0, f"maps is {self.maps}; at least 0")
        for name in self.scalings:
            known = ("all", *SCALINGS)
            self.require(name in known, f"scalings: unknown {name!r}{nearest(name, known)}")

    def check(self, subject: Subject) -> None:
        base = self._base(subject)
        self.require(base >= 4, f"a trained length of {base} has no last quarter; at least 4")
        longest = self._lengths(subject)[-1]
        way_out = f"length:longest=NUMBER, below {longest[0]:g}, asks for less, or leave the run out"
        check_reach(subject, self.name, longest[1], way_out)
        check_segments(subject, longest[1], "length:longest=NUMBER asks for shorter ones, or name longer by --data")

    def tokens(self, subject: Subject) -> int:
        longest = self._lengths(subject)[-1][1]
        count = min(check_segments(subject, longest, ""), self.pieces)
        readings = self._readings(subject)
        methods = {reading.method for reading in readings}
        return len(readings) * count * longest + len(methods) * self._map_tokens(count, longest)

    def chance(self, subject: Subject) -> float:
        return float(np.log(subject.spec.vocab))

    def measure(self, run: Run, subject: Subject, work: Work) -> Figures:
        longest = self._lengths(subject)[-1][1]
        found = segments(subject.heldout, longest, self.pieces)
        targets = scored(subject.heldout, found.targets)
        last = self._base(subject) // 4
        counts = [by_document((part >= 0).sum(1), found.document) for part in (targets[:, -last:], targets)]
        methods: dict[str, list[Figures]] = {}
        spread: dict[str, list[Figures]] = {}
        nearest_sums: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]] = {}
        for reading in self._readings(subject):
            model = _model(run, reading.spec)
            compute = partial(_sums, model, found, targets, reading.length, last, work)
            name = f"{reading.method} {reading.multiple:g}"
            sums = [np.asarray(part) for part in work.part(name, targets.size, compute)]
            first = nearest_sums.setdefault(reading.method, sums[0])
            methods.setdefault(reading.method, []).append(
                {
                    "multiple": reading.multiple,
                    "length": reading.length,
                    "last": over_documents(sums[0], counts[0]),
                    "disjoint": over_documents(sums[1], counts[1]),
                    "excess": over_documents(sums[0] - first, counts[0]),
                    "unseen": unseen_share(run.spec, reading.spec, subject.context, reading.length),
                }
            )
            if reading.length == longest and self.maps:
                cost = self._map_tokens(len(found.tokens), longest)
                rows = found.tokens[: self.maps, : min(longest, _LONGEST_MAP)]
                spread[reading.method] = work.part(
                    f"{reading.method} entropy", cost, partial(_entropies, model, rows, work)
                )
        return {
            "base": self._base(subject),
            "read_at": subject.context,
            "targets": last,
            "pieces": len(found.tokens),
            "documents": len(counts[0]),
            "methods": [
                {"method": method, "points": points, "entropy": spread.get(method)}
                for method, points in methods.items()
            ],
        }

    def derived(self, figures: Figures) -> Figures:
        """effective: by method, the largest multiple that costs at most 0.02 nats more than the trained length."""
        return {
            "effective": {
                method["method"]: max(
                    point["multiple"] for point in method["points"] if point["excess"]["value"] <= MARGIN
                )
                for method in figures["methods"]
            }
        }

    def parts(self, arms: Sequence[Arm]) -> list[Part]:
        return parts_of(arms, MARGIN)

    def _base(self, subject: Subject) -> int:
        return self.base or subject.trained

    def _lengths(self, subject: Subject) -> list[tuple[float, int]]:
        """Multiples with their tokens."""
        base = self._base(subject)
        return [(multiple, round(multiple * base)) for multiple in self.multiples if multiple <= self.longest]

    def _readings(self, subject: Subject) -> list[Reading]:
        """As it is, then by each method; only unscaled rotary positions can be rescaled."""
        found = [Reading(AS_IT_IS, *place, subject.spec) for place in self._lengths(subject)]
        if "extended" in subject.stored.record or not subject.spec.rotates or subject.spec.scaling is not None:
            return found
        base = self._base(subject)
        for method in SCALINGS if "all" in self.scalings else self.scalings:
            found += [
                Reading(method, *place, subject.spec.extended(method, place[1], base))
                for place in self._lengths(subject)
            ]
        return found

    def _map_tokens(self, count: int, longest: int) -> int:
        return min(self.maps, count) * min(longest, _LONGEST_MAP)


def _model(run: Run, spec: Model) -> ModelLayer:
    """The run's weights under another spec."""
    if spec == run.spec:
        return run.model
    like = run.model.embedding.weight
    model = spec.build().to(like.device, like.dtype)
    fill_model(model, model_tensors(run.model), "the run")
    return model.eval()


def _sums(model: ModelLayer, found: Segments, targets: Ids, length: int, last: int, work: Work) -> list[list[float]]:
    """Nats by document of the last targets and of all, in windows of `length` that end where the pieces do."""
    whole = targets.shape[1]
    short = whole % length
    nats = np.zeros(targets.shape)
    if short:
        nats[:, :short] = nats_of(model, found.tokens[:, :short], targets[:, :short], work)
    shape = (-1, length)
    windows = nats_of(model, found.tokens[:, short:-1].reshape(shape), targets[:, short:].reshape(shape), work)
    nats[:, short:] = windows.reshape(len(targets), -1)
    return [by_document(part.sum(1), found.document).tolist() for part in (nats[:, -last:], nats)]


def _entropies(model: ModelLayer, rows: Ids, work: Work) -> list[Figures] | None:
    """Mean entropy by buckets of queries that double; None where nothing attends. A row at a time: maps are large."""
    device = model.embedding.weight.device
    found = []
    for row in rows:
        mean = attention_entropy(model, torch.from_numpy(row[None]).to(device))
        if mean is None:
            return None
        found.append(mean)
        work.read(len(row))
    by_query = torch.stack(found).numpy()  # n t
    size = by_query.shape[1]
    return [
        {
            "from": first + 1,
            "to": min(2 * first + 1, size),
            "nats": over_documents(by_query[:, first : 2 * first + 1].mean(1), np.ones(len(found))),
        }
        for first in (2**power - 1 for power in range(size.bit_length()))
    ]
