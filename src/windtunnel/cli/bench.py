"""`windtunnel bench`: speed as ratios against rivals, each figure with its spread."""

import dataclasses
import importlib
import importlib.util
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from windtunnel.cli import decode, lengths
from windtunnel.cli.group import Group
from windtunnel.cli.options import Json, Settings, count
from windtunnel.cli.screen import Screen
from windtunnel.errors import InputError
from windtunnel.spec import nearest
from windtunnel.values import parse_settings

_EXAMPLE = """Examples:

windtunnel bench train

windtunnel bench train --rounds 10 --threads 2 --json > train.json

Takes some minutes, and a machine that does nothing else.
"""

_GENERATE = """Examples:

windtunnel bench generate llama --rounds 10

windtunnel bench generate batching positions --threads 1 --json
"""

# Each is a module of windtunnel.bench with run(rounds, threads, say) -> figures and table(figures) -> Table.
KERNELS: dict[str, str] = {
    "loss": "Cross-entropy at a vocabulary of 256,000: time and peak memory against full logits (needs 14 GB).",
    "mfu": "A training step of a Llama of 124M on a GPU: its share of the peak, beside plain code as nanoGPT's.",
    "saving": "Checkpoints in turn and in the background: how long the training waits.",
    "spikes": "Loss spikes: whether the same data makes one again, read by other states (no timing).",
    "transfer": "Learning-rate sweeps over widths: where the best rate lies, under muP and without it (no timing).",
    "experts": "Dropless experts against a dense MLP of equal active operations, forward and backward.",
    "scan": "The linear recurrence, forward and backward, against the time of moving its bytes.",
    "hawk": "A training step of Hawk against transformers' RecurrentGemma of the same shape.",
    "steps": "Training steps of palm, ngpt and diff_transformer over those of llama, at matched parameters.",
    "linear": "Linear attention against full attention, forward and backward.",
    "window": "Sliding windows against full attention, forward and backward.",
    "serve": "Streams over HTTP against the engine alone: what the server adds to a token.",
    "fsdp": "One model on two processes over gloo against one process with as many threads: training steps.",
    "importing": "Importing a Hugging Face checkpoint against copying its file, fsync included (needs 4 GB of disk).",
    "neo": "GPT-Neo 125M against transformers on equal weights: logits of a text, and greedy text.",
    "patterns": "Sparse patterns against full attention, forward and backward.",
}


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    room = typer.Typer(
        name="bench", cls=Group, help="Measure speed against rivals, in turns, as ratios.", no_args_is_help=True
    )
    room.callback()(_bench)
    room.command("train", epilog=_EXAMPLE)(train)
    room.command("decode", epilog=decode.EXAMPLE)(decode.run)
    room.command("length", epilog=lengths.EXAMPLE)(lengths.run)
    room.command("generate", epilog=_GENERATE)(generate)
    for name, words in KERNELS.items():
        room.command(name, help=words, epilog=f"Example:\n\nwindtunnel bench {name} --rounds 10 --json > {name}.json")(
            _verb(name)
        )
    app.add_typer(room)


def _bench() -> None:
    """Measure speed against rivals, in turns, as ratios."""


def train(
    rounds: Annotated[int, typer.Option(metavar="COUNT", parser=count, help="Turns of every contestant.")] = 6,
    steps: Annotated[int, typer.Option(metavar="COUNT", parser=count, help="Training steps of a turn.")] = 2,
    threads: Annotated[int, typer.Option(metavar="COUNT", parser=count, help="CPU threads of a contestant.")] = 2,
    overhead_steps: Annotated[
        int,
        typer.Option(metavar="COUNT", parser=count, help="Steps that show the loop's own share; 0: none."),
    ] = 30,
    settings: Settings = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Training tokens/s against transformers' Llama and a plain loop: same weights, same batch, on the CPU."""
    shape = _shape(parse_settings(settings))
    for name, value in (("rounds", rounds), ("steps", steps), ("threads", threads)):
        if value < 1:
            raise InputError(f"--{name}: expected at least 1, got {value}")
    if importlib.util.find_spec("transformers") is None:
        raise InputError("bench train runs transformers' Llama as a rival: pip install 'windtunnel[hf]'")
    from windtunnel.bench import train_speed
    from windtunnel.bench.shape import Shape

    result = train_speed.run(Shape(**shape), rounds, steps, threads, overhead_steps, say=_say)
    table = train_speed.table(result)
    Screen(as_json).finish(result, table.caption, table.rich(), "\n" + table.note)


def generate(
    sections: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SECTION...",
            help="llama, recurrentgemma (against transformers), batching, positions, drafts; without any, all of them.",
            show_default=False,
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(metavar="COUNT", parser=count, help="Turns of every contestant.")] = 7,
    threads: Annotated[int, typer.Option(metavar="COUNT", parser=count, help="CPU threads.")] = 2,
    eager: Annotated[bool, typer.Option("--eager", help="Without a compiled step.")] = False,
    as_json: Json = False,
) -> None:
    """Text after a prompt against transformers, in a running batch, far into a text, with drafts; on the CPU."""
    from windtunnel.bench import generate as benchmark

    chosen = sections or list(benchmark.SECTIONS)
    for name in chosen:
        if name not in benchmark.SECTIONS:
            raise InputError(f"bench generate has no section {name!r}{nearest(name, benchmark.SECTIONS)}")
    for option, value in (("rounds", rounds), ("threads", threads)):
        if value < 1:
            raise InputError(f"--{option}: expected at least 1, got {value}")
    if set(chosen) & set(benchmark.RIVALS) and importlib.util.find_spec("transformers") is None:
        raise InputError("bench generate runs transformers as a rival: pip install 'windtunnel[hf]'")
    result = benchmark.run(chosen, rounds, threads, compiled=not eager, say=_say)
    screen = Screen(as_json)
    if as_json:
        screen.finish(result)
        return
    for table in benchmark.tables(result):
        screen.say(table.caption, style="bold")
        screen.say(table.rich())
        screen.say(table.note + "\n")


def _verb(name: str) -> Callable[..., None]:
    def verb(
        rounds: Annotated[int, typer.Option(metavar="COUNT", parser=count, help="Turns of every contestant.")] = 7,
        threads: Annotated[int, typer.Option(metavar="COUNT", parser=count, help="CPU threads.")] = 2,
        as_json: Json = False,
    ) -> None:
        for option, value in (("rounds", rounds), ("threads", threads)):
            if value < 1:
                raise InputError(f"--{option}: expected at least 1, got {value}")
        module = importlib.import_module(f"windtunnel.bench.{name}")
        result = module.run(rounds=rounds, threads=threads, say=_say)
        table = module.table(result)
        Screen(as_json).finish(result, table.caption, table.rich(), "\n" + table.note)

    return verb


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _shape(settings: dict[str, Any]) -> dict[str, Any]:
    """Sizes of the benchmark's model."""
    from windtunnel.bench.shape import Shape

    known = [field.name for field in dataclasses.fields(Shape) if field.name != "tied"]
    for name, value in settings.items():
        if name not in known:
            raise InputError(f"bench train has no setting {name!r}{nearest(name, known)}")
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{name}: expected a whole number of at least 1, got {value!r}")
    return settings
