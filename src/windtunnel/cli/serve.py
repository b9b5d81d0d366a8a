"""`windtunnel serve`: runs over HTTP, and a page that shows them side by side."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from windtunnel.cli.options import CacheType, Compile, Device, Json, Packages, count
from windtunnel.cli.screen import Screen, facts, write_json
from windtunnel.errors import InputError

if TYPE_CHECKING:
    from windtunnel.inference.engine import EngineSettings
    from windtunnel.inference.generate import Drafting
    from windtunnel.serving.served import Served

_EXAMPLE = """Examples:

windtunnel serve runs/palm runs/griffin

windtunnel serve big=runs/palm --draft runs/small --port 9000 --host 0.0.0.0 --api-key-file keys.txt

Then open http://127.0.0.1:8000, or point an OpenAI client at http://127.0.0.1:8000/v1. Ctrl-C and SIGTERM let what
runs end first. A key can also stand in the environment variable WINDTUNNEL_API_KEY.
"""
_KEY = "WINDTUNNEL_API_KEY"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("serve", epilog=_EXAMPLE)(run)


def run(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Folders of runs, or NAME=FOLDER.")],
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 is every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    slots: Annotated[
        int, typer.Option(metavar="COUNT", parser=count, help="Texts of a run that are decoded together.")
    ] = 16,
    queue: Annotated[
        int, typer.Option(metavar="COUNT", parser=count, help="Texts of a run that may wait; more are refused: 429.")
    ] = 256,
    context: Annotated[
        int | None, typer.Option(metavar="COUNT", parser=count, help="Tokens a text may have; else the model's own.")
    ] = None,
    at_limit: Annotated[
        str, typer.Option(help="Where the context is full: stop, or slide (go on from the newer half).")
    ] = "stop",
    draft: Annotated[
        str | None,
        typer.Option(metavar="RUN|lookup", help="Speculate: a smaller run drafts, or the text itself (lookup)."),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option(metavar="COUNT", parser=count, help="New tokens that one text may ask for.")
    ] = 4096,
    timeout: Annotated[float, typer.Option(help="Seconds that one request may take.")] = 600.0,
    grace: Annotated[float, typer.Option(help="Seconds for running requests after Ctrl-C or SIGTERM.")] = 30.0,
    api_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="API keys, one a line; without keys everybody is let in.")
    ] = None,
    device: Device = "auto",
    compiled: Compile = False,
    cache_dtype: CacheType = None,
    packages: Packages = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Serve runs over HTTP in OpenAI's format, with a page that shows them side by side."""
    keys = _keys(api_key_file)
    if at_limit not in ("stop", "slide"):
        raise InputError(f"--at-limit: expected stop or slide, got {at_limit!r}")
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError(f"serve needs {error.name}: pip install 'windtunnel[serve]'") from error
    from windtunnel.inference.engine import EngineSettings
    from windtunnel.serving.app import application
    from windtunnel.serving.listen import address, open_socket, serve
    from windtunnel.serving.served import Limits

    settings = EngineSettings(
        slots=slots,
        queue=queue,
        context=context,
        at_limit=at_limit,  # type: ignore[arg-type]
        compiled=compiled,
        cache_dtype=cache_dtype,  # type: ignore[arg-type]
    )
    limits = Limits(tokens=max_tokens, seconds=timeout)
    served = _open_runs(runs, settings, draft, device, tuple(packages))
    listening = open_socket(host, port)
    local = host in ("127.0.0.1", "localhost", "::1")
    app = application(served, limits, keys, local)
    url = address(listening)
    record = {"url": url, "models": [each.name for each in served], "keys": len(keys)}
    lines = {"page": url, "OpenAI": f"{url}/v1", "models": ", ".join(map(_described, served))}
    if not local and not keys:
        lines["open"] = f"everybody who reaches {host} may use it; --api-key-file FILE or {_KEY} changes that"

    def ready() -> None:
        if as_json:
            write_json(record)
        else:
            Screen(as_json).say(facts(lines))

    serve(app, listening, grace, ready)


def _keys(file: Path | None) -> list[str]:
    """Keys from the environment and from a file, where lines that begin with # are remarks."""
    try:
        lines = [] if file is None else file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--api-key-file {file}: cannot be read: {error}") from error
    keys = [key for line in lines if (key := line.strip()) and not key.startswith("#")]
    if file is not None and not keys:
        raise InputError(f"--api-key-file {file}: holds no key")
    own = os.environ.get(_KEY, "").strip()
    return [*keys, *([own] if own else [])]


def _open_runs(
    runs: list[str], settings: "EngineSettings", draft: str | None, device: str, packages: tuple[str, ...]
) -> "list[Served]":
    import torch

    from windtunnel.execution import Execution
    from windtunnel.runs import load
    from windtunnel.serving.served import serve_run

    place = Execution(device=device).resolve().device
    drafter: Drafting = None
    if draft is not None:
        drafter = "lookup" if draft == "lookup" else load(draft, device=place, packages=packages)
    threads = max(1, torch.get_num_threads() // len(runs))
    served: dict[str, Any] = {}
    for text in runs:
        name, folder = _named(text)
        if name in served:
            raise InputError(f"{text}: {name!r} is served already; give it another name: NAME={folder}")
        opened = load(folder, device=place, packages=packages)
        served[name] = serve_run(name, opened, settings, drafter, threads, _say)
    return list(served.values())


def _named(text: str) -> tuple[str, str]:
    """NAME=FOLDER, or a folder whose last part is the name."""
    name, equals, folder = text.partition("=")
    if equals and not Path(text).exists():
        if not name or not folder or "/" in name:
            raise InputError(f"{text!r} is neither a run's folder nor NAME=FOLDER")
        return name, folder
    return Path(text).resolve().name, text


def _described(served: "Served") -> str:
    limit = served.worker.engine.limit
    return f"{served.name} ({served.parameters:,} parameters, {'any length' if limit is None else f'context {limit}'})"


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
