"""Drafted decoding of code: a model and a draft a tenth of its size, both trained here on the demo corpus.

Two questions, each in turns. What the trained model writes greedily after pieces of held-out code: with single tokens,
with prompt lookup, and with drafts of the small model. And what lookup gives where the text is real code: held-out code
decoded again, as if the model had written it.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from windtunnel import recipes
from windtunnel.bench.decode_plan import Plan
from windtunnel.bench.decoder import Decoder, Replay
from windtunnel.bench.spread import mean_of, paired_ratio, spelled
from windtunnel.bench.turns import Say, take_turns
from windtunnel.data.corpus import read_corpus
from windtunnel.data.shards import Dataset, prepare
from windtunnel.execution import Execution
from windtunnel.inference.generate import Drafting, Figures, Generation
from windtunnel.inference.request import Request
from windtunnel.inference.sampling import Sampling
from windtunnel.report.tables import Table
from windtunnel.root import Model
from windtunnel.runs import Run, load
from windtunnel.training.run import train
from windtunnel.training.settings import TrainingSettings

_ALONE = "single tokens"
_PROMPTS = 4  # pieces of held-out code
_LONGER = 4  # times the plan's prompt and tokens: copying needs something to copy


def drafted(spec: Model, plan: Plan, training_tokens: int, say: Say) -> dict[str, Any]:
    """The figures of both questions, as JSON values. spec: of the model; its draft has a tenth of its parameters."""
    small = draft_of(spec)
    with tempfile.TemporaryDirectory() as folder:
        dataset = prepare(read_corpus(None), spec.vocab, spec.context)
        runs = {}
        for name, each in (("model", spec), ("draft", small)):
            say(f"training the {name}: {training_tokens:,} tokens of the demo corpus")
            runs[name] = _trained(each, dataset, training_tokens, plan.threads, Path(folder) / name)
    sizes = {name: sum(weight.numel() for weight in run.model.parameters()) for name, (run, _) in runs.items()}
    pieces = _pieces(dataset, context_of(plan))
    return {
        "training_tokens": training_tokens,
        "parameters": sizes,
        "loss": {name: loss for name, (_, loss) in runs.items()},
        "prompt": _LONGER * plan.prompts[-1],
        "tokens": _LONGER * plan.tokens,
        "written": _written(runs["model"][0], runs["draft"][0], pieces, plan, say),
        "replayed": _replayed(runs["model"][0], pieces, plan, say),
    }


def context_of(plan: Plan) -> int:
    """Tokens of the texts, and of what the models are trained on."""
    return _LONGER * (plan.prompts[-1] + plan.tokens)


def table(result: dict[str, Any]) -> Table:
    """Every way of decoding, and lookup where the text is real code."""
    rows = [
        (
            name,
            spelled(each["tokens_per_second"], lambda speed: f"{speed:,.0f}"),
            spelled(each["ratio"], _hundredths),
            _hundredths(each["tokens_a_pass"]),
            "" if each["acceptance"] is None else f"{each['acceptance']:.0%}",
            f"{each['same']:.0%}",
        )
        for name, each in result["written"].items()
    ]
    again = result["replayed"]
    kept = f"{again['kept'] / max(1, again['drafted']):.0%}"
    rows.append(
        (
            "prompt lookup, real code",
            "",
            spelled(again["ratio"], _hundredths),
            _hundredths(again["tokens_a_pass"]),
            kept,
            "",
        )
    )
    sizes, losses = result["parameters"], result["loss"]
    return Table(
        caption=f"Drafts: {result['tokens']} greedy tokens after {result['prompt']} of held-out code",
        columns=("contestant", "tokens/s", "faster than single tokens", "tokens a pass", "drafts kept", "same texts"),
        rows=rows,
        numeric=(1, 2, 3, 4, 5),
        note=f"Geometric means over rounds with 95 % intervals, prompts not counted. The model ({sizes['model']:,} "
        f"parameters, {losses['model']:.2f} nats a token on held-out code) and its draft ({sizes['draft']:,}, "
        f"{losses['draft']:.2f}) were trained on {result['training_tokens']:,} tokens of the demo corpus: so small a "
        "model repeats itself, which is easy to draft. In the last line held-out code decides which drafts hold, as if "
        "the model wrote it.",
    )


def _hundredths(value: float) -> str:
    return f"{value:.2f}"


def draft_of(spec: Model) -> Model:
    """A Llama of about a tenth of the parameters, for the same tokens."""
    small = recipes.get("llama")(layers=2, width=spec.width // 2, vocab=spec.vocab, context=spec.context)
    assert isinstance(small, Model)
    return small


def _trained(spec: Model, dataset: Dataset, tokens: int, threads: int, folder: Path) -> tuple[Run, float]:
    """The run, and its loss on held-out code in nats a token."""
    settings = TrainingSettings(
        tokens=tokens,
        context=spec.context,
        batch_size=max(1, 2048 // spec.context),
        learning_rate=1.2e-2 * (64 / spec.width) ** 0.5,
        evaluation_tokens=8192,
    )
    result = train(spec, settings, dataset, folder, Execution(device="cpu", threads=threads), events=False)
    return load(folder), result.loss


def _pieces(dataset: Dataset, length: int) -> list[list[int]]:
    """Neighbouring stretches of held-out code, spread over all of it."""
    tokens = dataset.heldout.tokens
    apart = (len(tokens) - length) // _PROMPTS
    return [[int(token) for token in tokens[k * apart : k * apart + length]] for k in range(_PROMPTS)]


def _written(model: Run, draft: Run, pieces: list[list[int]], plan: Plan, say: Say) -> dict[str, Any]:
    """The model's own greedy text after each piece's first part."""
    say("drafts: what the model writes")
    ways: dict[str, Drafting] = {_ALONE: None, "prompt lookup": "lookup", "draft model": draft}
    figures: dict[str, list[Figures]] = {name: [] for name in ways}
    texts: dict[str, list[list[int]]] = {}

    def turn(name: str) -> Callable[[], object]:
        def write() -> None:
            texts[name] = []
            for piece in pieces:
                prompt = tuple(piece[: _LONGER * plan.prompts[-1]])
                asked = Request(
                    prompt=prompt, sampling=Sampling(temperature=0), tokens=_LONGER * plan.tokens, ignore_end=True
                )
                writing = Generation(model, [asked], ways[name], compiled=plan.compiled)
                texts[name].append([each.token for each in writing if each.token is not None])
                figures[name].append(writing.figures)

        return write

    take_turns({name: turn(name) for name in ways}, plan.rounds, say)
    speeds = {name: _speeds(found[len(pieces) :], len(pieces)) for name, found in figures.items()}
    return {
        name: {
            "tokens_per_second": mean_of(speeds[name]),
            "ratio": paired_ratio(speeds[name], speeds[_ALONE])._asdict(),
            "tokens_a_pass": sum(each.tokens_per_pass for each in figures[name]) / len(figures[name]),
            "acceptance": figures[name][-1].acceptance,
            "same": sum(a == b for a, b in zip(texts[name], texts[_ALONE], strict=True)) / len(pieces),
        }
        for name in ways
    }


def _speeds(found: list[Figures], pieces: int) -> list[float]:
    """Tokens a second after the first one, of all pieces of a round together."""
    rounds = [found[at : at + pieces] for at in range(0, len(found), pieces)]
    return [
        sum(each.new_tokens - 1 for each in one) / sum(each.seconds - each.first_seconds for each in one)
        for one in rounds
    ]


def _replayed(model: Run, pieces: list[list[int]], plan: Plan, say: Say) -> dict[str, Any]:
    """Real code with prompt lookup and without; the text decides which drafts hold."""
    say("drafts: real code again")
    arm = Decoder("model", model.model, plan.chunk, plan.compiled, say)
    longest, start = len(pieces[0]), _LONGER * plan.prompts[-1]
    found: dict[int, list[Replay]] = {0: [], plan.drafts: []}
    batch = arm.reserve(1, longest + plan.drafts)

    def turn(drafts: int) -> Callable[[], object]:
        return lambda: found[drafts].append(_sum([arm.replay(batch, piece, start, drafts) for piece in pieces]))

    with torch.inference_mode():
        take_turns({str(drafts): turn(drafts) for drafts in found}, plan.rounds, say)
    without, drafting = found[0][1:], found[plan.drafts][1:]
    return {
        "ratio": paired_ratio([each.seconds for each in without], [each.seconds for each in drafting])._asdict(),
        "tokens_a_pass": without[0].passes / drafting[0].passes,
        "drafted": drafting[0].drafted,
        "kept": drafting[0].kept,
    }


def _sum(each: list[Replay]) -> Replay:
    return Replay(*(sum(values) for values in zip(*each, strict=True)))
