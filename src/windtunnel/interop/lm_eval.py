"""EleutherAI's lm-evaluation-harness: any run with a tokenizer is a model for it.

    from windtunnel.interop.lm_eval import RunModel
    lm_eval.simple_evaluate(model=RunModel(wt.load("runs/neo")), tasks=[...])

Importing this imports the harness, which takes seconds. Texts are cut into tokens as the tokenizer's own library does:
where that puts a token before every text, so does this.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lm_eval
import torch
from lm_eval.api.model import TemplateLM
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from windtunnel.errors import InputError
from windtunnel.evaluation.reach import longest_input
from windtunnel.inference.generate import Generation
from windtunnel.inference.request import Request
from windtunnel.inference.sampling import Sampling
from windtunnel.interop.continuations import Pair, likelihoods
from windtunnel.runs import Run
from windtunnel.version import VERSION

_SEED = 0
_SAMPLED = ("top_k", "top_p", "min_p", "repetition_penalty")
_HARNESS = ("until", "max_gen_toks", "do_sample", "temperature", "max_new_tokens", "max_tokens")


class RunModel(TemplateLM):  # type: ignore[misc] # no types are read of the harness
    """A run behind the harness's interface. length: tokens it is given at most; None is its context."""

    def __init__(self, run: Run, length: int | None = None, batch_size: int = 8, new_tokens: int = 256) -> None:
        super().__init__()
        if run.tokenizer is None:
            raise InputError("the run has no tokenizer, so no text can be read by it")
        if length is not None and length < 2:
            raise InputError(f"length: expected at least 2 tokens, got {length}")
        longest = longest_input(run.spec)
        if length is not None and longest is not None and length > longest:
            raise InputError(f"length: {length} tokens are more than the model's table of positions holds, {longest}")
        if batch_size < 1:
            raise InputError(f"batch_size: expected at least 1, got {batch_size}")
        self.run, self.tokens = run, run.tokenizer
        self._length, self._batch_size, self._new_tokens = length or int(run.spec.context), batch_size, new_tokens

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self.tokens.end_of_text

    @property
    def prefix_token_id(self) -> int:
        """The token that stands before a text without a context."""
        return self.tokens.begin_of_text

    @property
    def max_length(self) -> int:
        """Tokens that the model is given at most."""
        return self._length

    @property
    def max_gen_toks(self) -> int:
        """New tokens where a task does not say how many."""
        return self._new_tokens

    @property
    def batch_size(self) -> int:
        """Rows of a forward pass."""
        return self._batch_size

    @property
    def device(self) -> Any:
        """Where the model is."""
        return self.run.model.embedding.weight.device

    @property
    def tokenizer_name(self) -> str:
        """What the harness's cache of requests is kept by."""
        return f"windtunnel-{self.tokens.fingerprint}"

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The ids of a text, as the tokenizer's own library begins it."""
        ids: list[int] = self.tokens.encode(string).tolist()
        begins = self.tokens.begins
        return ids if begins is None or add_special_tokens is False else [begins, *ids]

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        pairs = [Pair(context, answer) for _, context, answer in requests]
        with tqdm(total=len(pairs), disable=disable_tqdm, desc="Reading") as bar:
            found = likelihoods(self.run.model, pairs, self._length, self._batch_size, bar.update)
        for request, each in zip(requests, found, strict=True):
            if request[0] is not None:
                self.cache_hook.add_partial("loglikelihood", request[0], (each.nats, each.greedy))
        return [(each.nats, each.greedy) for each in found]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Nats of whole documents, in disjoint windows; a document's windows are never joined to another's."""
        windows: list[tuple[Any, list[int], list[int]]] = []
        documents: list[int] = []
        for place, request in enumerate(requests):
            ids = self.tok_encode(request.args[0])
            cut = map(
                make_disjoint_window, get_rolling_token_windows(ids, self.prefix_token_id, self._length, context_len=1)
            )
            before = len(windows)
            windows += [(None, context, answer) for context, answer in cut]
            documents += [place] * (len(windows) - before)
        totals = [0.0] * len(requests)
        for place, (nats, _) in zip(documents, self._loglikelihood_tokens(windows, disable_tqdm), strict=True):
            totals[place] += nats
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The texts that follow, up to a stop or an end of text, which are left out; greedy where nothing is said."""
        if not requests:
            return []
        generation = Generation(self.run, [self._request(*request.args) for request in requests])
        texts = [""] * len(requests)
        with tqdm(total=len(requests), disable=disable_tqdm, desc="Generating") as bar:
            for piece in generation:
                texts[piece.request] += piece.text
                bar.update(piece.finish is not None)
        prefix = self.tokens.prefix.decode()  # what a library that puts a space before every text takes away again
        texts = [text.removeprefix(prefix) for text in texts]
        for request, text in zip(requests, texts, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, text)
        return texts

    def _request(self, context: str, settings: dict[str, Any]) -> Request:
        known = {name: value for name, value in settings.items() if value is not None}
        for name in known:
            if name not in (*_HARNESS, *_SAMPLED):
                raise InputError(f"{name}: a task asks for it in its generation_kwargs; it is not known here")
        new = int(
            next((known[name] for name in _HARNESS if name.startswith("max_") and name in known), self._new_tokens)
        )
        room = self._length - new
        if room < 1:
            raise InputError(
                f"max_gen_toks: a task asks for {new} new tokens, which leave nothing of the model's {self._length} "
                "for its text"
            )
        temperature = float(known.get("temperature", 1.0 if known.get("do_sample") else 0.0))
        greedy = not known.get("do_sample", temperature > 0)
        drawn = (
            {} if greedy else {"temperature": temperature, **{name: known[name] for name in _SAMPLED if name in known}}
        )
        sampling = Sampling(**{"temperature": 0.0, "seed": _SEED, **drawn})
        until = known.get("until", [])
        stops = tuple(stop for stop in ([until] if isinstance(until, str) else until) if stop)
        ids = (self.tok_encode(context) or [self.prefix_token_id])[-room:]
        return Request(prompt=tuple(ids), sampling=sampling, tokens=new, stop=stops)


def evaluate(
    model: RunModel, tasks: Sequence[str], shots: int | None = None, limit: int | None = None
) -> dict[str, dict[str, Any]]:
    """The harness's figures by task and metric, with standard errors over items and what each task is.

    tasks: YAML folders of one's own, all of whose tasks are asked, and names, of those or of the harness's. shots:
    examples before each item; None is as the task says. limit: of so many first items.
    """
    manager, names = _manager(tasks)
    result = lm_eval.simple_evaluate(
        model=model,
        tasks=names,
        task_manager=manager,
        num_fewshot=shots,
        limit=limit,
        bootstrap_iters=0,
        log_samples=False,
        random_seed=_SEED,
        numpy_random_seed=_SEED,
        torch_random_seed=_SEED,
        fewshot_random_seed=_SEED,
    )
    counts, versions, examples = (result.get(part, {}) for part in ("n-samples", "versions", "n-shot"))
    return {
        task: {
            "metrics": _metrics(figures),
            "items": counts.get(task, {}).get("effective"),
            "version": versions.get(task),
            "shots": examples.get(task),
        }
        for task, figures in result["results"].items()
    }


def versions() -> dict[str, str]:
    """What figures depend on beside the model."""
    return {"windtunnel": VERSION, "lm_eval": lm_eval.__version__, "torch": torch.__version__}


def _manager(tasks: Sequence[str]) -> tuple[Any, list[str]]:
    """What knows these tasks, and their names; the harness's own hundreds are read only where one is named."""
    folders = [task for task in tasks if Path(task).is_dir()]
    own = TaskManager(include_path=folders, include_defaults=False) if folders else None
    found = list(own.all_tasks) if own is not None else []
    if folders and not found:
        raise InputError(f"--tasks: {folders[0]} holds no task: no YAML file with the name of one")
    named = [task for task in tasks if task not in folders]
    manager = own if own is not None and set(named) <= set(found) else TaskManager(include_path=folders or None)
    for name in named:
        if name not in manager.all_tasks:
            raise InputError(f"--tasks: {name} is neither a folder of tasks nor a task that the harness knows")
    return manager, named or found


def _metrics(figures: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """`{metric: {value, error}}` from keys such as "acc,none" and "acc_stderr,none"."""
    found: dict[str, dict[str, float | None]] = {}
    for key, value in figures.items():
        name, comma, kind = key.partition(",")
        if not comma or isinstance(value, str) or name.endswith("_stderr"):
            continue
        error = figures.get(f"{name}_stderr,{kind}")
        label = name if kind == "none" else f"{name} ({kind})"
        found[label] = {"value": float(value), "error": float(error) if isinstance(error, int | float) else None}
    return found
