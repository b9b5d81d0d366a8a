"""What the description at /openapi.json allows, and much that it does not: answered as described, never with 500."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

from tests.serving.conftest import Live, quiet, serving
from windtunnel.inference.engine import EngineSettings
from windtunnel.serving.served import Limits

SAID = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    schemathesis.checks.not_a_server_error,
]
OPERATIONS = {
    ("POST", "/v1/completions"),
    ("POST", "/v1/chat/completions"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{name}"),
    ("GET", "/health"),
    ("GET", "/metrics"),
}


@pytest.fixture(scope="module")
def small() -> Any:
    with serving(settings=EngineSettings(slots=4), limits=Limits(tokens=4)) as made:
        yield made


# The server is in this process: where a library of its draws from `random`, hypothesis takes that for a strategy.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning")
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["good", "bad"])
@pytest.mark.parametrize("count", [15, pytest.param(400, marks=pytest.mark.slow)])
def test_answers_are_as_described(small: Live, mode: GenerationMode, count: int) -> None:
    schema = schemathesis.openapi.from_url(f"{small.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert {(each.method.upper(), each.path) for each in operations} == OPERATIONS
    statuses: set[int] = set()
    for operation in operations:
        if operation.method == "get" and (mode == GenerationMode.NEGATIVE or operation.path != "/v1/models/{name}"):
            continue

        @settings(max_examples=count, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def answered(case: Any) -> None:
            statuses.add(case.call_and_validate(checks=SAID, timeout=60).status_code)

        answered()
    assert 200 in statuses if mode == GenerationMode.POSITIVE else statuses <= {400, 404, 413, 415}
    quiet(small)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/llama", "/health", "/metrics"])
def test_readings_are_as_described(small: Live, path: str) -> None:
    schema = schemathesis.openapi.from_url(f"{small.url}/openapi.json")
    operation = schema[path.replace("/llama", "/{name}")]["GET"]
    case = operation.Case(path_parameters={"name": "llama"} if "llama" in path else {})
    assert case.call_and_validate(checks=SAID[:3]).status_code == 200
