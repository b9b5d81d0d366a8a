"""The tool tries itself: the self-tests of the comparison on the user's own machine."""

from windtunnel.selftest.check import Check, Lab, Outcome
from windtunnel.selftest.checks import CHECKS
from windtunnel.selftest.runner import chosen, run, table

__all__ = ["CHECKS", "Check", "Lab", "Outcome", "chosen", "run", "table"]
