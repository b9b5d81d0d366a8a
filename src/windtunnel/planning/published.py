"""Published cases that the planner is held to: what a paper prints, and what its own inputs give by the formula."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from windtunnel.planning.hardware import TABLE
from windtunnel.planning.utilisation import Shape, utilisation

_PALM = "PaLM, arXiv 2204.02311, section 4.1 and appendix B"


class Case(NamedTuple):
    """One figure. agrees: within 0.1 points of a utilisation, 1.1 % of PaLM's other figures, 3 % of a rumour's."""

    name: str
    published: float
    computed: float
    unit: str
    agrees: bool
    source: str
    note: str

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return self._asdict()


@dataclass(frozen=True, kw_only=True)
class Run:
    """A published training run by its printed inputs. tokens_per_second: of all devices, observed."""

    name: str
    shape: Shape
    hardware: str
    devices: int
    tokens_per_second: float
    recomputed: float = 0.0

    def used(self, attention: bool = True, recomputed: bool = False) -> float:
        """MFU in percent, without attention if asked; or HFU."""
        flops = self.shape.flops(self.recomputed if recomputed else 0.0, attention)
        return 100 * utilisation(flops, self.tokens_per_second, self.devices, TABLE[self.hardware].peak("bfloat16"))


PALM = Run(
    name="PaLM 540B",
    shape=Shape(540.35e9, 118, 48, 256, 2048),
    hardware="tpu-v4",
    devices=6144,
    tokens_per_second=238.3e3,
    recomputed=0.75,
)
MT_NLG = Run(
    name="MT-NLG 530B",
    shape=Shape(530e9, 105, 128, 160, 2048),
    hardware="a100",
    devices=2240,
    tokens_per_second=1920 * 2048 / 60.1,
)
GOPHER = Run(
    name="Gopher 280B",
    shape=Shape(280e9, 80, 128, 128, 2048),
    hardware="tpu-v3",
    devices=4096,
    tokens_per_second=0.0152 * 3072 * 2048,
)
GPT3 = Run(
    name="GPT-3 175B",
    shape=Shape(175e9, 96, 96, 128, 2048),
    hardware="v100",
    devices=1,
    tokens_per_second=24.6e12 / (6 * 175e9),
)


def cases() -> list[Case]:
    """Utilisation of four runs, PaLM's traffic and operations, and the sums of GPT-4's rumour."""
    return [*_utilisations(), *_palm(), *_rumour()]


def _utilisations() -> list[Case]:
    rows = [
        (PALM, "MFU without attention", 45.7, PALM.used(attention=False), "238.3k tokens a second"),
        (PALM, "MFU", 46.2, PALM.used(), "238.3k tokens a second"),
        (PALM, "HFU", 57.8, PALM.used(recomputed=True), "75 % of the forward pass without attention runs twice"),
        (MT_NLG, "MFU without attention", 29.7, MT_NLG.used(attention=False), "1,920 sequences in 60.1 s"),
        (MT_NLG, "MFU", 30.2, MT_NLG.used(), "1,920 sequences in 60.1 s; cut off where it is printed"),
        (GOPHER, "MFU", 32.5, GOPHER.used(), "0.0152 steps a second of 3,072 sequences"),
        (GPT3, "MFU", 21.3, GPT3.used(), "24.6 TFLOP/s a V100 do not give it: the printed inputs are not enough"),
    ]
    return [
        Case(f"{run.name}: {what}", printed, computed, "%", abs(computed - printed) < 0.1, _PALM, note)
        for run, what, printed, computed, note in rows
    ]


def _palm() -> list[Case]:
    """One gradient of two bytes for each parameter goes from each pod's 768 hosts to the other's."""
    pair = PALM.shape.parameters * 2 / 768
    step = 2048 * 2048
    rows = [
        ("gradients between a pair of hosts", 1.3, pair / 2**30, "GiB a step", "bfloat16; 1.41 GB, printed as 1.3 GB"),
        ("operations of training", 3.28, PALM.shape.flops() / 1e12, "TFLOP a token", "6 N + 12 L H Q T"),
        ("operations with recomputation", 4.10, PALM.shape.flops(0.75) / 1e12, "TFLOP a token", "three quarters again"),
        ("seconds of a step", 17.6, step / PALM.tokens_per_second, "s", "2,048 sequences at 238.3k tokens a second"),
        ("all training", 2.56, PALM.shape.flops() * 780e9 / 1e24, "10^24 FLOP", "780 billion tokens"),
    ]
    return [
        Case(f"PaLM 540B: {what}", printed, computed, unit, abs(computed / printed - 1) < 0.011, _PALM, note)
        for what, printed, computed, unit, note in rows
    ]


def _rumour() -> list[Case]:
    """An unconfirmed report; where its own numbers contradict each other, `agrees` or the note says so."""
    source = "SemiAnalysis, July 2023: unconfirmed"
    total, active = 16 * 111e9 + 55e9, 2 * 111e9 + 55e9
    a100 = TABLE["a100"].peak("bfloat16")
    days = 2.15e25 / (25_000 * a100 * 0.34) / 86_400
    rows: list[tuple[str, float, float, str, str]] = [
        ("parameters", 1.8, total / 1e12, "T", "16 experts of 111B, 55B shared"),
        ("parameters of a token", 280, active / 1e9, "B", "two experts and what is shared"),
        ("training", 2.15, 6 * 280e9 * 13e12 / 1e25, "10^25 FLOP", "6 x 280B x 13T tokens"),
        ("days of training", 95, days, "days", "25,000 A100 at 34 % MFU; 90 to 100 days at 32 to 36 % reported"),
        ("tokens of an expert in training", 7.5, 60 * 2 / 16, "M", "batches of 60M tokens"),
        ("tokens of an expert in serving", 500, 4096 * 2 / 16, "", "batches of 4k and more"),
        ("weights on a GPU", 30, total * 2 / 120 / 1e9, "GB", "8 x 15 GPUs; less than 30 is said, and elsewhere 32.5"),
        ("operations of a token", 560, 2 * 280e9 / 1e12, "TFLOP", "1,000 times too large in the report"),
        ("operations of a dense token", 3700, 2 * total / 1e12, "TFLOP", "1,000 times too large in the report"),
    ]
    return [
        Case(f"GPT-4, rumoured: {what}", printed, computed, unit, abs(computed / printed - 1) < 0.03, source, note)
        for what, printed, computed, unit, note in rows
    ]
