"""What the server adds to a step: streams over HTTP from a process of its own, against the engine called directly.

A step gives every stream its next token. The server's overhead is the time between two tokens of a stream over HTTP
less the same from the engine alone: milliseconds a step, and divided by the streams, milliseconds a token that comes
out. The same run, requests and threads. The clients are sockets in this process, which share the machine with the
server, so their work counts as the server's.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from windtunnel.bench.contestants import settings
from windtunnel.bench.shape import Shape as Model
from windtunnel.bench.spread import Ratio
from windtunnel.bench.turns import Say, compared, take_turns
from windtunnel.data.corpus import read_corpus
from windtunnel.data.shards import prepare
from windtunnel.errors import WorkError
from windtunnel.execution import Execution
from windtunnel.inference.engine import Engine, EngineSettings
from windtunnel.inference.request import Request
from windtunnel.inference.sampling import Sampling
from windtunnel.report.tables import Table
from windtunnel.runs import Run, load
from windtunnel.training.run import train

_PROMPT = "The wind tunnel "
_SERVE = "from windtunnel.cli import main; main()"


@dataclasses.dataclass(frozen=True)
class Shape:
    """Streams at once, and new tokens of each; the model's sizes."""

    streams: int = 16
    tokens: int = 128
    layers: int = 6
    width: int = 256
    vocab: int = 1024
    context: int = 256


def run(rounds: int, threads: int, say: Say, shape: Shape = Shape()) -> dict[str, Any]:
    """Seconds of all streams together, in turns, and the milliseconds that a step takes longer over HTTP."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with tempfile.TemporaryDirectory() as folder:
            say("training one step, for a run to serve")
            path = _trained(shape, Path(folder) / "run", threads)
            with _server(path, shape, threads) as url:
                counts: dict[str, int] = {}
                seconds = take_turns(_contestants(load(path), url, shape, counts), rounds, say)
    finally:
        torch.set_num_threads(before)
    return {
        "benchmark": "serve",
        "versions": {"torch": torch.__version__},
        "settings": {"shape": dataclasses.asdict(shape), "rounds": rounds, "threads": threads},
        "tokens": counts,
        "contestants": compared(seconds, "engine"),
        "added_milliseconds": [
            1e3 * (over_http - alone) * shape.streams / counts["engine"]
            for over_http, alone in zip(seconds["server"], seconds["engine"], strict=True)
        ],
    }


def table(result: dict[str, Any]) -> Table:
    """Both contestants, with the time between two tokens of one stream."""
    shape, tokens = Shape(**result["settings"]["shape"]), result["tokens"]
    added = sorted(result["added_milliseconds"])
    middle = statistics.median(added)
    rows = [
        (
            each["label"],
            f"{tokens[each['label']] / each['median_seconds']:,.0f}",
            f"{1e3 * each['median_seconds'] * shape.streams / tokens[each['label']]:.2f}",
            str(Ratio(**each["ratio"])),
        )
        for each in result["contestants"]
    ]
    return Table(
        caption=f"{shape.streams} streams of {shape.tokens} tokens, {shape.layers} layers x {shape.width}",
        columns=("contestant", "tokens/s", "ms between a stream's tokens", "time over the engine's [95 %]"),
        rows=rows,
        numeric=(1, 2, 3),
        note=f"A step takes {middle:.2f} ms longer over HTTP ({added[0]:.2f} to {added[-1]:.2f} in {len(added)} "
        f"rounds), which is {middle / shape.streams:.2f} ms for each token, the clients' work included.",
    )


def _trained(shape: Shape, folder: Path, threads: int) -> Path:
    sizes = Model(layers=shape.layers, width=shape.width, vocab=shape.vocab, context=shape.context, batch_size=1)
    dataset = prepare(read_corpus(None), shape.vocab, shape.context)
    execution = Execution(device="cpu", threads=threads)
    train(sizes.spec(), settings(sizes, sizes.step_tokens), dataset, folder, execution, events=False)
    return folder


@contextlib.contextmanager
def _server(run_folder: Path, shape: Shape, threads: int) -> Iterator[str]:
    """`windtunnel serve` in a process of its own; gives its address."""
    asked = ["serve", f"run={run_folder}", "--port", "0", "--slots", str(shape.streams), "--device", "cpu", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-c", _SERVE, *asked]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        try:
            yield _address(process)
        finally:
            process.terminate()


def _address(process: "subprocess.Popen[str]") -> str:
    """Where the server listens, once it does."""
    said = ""
    for line in process.stdout or ():
        said += line
        if line.startswith("}"):
            return str(json.loads(said)["url"])
    raise WorkError("windtunnel serve ended before it listened; its message is above")


def _contestants(run: Run, url: str, shape: Shape, counts: dict[str, int]) -> dict[str, Callable[[], object]]:
    engine = Engine(run.model, run.tokenizer, EngineSettings(slots=shape.streams))

    def alone() -> None:
        assert run.tokenizer is not None
        prompt = (run.tokenizer.end_of_text, *run.tokenizer.encode(_PROMPT))
        for seed in range(shape.streams):
            engine.submit(Request(prompt=prompt, tokens=shape.tokens, sampling=Sampling(seed=seed)))
        count = 0
        while engine.busy:
            count += sum(piece.token is not None for piece in engine.step())
        counts["engine"] = count

    def over_http() -> None:
        counts["server"] = sum(asyncio.run(_streams(url, shape)))

    return {"engine": alone, "server": over_http}


async def _streams(url: str, shape: Shape) -> list[int]:
    return await asyncio.gather(*(_stream(url, shape.tokens, seed) for seed in range(shape.streams)))


async def _stream(url: str, tokens: int, seed: int) -> int:
    """Read one stream to its end; the tokens that came."""
    asked = {"model": "run", "prompt": _PROMPT, "max_tokens": tokens, "seed": seed, "stream": True}
    body = json.dumps({**asked, "stream_options": {"include_usage": True}}).encode()
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
    usage = 0
    async for line in reader:
        if line.startswith(b'data: {"'):
            usage = (json.loads(line[6:]).get("usage") or {}).get("completion_tokens", usage)
    writer.close()
    if not usage:
        raise WorkError("a stream ended without saying how many tokens it had")
    return usage
