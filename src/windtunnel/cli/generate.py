"""`windtunnel generate`: text from a trained run, as it comes."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from windtunnel.cli.options import CacheType, Compile, Device, Json, Packages, count
from windtunnel.errors import InputError

_EXAMPLE = """Examples:

windtunnel generate runs/palm --prompt "def "

windtunnel generate runs/palm --file start.py --temperature 0 --draft lookup --stop "def "

windtunnel generate runs/palm < question.txt --samples 4 --top-p 0.9 --json

windtunnel generate runs/palm asks for prompts, one after another.
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("generate", epilog=_EXAMPLE)(run)


def run(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    prompt: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="The text to go on from. Without it: --file, stdin, or what you type."),
    ] = None,
    file: Annotated[Path | None, typer.Option(metavar="PATH", help="A file that holds the prompt.")] = None,
    tokens: Annotated[int, typer.Option(metavar="COUNT", parser=count, help="At most so many new tokens.")] = 128,
    temperature: Annotated[float, typer.Option(help="Logits are divided by it; 0 takes the likeliest token.")] = 1.0,
    top_k: Annotated[
        int | None, typer.Option(metavar="COUNT", parser=count, help="Only so many likeliest tokens.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="The fewest likeliest tokens whose probabilities reach this.")
    ] = None,
    min_p: Annotated[float | None, typer.Option(help="Tokens with at least this share of the largest one.")] = None,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1 makes tokens seen before less likely.")] = 1.0,
    stops: Annotated[
        list[str], typer.Option("--stop", metavar="TEXT", help="Ends the text, left out itself; repeats.")
    ] = [],  # noqa: B006
    seed: Annotated[
        int, typer.Option(metavar="COUNT", parser=count, help="Of the draws; further samples have the next ones.")
    ] = 0,
    draft: Annotated[
        str | None,
        typer.Option(metavar="RUN|lookup", help="A smaller run with the same tokenizer, or copies out of the text."),
    ] = None,
    at_limit: Annotated[
        str, typer.Option(metavar="stop|slide", help="Where the context is full: stop, or forget the older half.")
    ] = "stop",
    logprobs: Annotated[
        int | None,
        typer.Option(metavar="COUNT", help="With --json: nats of each token, and of so many likeliest ones."),
    ] = None,
    samples: Annotated[int, typer.Option(metavar="COUNT", parser=count, help="Texts to draw from the prompt.")] = 1,
    checkpoint: Annotated[
        str | None, typer.Option(metavar="NAME", help="A checkpoint of the run; else its final weights.")
    ] = None,
    device: Device = "auto",
    compiled: Compile = False,
    cache_dtype: CacheType = None,
    packages: Packages = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Go on from a prompt: text on stdout, figures on stderr. On a terminal without a prompt it asks for prompts."""
    if prompt is not None and file is not None:
        raise InputError("--prompt and --file both give a prompt; leave one of them out")
    if samples < 1:
        raise InputError(f"--samples: expected at least 1, got {samples}")
    if samples > 1 and temperature == 0:
        raise InputError(f"--samples: {samples} texts at temperature 0 would all be the same; raise --temperature")
    if logprobs is not None and not as_json:
        raise InputError("--logprobs: are printed with --json only; add it")
    asks = prompt is None and file is None and sys.stdin.isatty()
    if asks and as_json:
        raise InputError("--json: needs a prompt; give --prompt, --file or a text on stdin")
    text = None if asks else prompt if prompt is not None else _read(file)

    from windtunnel.cli.writing import Asked, ask, write
    from windtunnel.execution import Execution
    from windtunnel.inference.sampling import Sampling
    from windtunnel.runs import load

    sampling = Sampling(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
    )
    place, known = Execution(device=device).resolve().device, tuple(packages)
    opened = load(folder, checkpoint, place, known)
    drafter = load(draft, device=place, packages=known) if draft not in (None, "lookup") else draft
    asked = Asked(
        run=opened,
        folder=folder,
        sampling=sampling,
        tokens=tokens,
        stop=tuple(stops),
        samples=samples,
        logprobs=logprobs,
        draft=drafter,  # type: ignore[arg-type]
        at_limit=at_limit,  # type: ignore[arg-type]
        as_json=as_json,
        compiled=compiled,
        cache_dtype=cache_dtype,  # type: ignore[arg-type]
    )
    finished = ask(asked) if text is None else write(asked, text)
    if not finished:
        raise typer.Exit(130)


def _read(file: Path | None) -> bytes:
    """A prompt's bytes, exactly as they are."""
    if file is None:
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"--file: {file}: {error.strerror}") from error
