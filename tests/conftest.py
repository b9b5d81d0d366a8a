"""One thread, one seed, and shapes checked: jaxtyping's annotations are enforced on the modelling rooms."""

import dataclasses
import os
from types import SimpleNamespace

os.environ.setdefault("OMP_NUM_THREADS", "1")

import jaxtyping._decorator

# Before anything imports windtunnel, in every worker of pytest-xdist too: each loads this file first.
CHECKED = [f"windtunnel.{room}" for room in ("model", "mixers", "mlps", "residuals", "norms", "positions")]
jaxtyping.install_import_hook(CHECKED, "beartype.beartype")

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from windtunnel.spec import Spec  # noqa: E402

# Specs coerce and check their own fields; the hook would refuse what they are about to coerce.
jaxtyping._decorator.dataclasses = SimpleNamespace(  # type: ignore[attr-defined]
    is_dataclass=lambda kind: dataclasses.is_dataclass(kind) and not issubclass(kind, Spec)
)

torch.set_num_threads(1)

settings.register_profile("windtunnel", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("windtunnel"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "windtunnel")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random state, whatever ran before it."""
    torch.manual_seed(0)
