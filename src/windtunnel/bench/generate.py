"""Generation as a user runs it: against transformers on equal weights, in a running batch, far into a text, drafted.

Each section takes turns in one process. Beside the rival stands the time of the model's matrix-vector products alone,
in the same rounds: no decoder of one text that multiplies by every weight can be faster.
"""

import dataclasses
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from windtunnel import build, recipes
from windtunnel.bench import decode_tables, drafts
from windtunnel.bench.decode_plan import Plan
from windtunnel.bench.decode_uses import positions, serving
from windtunnel.bench.decoder import Decoder, corpus_tokens
from windtunnel.bench.rivals import hugging_face, recurrent_gemma
from windtunnel.bench.shape import Shape as LlamaShape
from windtunnel.bench.spread import mean_of, paired_ratio, spelled
from windtunnel.bench.turns import Say
from windtunnel.execution import Execution, hardware_name
from windtunnel.inference.compiled import compiled_or_said
from windtunnel.inference.generate import Generation
from windtunnel.inference.request import Request
from windtunnel.inference.sampling import Sampling
from windtunnel.init import roles
from windtunnel.kernels import tune_allocator
from windtunnel.report.tables import Table
from windtunnel.root import Model, ModelLayer
from windtunnel.runs import Run

RIVALS = ("llama", "recurrentgemma")
SECTIONS = (*RIVALS, "batching", "positions", "drafts")
_PRODUCTS = "its products alone"
_BATCHED = 4  # times the plan's tokens: an answer is longer than its prompt


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of the models, and of a text: a prompt and as many new tokens. training: tokens of a training."""

    layers: int = 6
    width: int = 256
    vocab: int = 1024
    prompt: int = 64
    tokens: int = 64
    near: int = 2048
    far: int = 16_384
    training: int = 400_000

    def spec(self, recipe: str, **settings: Any) -> Model:
        """A recipe at this size."""
        sizes = {"layers": self.layers, "width": self.width, "vocab": self.vocab}
        return recipes.get(recipe)(**sizes, context=self.prompt + self.tokens, **settings)


def run(
    sections: Sequence[str],
    rounds: int,
    threads: int,
    compiled: bool = True,
    say: Say = lambda words: None,
    shape: Shape = Shape(),
) -> dict[str, Any]:
    """The figures of the chosen sections, as JSON values."""
    tune_allocator()
    plan = Plan(
        prompts=(shape.prompt,),
        batches=(1,),
        tokens=min(32, shape.tokens),
        rounds=rounds,
        threads=threads,
        positions=(shape.near, shape.far),
        compiled=compiled,
    )
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = {name: _section(name, shape, plan, say) for name in sections}
    finally:
        torch.set_num_threads(before)
    return {
        "benchmark": "generate",
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "hardware": hardware_name(Execution(device="cpu").resolve().device),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "settings": dataclasses.asdict(plan) | {"shape": dataclasses.asdict(shape)},
        "sections": found,
    }


def _section(name: str, shape: Shape, plan: Plan, say: Say) -> Any:
    if name == "llama":
        sizes = LlamaShape(
            layers=shape.layers,
            width=shape.width,
            hidden=43 * shape.width // 16,
            vocab=shape.vocab,
            context=shape.prompt + shape.tokens,
        )
        return _against(
            sizes.spec(), lambda ours: hugging_face.load(sizes, dict(ours.named_parameters())), shape, plan, say
        )
    if name == "recurrentgemma":
        heads = max(1, shape.width // 64)  # one number for attention and for the recurrence's gates
        spec = shape.spec("griffin", scaled=True, soft_cap=30.0, heads=heads, gate_blocks=heads)
        return _against(spec, recurrent_gemma.load, shape, plan, say)
    if name == "drafts":
        return drafts.drafted(shape.spec("llama").replace(context=drafts.context_of(plan)), plan, shape.training, say)
    names = {"batching": ("llama", "griffin", "hawk"), "positions": ("hawk", "griffin")}[name]
    arms = [Decoder.of(each, shape.spec(each), plan.chunk, plan.compiled, say) for each in names]
    if name == "positions":
        return positions(arms, plan, say)
    return serving(arms, dataclasses.replace(plan, tokens=_BATCHED * plan.tokens), say)


def _against(spec: Model, load: Callable[[ModelLayer], Any], shape: Shape, plan: Plan, say: Say) -> dict[str, Any]:
    """One greedy text after a prompt, by everyone in turns."""
    ours = build(spec).eval()
    theirs = load(ours).eval()
    prompt = corpus_tokens(shape.vocab, shape.prompt)
    step = compiled_or_said(ours, ours.reserve(1, 8, 4), say) if plan.compiled else None
    turns: dict[str, Callable[[], tuple[list[int], float | None]]] = {
        "windtunnel, eager": lambda: _generated(ours, prompt, shape.tokens, compiled=False),
        "transformers": lambda: _generated_by_rival(theirs, prompt, shape.tokens),
        _PRODUCTS: lambda: _products(ours, shape.tokens),
    }
    if step is not None:
        turns = {"windtunnel": lambda: _generated(ours, prompt, shape.tokens, compiled=True), **turns}
    wall, processor, between, texts = _take_turns(turns, plan.rounds, say)
    first = next(iter(turns))
    return {
        "compile_seconds": None if step is None else step.programs.single.seconds,
        "compiled_now": None if step is None else step.programs.single.fresh,
        "same_text": texts[first] == texts["transformers"],
        "contestants": [
            {
                "label": name,
                "milliseconds": mean_of([1e3 * each / shape.tokens for each in wall[name]]),
                "transformers_over": paired_ratio(wall["transformers"], wall[name])._asdict(),
                "transformers_over_processor": paired_ratio(processor["transformers"], processor[name])._asdict(),
                "share_of_products": paired_ratio(between[_PRODUCTS], between[name])._asdict()
                if name in between
                else None,
            }
            for name in turns
            if name != _PRODUCTS
        ],
        "products_milliseconds": mean_of([1e3 * each for each in between[_PRODUCTS]]),
    }


def _take_turns(
    turns: dict[str, Callable[[], tuple[list[int], float | None]]], rounds: int, say: Say
) -> tuple[dict[str, list[float]], dict[str, list[float]], dict[str, list[float]], dict[str, list[int]]]:
    """Seconds by the clock and of the processor, seconds between tokens, and the last texts; after one warm-up each."""
    wall: dict[str, list[float]] = {name: [] for name in turns}
    processor: dict[str, list[float]] = {name: [] for name in turns}
    between: dict[str, list[float]] = {name: [] for name in turns}
    texts: dict[str, list[int]] = {name: turn()[0] for name, turn in turns.items()}
    names = list(turns)
    for index in range(rounds):
        say(f"round {index + 1} of {rounds}")
        first = index % len(names)
        for name in names[first:] + names[:first]:
            began, spent = time.perf_counter(), time.process_time()
            texts[name], step = turns[name]()
            wall[name].append(time.perf_counter() - began)
            processor[name].append(time.process_time() - spent)
            if step is not None:
                between[name].append(step)
    return wall, processor, {name: found for name, found in between.items() if found}, texts


def _generated(model: ModelLayer, prompt: list[int], tokens: int, compiled: bool) -> tuple[list[int], float]:
    run = Run(model, None, model.spec, {})
    request = Request(prompt=tuple(prompt), sampling=Sampling(temperature=0), tokens=tokens)
    generation = Generation(run, [request], compiled=compiled)
    text = [piece.token for piece in generation if piece.token is not None]
    figures = generation.figures
    return text, (figures.seconds - figures.first_seconds) / (tokens - 1)


@torch.no_grad()
def _generated_by_rival(model: Any, prompt: list[int], tokens: int) -> tuple[list[int], None]:
    ids = torch.tensor([prompt])
    settings = {"do_sample": False, "use_cache": True, "pad_token_id": 0, "eos_token_id": None}
    text = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, **settings)
    new: list[int] = text[0, len(prompt) :].tolist()
    return new, None


def matrices(model: ModelLayer) -> list[Tensor]:
    """The matrices that a token is multiplied by."""
    kinds = ("reads", "writes", "inner", "unembedding")
    found: list[Tensor] = [model.get_parameter(name) for name, role in roles(model).items() if role.kind in kinds]
    return [*found, model.embedding.weight] if model.spec.head.tied else found


@torch.inference_mode()
def _products(model: ModelLayer, tokens: int) -> tuple[list[int], float]:
    """Every matrix of the model that a token meets times a vector, `tokens` times over."""
    met = matrices(model)
    vectors = [torch.ones(*weight.shape[:-2], 1, weight.shape[-1]) for weight in met]
    began = time.perf_counter()
    for _ in range(tokens):
        for weight, vector in zip(met, vectors, strict=True):
            _product(weight, vector)
    return [], (time.perf_counter() - began) / tokens


def _product(weight: Tensor, vector: Tensor) -> Tensor:
    return F.linear(vector, weight) if weight.dim() == 2 else torch.bmm(vector, weight.transpose(1, 2))


def tables(result: dict[str, Any]) -> list[Table]:
    """One table a section."""
    found = []
    for name, figures in result["sections"].items():
        if name in RIVALS:
            found.append(_rival_table(name, figures, result["settings"]["shape"]))
        elif name == "drafts":
            found.append(drafts.table(figures))
        else:
            key, table = {
                "batching": ("serving", decode_tables.serving),
                "positions": ("positions", decode_tables.positions),
            }[name]
            found.append(table({"settings": result["settings"], key: figures}))
    return found


def _rival_table(name: str, figures: dict[str, Any], shape: dict[str, int]) -> Table:
    def ratio(value: float) -> str:
        return f"{value:.2f}"

    rows = [
        (
            each["label"],
            spelled(each["milliseconds"], ratio),
            spelled(each["transformers_over"], ratio),
            spelled(each["transformers_over_processor"], ratio),
            spelled(each["share_of_products"], lambda share: f"{share:.0%}") if each["share_of_products"] else "",
        )
        for each in figures["contestants"]
    ]
    seconds = figures["compile_seconds"]
    made = "" if seconds is None else f" The step was {_made(figures)} in {seconds:.1f} s."
    same = "The texts are the same." if figures["same_text"] else "The texts differ (rounding decides between equals)."
    return Table(
        caption=f"{name} {shape['layers']} x {shape['width']}: {shape['tokens']} greedy tokens after {shape['prompt']}",
        columns=("contestant", "ms a token", "faster than transformers", "by processor time", "products' share"),
        rows=rows,
        numeric=(1, 2, 3, 4),
        note=f"Geometric means over rounds with 95 % intervals. Products' share: matrix-vector products alone, "
        f"{spelled(figures['products_milliseconds'], ratio)} ms, over the time between tokens. {same}{made}",
    )


def _made(figures: dict[str, Any]) -> str:
    return "compiled" if figures["compiled_now"] else "loaded"
