"""Self-test 7: one order of data for every arm, however batches are cut and wherever a run is resumed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from windtunnel.data.sampler import Sampler
from windtunnel.data.shards import Split
from windtunnel.selftest.check import Lab, Outcome
from windtunnel.selftest.small import ONE_THREAD, dataset, run_settings
from windtunnel.selftest.tiny import tiny_spec
from windtunnel.training.interruption import Interrupted
from windtunnel.training.run import train

ARMS = ("llama", "griffin", "mixtral")
_STOPPED_AT = 9  # within a branch
_CONTEXT = 16


def cut_differs(split: Split, context: int, step: int, batch_size: int, cut: int, data_seed: int = 2) -> bool:
    """Whether a batch in two micro-batches, or by a sampler made anew, has other tokens than the whole."""
    sampler = Sampler(split, context, data_seed)
    whole = sampler.batch(step, batch_size)
    parts = [sampler.batch(step, batch_size, slice(0, cut)), sampler.batch(step, batch_size, slice(cut, None))]
    fresh = Sampler(split, context, data_seed).batch(step, batch_size)  # a resumed run has a new sampler
    return not (
        torch.equal(torch.cat([part.tokens for part in parts]), whole.tokens)
        and torch.equal(torch.cat([part.targets for part in parts]), whole.targets)
        and torch.equal(fresh.tokens, whole.tokens)
    )


def after(calls: int, action: Callable[[], bool]) -> Callable[[], bool]:
    """A `stop` that acts when it is asked for the n-th time, which is before the n-th step of the session."""
    counter = iter(range(1, 10**6))
    return lambda: action() if next(counter) == calls else False


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """A finished run's weights at every horizon."""
    result = json.loads((folder / "result.json").read_text())
    return {
        f"{horizon} {name}": tensor
        for horizon, end in result["horizons"].items()
        for name, tensor in load_file(folder / end["checkpoint"] / "model.safetensors").items()
    }


def data_order(lab: Lab) -> Outcome:
    """Hashes over arms and micro-batches, cuts of single batches, and a run that was stopped and resumed."""
    data = dataset(lab.folder, _CONTEXT)
    cuts = [(step, size, cut) for step in (0, 3, 499) for size in (1, 4, 7) for cut in range(size + 1)]
    differ = [each for each in cuts if cut_differs(data.train, _CONTEXT, *each)]
    hashes = {}
    for recipe in ARMS:
        for parts in (1, 2) if recipe == "llama" else (1,):
            hashes[f"{recipe}, {parts} micro-batches"] = _trained(lab, recipe, data, accumulation=parts).batch_hash
    resumed = _resumed(lab, data)
    same = len(set(hashes.values())) == 1
    shown = (
        f"{len(hashes)} runs of {len(ARMS)} arms, {'one hash' if same else 'different hashes'}; {len(cuts)} cuts, "
        f"{len(differ)} different; a resumed run has {'the same' if resumed else 'OTHER'} weights"
    )
    return Outcome(same and not differ and resumed, shown, {"hashes": hashes, "cuts": len(cuts), "resumed": resumed})


def _trained(lab: Lab, recipe: str, data: Any, **changes: Any) -> Any:
    folder = lab.folder / f"{recipe}-{changes['accumulation']}"
    return train(_spec(recipe), run_settings(**changes), data, folder, ONE_THREAD, resume=True, events=False)


def _resumed(lab: Lab, data: Any) -> bool:
    """Whether a run stopped inside a branch and resumed ends with the bits of the one that was left alone."""
    folder = lab.folder / "stopped"
    arguments = (_spec("llama"), run_settings(), data, folder, ONE_THREAD)
    try:
        train(*arguments, resume=True, stop=after(_STOPPED_AT, lambda: True), events=False)
    except Interrupted:
        train(*arguments, resume=True, events=False)
    left, right = weights(folder), weights(lab.folder / "llama-1")
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def _spec(recipe: str) -> Any:
    return tiny_spec(recipe, layers=3, width=32, vocab=257, context=_CONTEXT)
