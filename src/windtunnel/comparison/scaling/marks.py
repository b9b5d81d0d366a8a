"""Axes that the charts of fits and ladders share."""

from windtunnel.report import Axis, figures


def flops(value: float) -> str:
    """`2.6e20`: budgets soon leave the letters behind."""
    return f"{value:.2g}".replace("e+", "e")


LOSS = Axis(title="held-out loss (nats a token)", form=figures.fixed)
COMPUTE = Axis(title="training FLOPs (log scale)", log=True, form=flops)
