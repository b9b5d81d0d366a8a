"""A server over time: nothing is left behind, what fails is said and does not stay, the figures are right."""

import asyncio
import gc
import re
import resource
import threading
from collections import Counter
from typing import Any

import httpx
import pytest

from tests.serving.conftest import Live, endless, quiet, serving
from windtunnel.inference.engine import EngineSettings
from windtunnel.serving.served import Served

BODY: dict[str, Any] = {"model": "llama", "prompt": "lift", "max_tokens": 3}


async def many(url: str, count: int, beside: int) -> list[int]:
    """Short requests, some of them streams, some of which are left after their first piece; some are refused."""
    places = asyncio.Semaphore(beside)
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:

        async def one(number: int) -> int:
            async with places:
                if number % 7 == 5:
                    bad = {"temperature": 0, "top_k": 3} if number % 2 else {"prompt": "x" * 500}
                    return (await client.post("/v1/completions", json={**BODY, **bad})).status_code
                if number % 3 == 0:
                    return (await client.post("/v1/completions", json={**BODY, "seed": number})).status_code
                async with client.stream("POST", "/v1/completions", json={**BODY, "stream": True}) as response:
                    async for _ in response.aiter_lines():
                        if number % 3 == 1:
                            break
                    return response.status_code

        return await asyncio.gather(*(one(number) for number in range(count)))


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_many_short_requests_leave_nothing_behind(count: int) -> None:
    with serving(settings=EngineSettings(slots=8, queue=64)) as live:
        worker = live.served["llama"].worker
        assert set(asyncio.run(many(live.url, 60, beside=16))) == {200, 400}
        quiet(live)
        threads = threading.active_count()
        gc.collect()
        things, memory = len(gc.get_objects()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        statuses = asyncio.run(many(live.url, count, beside=16))
        refused = sum(number % 7 == 5 for number in range(count))
        assert Counter(statuses) == {200: count - refused, 400: refused}
        quiet(live)
        gc.collect()
        assert (worker.engine.running, worker.engine.waiting, worker.jobs) == (0, 0, {})
        assert threading.active_count() <= threads
        assert len(gc.get_objects()) - things < 2000 + count // 20
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 40_000 + count  # KiB
        assert not any(rows := live.served["llama"].worker.engine.batch._marks), rows


def test_metrics(live: Live) -> None:
    before = readings(live)
    live.complete(max_tokens=7, temperature=0)
    live.post("/v1/completions", prompt="x" * 200)
    quiet(live)
    after = readings(live)

    def grown(name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    assert grown('windtunnel_requests_total{model="llama",endpoint="completions",outcome="ok"}') == 1
    assert grown('windtunnel_tokens_total{model="llama",kind="prompt"}') == 5
    assert grown('windtunnel_tokens_total{model="llama",kind="generated"}') == 7
    assert grown('windtunnel_first_token_seconds_count{model="llama"}') == 1
    assert grown('windtunnel_request_seconds_bucket{model="llama",le="+Inf"}') == 1
    assert after['windtunnel_queue{model="llama"}'] == after['windtunnel_running{model="griffin"}'] == 0
    assert after['windtunnel_state_bytes{model="llama",kind="used"}'] == 0
    assert after['windtunnel_state_bytes{model="llama",kind="reserved"}'] > 0


def readings(live: Live) -> dict[str, float]:
    """The metrics by series; every line has the format, every series its type, histograms only grow."""
    response = live.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    found: dict[str, float] = {}
    types: set[str] = set()
    for line in response.text.splitlines():
        if line.startswith("#"):
            assert re.fullmatch(r"# (HELP|TYPE) [a-z_]+ .+", line)
            types.add(line.split()[2])
            continue
        match = re.fullmatch(r'([a-z_]+)\{([a-z]+="[^"]*",?)+\} ([0-9.e+-]+)', line)
        assert match is not None, line
        assert match[1] in types or re.sub("_(bucket|sum|count)$", "", match[1]) in types
        found[line.rpartition(" ")[0]] = float(match[3])
    buckets = [
        value for name, value in found.items() if name.startswith('windtunnel_request_seconds_bucket{model="llama"')
    ]
    assert buckets == sorted(buckets)
    return found


def test_streams_say_how_large_the_state_is(live: Live) -> None:
    sizes: dict[str, list[int]] = {}
    for model in ("llama", "griffin"):
        options = {"include_state": True}
        text = live.post(
            "/v1/completions", model=model, prompt="x" * 60, max_tokens=20, seed=2, stream=True, stream_options=options
        ).text
        sizes[model] = [int(size) for size in re.findall(r'"state_bytes":(\d+)', text)]
        layer = live.served[model].run.model
        assert sizes[model] == [layer.state_bytes(61 + k + 1) for k in range(len(sizes[model]))]
    assert sizes["llama"][-1] > sizes["llama"][0]


def test_a_text_that_slid_is_as_large_as_what_is_left_of_it() -> None:
    with serving(settings=EngineSettings(at_limit="slide", chunk=8), context=16, change=endless) as live:
        body = {"prompt": "x" * 11, "max_tokens": 20, "stream": True, "stream_options": {"include_state": True}}
        text = live.post("/v1/completions", **body).text
        layer = live.served["llama"].run.model
        lengths = [*range(13, 18), *range(9, 18), *range(9, 15)]  # a token beyond 16 is read after sliding to 8
        assert [int(size) for size in re.findall(r'"state_bytes":(\d+)', text)] == [
            layer.state_bytes(n) for n in lengths
        ]


def test_health_and_headers(live: Live) -> None:
    response = live.client.get("/health")
    assert response.json() == {"status": "ok", "models": {"llama": "ok", "griffin": "ok"}}
    for path in ("/", "/v1/models", "/nothing"):
        headers = live.client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


def test_an_engine_that_fails_is_started_again() -> None:
    def breaking(served: Served) -> None:
        real, state = served.worker.engine.step, {"left": 3}

        def step() -> Any:
            state["left"] -= 1
            if state["left"] < 0:
                raise ZeroDivisionError("secret inside")
            return real()

        served.worker.engine.step = step  # type: ignore[method-assign]

    with serving(change=breaking) as live:
        response = live.post("/v1/completions", prompt="x", max_tokens=50)
        assert response.status_code == 500
        assert response.json()["error"]["code"] == "engine_error"
        assert "secret" not in response.text
        assert live.complete()["usage"]["completion_tokens"] == 8
        assert 'windtunnel_engine_failures_total{model="llama"} 1' in live.client.get("/metrics").text
        assert live.client.get("/health").status_code == 200


def test_two_runs_work_at_once(live: Live) -> None:
    async def both() -> list[Any]:
        async with httpx.AsyncClient(base_url=live.url, timeout=60) as client:
            asked = [
                client.post("/v1/completions", json={**BODY, "model": model, "max_tokens": 30, "seed": seed})
                for seed in range(6)
                for model in ("llama", "griffin")
            ]
            return [(await each).json() for each in asyncio.as_completed(asked)]

    together = {(each["model"], each["choices"][0]["text"]) for each in asyncio.run(both())}
    one_by_one = {
        (model, live.complete(model=model, max_tokens=30, seed=seed)["choices"][0]["text"])
        for seed in range(6)
        for model in ("llama", "griffin")
    }
    assert together == one_by_one
