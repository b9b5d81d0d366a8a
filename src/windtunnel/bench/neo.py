"""A GPT-Neo of the published 125M shape against transformers' on the same weights: logits of a text, and greedy text.

Weights are random: time does not depend on them. Their class has eager attention alone, ours bands of the window's
width. Text is decoded by the compiled step, whose compilation is not part of the times and is stated beside them, and
without it. Beside it stands the time of as many products of every matrix with a vector: no decoder of one text that
multiplies by every weight can be faster.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from windtunnel import build, recipes
from windtunnel.bench.generate import matrices
from windtunnel.bench.rivals import native
from windtunnel.bench.spread import Ratio
from windtunnel.bench.turns import Say, compared, take_turns
from windtunnel.inference.compiled import compiled_or_said
from windtunnel.inference.generate import Generation
from windtunnel.inference.request import Request
from windtunnel.inference.sampling import Sampling
from windtunnel.kernels import tune_allocator
from windtunnel.report.tables import Table
from windtunnel.root import Model, ModelLayer
from windtunnel.runs import Run

THEIRS, OURS, EAGER, PRODUCTS = "transformers", "windtunnel", "windtunnel, eager", "its products alone"
LENGTHS, PROMPT, TOKENS = (128, 512, 1024), 64, 64


def run(
    rounds: int,
    threads: int,
    say: Say = lambda words: None,
    spec: Model | None = None,
    lengths: tuple[int, ...] = LENGTHS,
    compiled: bool = True,
) -> dict[str, Any]:
    """Seconds of a forward pass at each length, and of greedy text, in turns; the largest difference of the logits."""
    tune_allocator()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        ours = build(spec or recipes.build("gpt_neo", size="125m")).eval()
        theirs = native.load(ours, attn_implementation="eager")
        forward = [_forward(ours, theirs, length, rounds, say) for length in lengths]
        text = _text(ours, theirs, rounds, compiled, say)
    finally:
        torch.set_num_threads(before)
    return {
        "benchmark": "neo",
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {"torch": torch.__version__},
        "settings": {"rounds": rounds, "threads": threads, "prompt": PROMPT, "tokens": TOKENS},
        "forward": forward,
        "text": text,
    }


@torch.inference_mode()
def _forward(ours: ModelLayer, theirs: Any, length: int, rounds: int, say: Say) -> dict[str, Any]:
    tokens = _tokens(ours.spec.vocab, length)
    contestants: dict[str, Callable[[], Any]] = {
        THEIRS: lambda: theirs(tokens, use_cache=False).logits,
        OURS: lambda: ours(tokens).logits,
    }
    found, expected = contestants[OURS](), contestants[THEIRS]()
    error = ((found - expected).abs().max() / expected.abs().max()).item()
    seconds = take_turns(contestants, rounds, lambda words: say(f"{length} tokens: {words}"))
    return {"length": length, "error": error, "contestants": compared(seconds, THEIRS)}


def _text(ours: ModelLayer, theirs: Any, rounds: int, compiled: bool, say: Say) -> dict[str, Any]:
    prompt = _tokens(ours.spec.vocab, PROMPT)
    step = compiled_or_said(ours, ours.reserve(1, 8, 4), say) if compiled else None
    texts: dict[str, list[int]] = {}
    contestants: dict[str, Callable[[], object]] = {
        THEIRS: lambda: texts.__setitem__(THEIRS, _generated_by_rival(theirs, prompt)),
        EAGER: lambda: texts.__setitem__(EAGER, _generated(ours, prompt, compiled=False)),
    }
    contestants[PRODUCTS] = lambda: _products(ours)
    if step is not None:
        contestants[OURS] = lambda: texts.__setitem__(OURS, _generated(ours, prompt, compiled=True))
    seconds = take_turns(contestants, rounds, lambda words: say(f"text: {words}"))
    return {
        "compile_seconds": None if step is None else step.programs.single.seconds,
        "compiled_now": None if step is None else step.programs.single.fresh,
        "same_text": all(text == texts[THEIRS] for text in texts.values()),
        "contestants": compared(seconds, THEIRS),
    }


def _generated(model: ModelLayer, prompt: torch.Tensor, compiled: bool) -> list[int]:
    request = Request(prompt=tuple(prompt[0].tolist()), sampling=Sampling(temperature=0), tokens=TOKENS)
    generation = Generation(Run(model, None, model.spec, {}), [request], compiled=compiled)
    return [piece.token for piece in generation if piece.token is not None]


@torch.inference_mode()
def _products(model: ModelLayer) -> None:
    met = matrices(model)
    for _ in range(TOKENS):
        for weight in met:
            F.linear(torch.ones(1, weight.shape[1]), weight)


@torch.no_grad()
def _generated_by_rival(model: Any, prompt: torch.Tensor) -> list[int]:
    settings = {"do_sample": False, "use_cache": True, "pad_token_id": 0, "eos_token_id": None}
    text = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=TOKENS, **settings)
    new: list[int] = text[0, PROMPT:].tolist()
    return new


def _tokens(vocab: int, count: int) -> torch.Tensor:
    return torch.randint(vocab, (1, count), generator=torch.Generator().manual_seed(0))


def table(result: dict[str, Any]) -> Table:
    """Forward passes and texts."""
    tokens = result["settings"]["tokens"]
    groups = [(f"logits of {each['length']} tokens", each["contestants"]) for each in result["forward"]]
    groups.append((f"{tokens} tokens after {result['settings']['prompt']}", result["text"]["contestants"]))
    rows = [
        (what, each["label"], f"{1e3 * each['median_seconds']:.0f}", str(Ratio(**each["ratio"])))
        for what, contestants in groups
        for each in contestants
    ]
    seconds = result["text"]["compile_seconds"]
    done = "compiled" if result["text"]["compiled_now"] else "loaded"
    made = "" if seconds is None else f" The step was {done} in {seconds:.1f} s, which is not in the times."
    same = "The texts are the same." if result["text"]["same_text"] else "The texts differ where rounding decides."
    error = max(each["error"] for each in result["forward"])
    return Table(
        caption=f"GPT-Neo of 125M parameters, {result['settings']['threads']} threads",
        columns=("work", "contestant", "ms (median)", "time over transformers' [95 %]"),
        rows=rows,
        numeric=(2, 3),
        note=f"Logits differ by at most {error:.1e} of the largest. {same}{made}",
    )
