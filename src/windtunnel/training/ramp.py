"""A batch size that grows with the steps (PaLM section 5: 512, then 1024, then 2048 sequences)."""

from itertools import pairwise
from typing import NamedTuple

Shares = tuple[tuple[float, ...], ...]


class Stage(NamedTuple):
    """Steps `start` to `stop` of `batch_size` sequences each; `before` sequences came earlier."""

    start: int
    stop: int
    batch_size: int
    before: int

    def at(self, step: int) -> int:
        """Sequences trained on before this step of the stage."""
        return self.before + (step - self.start) * self.batch_size


def mean_share(ramp: Shares) -> float:
    """The mean batch size of a run as a share of the full one."""
    ends = [0.0, *(until for _, until in ramp), 1.0]
    shares = [*(share for share, _ in ramp), 1.0]
    return sum(share * (stop - start) for share, (start, stop) in zip(shares, pairwise(ends), strict=True))


def stages(batch_size: int, ramp: Shares, steps: int) -> tuple[Stage, ...]:
    """The run's steps cut where the batch size changes; the last stage has the full size."""
    ends = [0, *(round(until * steps) for _, until in ramp), steps]
    sizes = [*(round(share * batch_size) for share, _ in ramp), batch_size]
    cut: list[Stage] = []
    before = 0
    for size, (start, stop) in zip(sizes, pairwise(ends), strict=True):
        cut.append(Stage(start, stop, size, before))
        before += (stop - start) * size
    return tuple(cut)


def stage_at(cut: tuple[Stage, ...], step: int) -> Stage:
    """The stage that a step belongs to; steps beyond the last go on as it ended."""
    return next((stage for stage in cut if step < stage.stop), cut[-1])


def step_at(cut: tuple[Stage, ...], share: float) -> int:
    """The number of steps after which a run has seen about this share of its sequences."""
    wanted = share * cut[-1].at(cut[-1].stop)
    stage = next((stage for stage in cut if wanted <= stage.at(stage.stop)), cut[-1])
    return stage.start + round((wanted - stage.before) / stage.batch_size)


def fault(batch_size: int, ramp: Shares, rows: int) -> str | None:
    """What is wrong with a ramp, if anything; `rows` is the size of a micro-batch."""
    if any(len(stage) != 2 for stage in ramp):
        return "pairs of (share of batch_size, share of the steps until which it holds)"
    ends = [until for _, until in ramp]
    if ends != sorted(set(ends)) or any(not 0 < until < 1 for until in ends):
        return "stages that end at rising shares of the steps, between 0 and 1"
    for share, _ in ramp:
        size = round(share * batch_size)
        if not 0 < share < 1 or size < 1 or abs(size - share * batch_size) > 1e-6 * batch_size:
            return f"shares below 1 that make whole sequences of batch_size={batch_size}"
        if size % min(size, rows):
            return f"batches that are multiples of the micro-batch of {rows} sequences, or smaller; {size} is neither"
    return None
