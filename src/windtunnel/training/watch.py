"""Whether a run still learns. The judgement depends on the losses alone, so a resumed run comes to the same one."""

import math
from dataclasses import dataclass, field
from typing import Any

WINDOW = 16  # steps between judgements
NONFINITE_LIMIT = 3
RISE_LIMIT = 5.0  # nats above the initial loss


@dataclass
class Watch:
    """Losses since the last judgement, and what must be remembered of the earlier ones.

    initial: loss of the first step, before any update. nonfinite: steps whose loss or gradient norm was not finite.
    """

    initial: float | None = None
    nonfinite: int = 0
    window: list[float | None] = field(default_factory=list)

    def observe(self, step: int, loss: float, norm: float) -> None:
        """Take note of step 1, 2, ..."""
        finite = math.isfinite(loss)
        if step == 1:
            self.initial = loss if finite else None
        self.nonfinite += not (finite and math.isfinite(norm))
        self.window.append(loss if finite else None)

    def judge(self) -> bool:
        """Whether the run has diverged (protocol 6.5); begins a new window."""
        losses = [loss for loss in self.window if loss is not None]
        self.window = []
        high = self.initial is not None and bool(losses) and sum(losses) / len(losses) > self.initial + RISE_LIMIT
        return high or self.nonfinite >= NONFINITE_LIMIT

    def to_json(self) -> dict[str, Any]:
        return {"initial": self.initial, "nonfinite": self.nonfinite, "window": list(self.window)}
