"""One thread, one seed, and shapes checked: jaxtyping's annotations are enforced on the modelling rooms."""

import dataclasses
import os
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import jaxtyping._decorator

# Before anything imports windtunnel, in every worker of pytest-xdist too: each loads this file first.
CHECKED = [f"windtunnel.{room}" for room in ("model", "mixers", "mlps", "residuals", "norms", "positions")]
jaxtyping.install_import_hook(CHECKED, "beartype.beartype")

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from tests import proof as proofs  # noqa: E402
from windtunnel.recipes import names  # noqa: E402
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


@pytest.fixture
def proof(request: pytest.FixtureRequest) -> proofs.Proof:
    """Note what this test held to something independent, and how far apart they were (tests/proof.py)."""

    def note(subject: str, against: str, /, **differences: float) -> None:
        plain = {name: float(value) for name, value in differences.items()}  # what a worker can send
        record = {"subject": subject, "against": against, "differences": plain}
        request.node.user_properties.append((proofs.PROPERTY, record))

    return note


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-proof", action="store_true", help="write what the tests compared into docs/proof.md")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Only what compares with something independent is run to write the page."""
    if config.getoption("--write-proof"):
        items[:] = [item for item in items if proofs.PROPERTY in getattr(item, "fixturenames", ())]


_RECORDS: list[dict[str, Any]] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed:
        _RECORDS.extend(record for name, record in report.user_properties if name == proofs.PROPERTY)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Only where all went well, and only in the process that sees every report."""
    if session.config.getoption("--write-proof") and exitstatus == 0 and not hasattr(session.config, "workerinput"):
        proofs.PAGE.write_text(proofs.page(proofs.PAGE.read_text(), _RECORDS, names()))
