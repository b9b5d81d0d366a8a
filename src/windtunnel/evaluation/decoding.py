"""What a token costs once a text stands before it: state, bytes that are read, time."""

import os
import time
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from scipy import stats

from windtunnel.evaluation.base import Arm, Evaluation
from windtunnel.evaluation.estimates import Figures, spelled
from windtunnel.evaluation.reach import check_reach
from windtunnel.evaluation.subject import Subject
from windtunnel.evaluation.work import Work
from windtunnel.inference.batch import Batch
from windtunnel.ledger import step_bytes
from windtunnel.report import Part, Table
from windtunnel.report.figures import byte_count
from windtunnel.root import ModelLayer
from windtunnel.runs import Run

_CHUNK = 256  # tokens of the text that are read at once
_WARMING = 3  # steps that are not timed


class Decoding(Evaluation):
    """One sequence, token by token, after a text. length: of the text, None is the run's context; steps: timed."""

    name: ClassVar[str] = "decoding"
    title: ClassVar[str] = "What a token costs"
    lead: ClassVar[str] = (
        "One sequence goes on token by token after a text. State and bytes are counted from the spec; time is measured."
    )
    unit: ClassVar[str] = "milliseconds"

    length: int | None = None
    steps: int = 32

    def validate(self) -> None:
        for name in ("length", "steps"):
            value = getattr(self, name)
            self.require(value is None or value >= 1, f"{name} is {value}; at least 1")

    def check(self, subject: Subject) -> None:
        way_out = "decoding:length=COUNT,steps=COUNT asks for fewer"
        check_reach(subject, self.name, self.tokens(subject), way_out)

    def tokens(self, subject: Subject) -> int:
        return self._length(subject) + _WARMING + self.steps

    def measure(self, run: Run, subject: Subject, work: Work) -> Figures:
        length = self._length(subject)
        state, read = step_bytes(run.model, length)
        return {
            "length": length,
            "state_bytes": state,
            "read_bytes": read,
            "milliseconds": _median(_seconds(run.model, length, self.steps)),
            "threads": torch.get_num_threads(),
            "load": round(os.getloadavg()[0], 1),
        }

    def parts(self, arms: Sequence[Arm]) -> list[Part]:
        rows = [
            [
                arm.label,
                f"{arm.figures['length']:,}",
                byte_count(arm.figures["state_bytes"]),
                byte_count(arm.figures["read_bytes"]),
                spelled(arm.figures["milliseconds"], 2),
                str(len(arm.seeds)),
            ]
            for arm in arms
        ]
        columns = ("arm", "after tokens", "state", "bytes a token reads", "ms a token", "seeds")
        note = (
            "Median time of a step with a reserved state, one run after the other: `windtunnel bench "
            "decode` times architectures in turns, with larger batches. Bytes: weights and state, each once."
        )
        return [Table(caption=self.title, columns=columns, rows=rows, numeric=range(1, 6), note=note)]

    def _length(self, subject: Subject) -> int:
        return self.length or subject.context


@torch.inference_mode()
def _seconds(model: ModelLayer, length: int, steps: int) -> list[float]:
    """Of each step after a text of so many tokens; what the tokens say changes nothing."""
    batch = Batch(model, 1, length + _WARMING + steps, _CHUNK)
    for start in range(0, length, _CHUNK):
        batch.feed(0, [[0] * min(_CHUNK, length - start)])
    found = []
    for _ in range(_WARMING + steps):
        began = time.perf_counter()
        batch.feed(0, [[0]]).argmax().item()  # a number in hand is what ends the step on an accelerator
        found.append(time.perf_counter() - began)
    return found[_WARMING:]


def _median(seconds: Sequence[float]) -> Figures:
    """The median in milliseconds; its interval from order statistics, which asks nothing of how times spread."""
    ordered = 1e3 * np.sort(seconds)
    count = len(ordered)
    low, high = (int(stats.binom.ppf(share, count, 0.5)) for share in (0.025, 0.975))
    ends = {"low": float(ordered[low - 1]), "high": float(ordered[high])} if low else {"low": None, "high": None}
    return {"value": float(np.median(ordered)), **ends, "n": count, "over": "steps"}
