"""Fits over many sizes and budgets: L(N, D), L(C) of the best sizes, and the compute that one arm saves another."""

from windtunnel.comparison.scaling.envelope import Envelope, fit_envelope
from windtunnel.comparison.scaling.loss_law import LossLaw, fit_loss_law
from windtunnel.comparison.scaling.multiplier import Multiplier, fit_multiplier
from windtunnel.comparison.scaling.reading import Source, read_sources
from windtunnel.comparison.scaling.runs import Runs, ladder
from windtunnel.comparison.scaling.summary import fit_arms

__all__ = [
    "Envelope",
    "LossLaw",
    "Multiplier",
    "Runs",
    "Source",
    "fit_arms",
    "fit_envelope",
    "fit_loss_law",
    "fit_multiplier",
    "ladder",
    "read_sources",
]
