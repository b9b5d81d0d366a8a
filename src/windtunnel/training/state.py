"""What a checkpoint remembers of a run besides tensors."""

from dataclasses import dataclass, field
from typing import Any

from windtunnel.training.spikes import Detector
from windtunnel.training.watch import Watch


@dataclass
class State:
    """What a checkpoint remembers besides tensors.

    seconds: training time of the line that leads here, the trunk and at most one branch; branch_seconds: that of
    branches already left; data_seconds: what of both the steps waited for their batches. horizons: their results.
    skips: (step, sequences) passed over after a spike on this line; rewinds: an account of every time the run went
    back. planned_skips: the settings' skips. trunk: inside a branch, what the trunk goes on with. probes: scores on the
    way.
    """

    segment: int = 0
    step: int = 0
    seconds: float = 0.0
    branch_seconds: float = 0.0
    data_seconds: float = 0.0
    metrics_bytes: int = 0
    watch: Watch = field(default_factory=Watch)
    detector: Detector = field(default_factory=Detector)
    skips: list[tuple[int, int]] = field(default_factory=list)
    rewinds: list[dict[str, Any]] = field(default_factory=list)
    planned_skips: list[tuple[int, ...]] = field(default_factory=list)
    trunk: dict[str, Any] | None = None
    probes: list[dict[str, Any]] = field(default_factory=list)
    horizons: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data that no later step changes."""
        return {
            **vars(self),
            "watch": self.watch.to_json(),
            "detector": self.detector.to_json(),
            "skips": list(self.skips),
            "rewinds": list(self.rewinds),
            "probes": list(self.probes),
            "horizons": dict(self.horizons),
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "State":
        parts = {
            "watch": Watch(**record["watch"]),
            "detector": Detector(**record.get("detector", {})),
            "skips": [(step, sequences) for step, sequences in record.get("skips", [])],
        }
        return cls(**{**record, **parts})

    def leave_trunk(self, seconds: float) -> None:
        """Remember what the trunk goes on with."""
        self.trunk = {"seconds": seconds, "skips": list(self.skips), "detector": self.detector.to_json()}

    def rejoin_trunk(self, step: int, seconds: float) -> float:
        """Go on where the trunk was left, after a branch that ended at `seconds`; returns the trunk's seconds."""
        assert self.trunk is not None
        trunk, self.trunk = self.trunk, None
        self.step, self.skips, self.detector = step, trunk["skips"], Detector(**trunk["detector"])
        self.branch_seconds += seconds - trunk["seconds"]
        return float(trunk["seconds"])
