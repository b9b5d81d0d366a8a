"""A model of transformers with random weights, taken in, held against itself, given out, and taken in again."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.utils import logging

import windtunnel as wt
from tests.theirs import cache_name
from windtunnel.interop.exporting import Export, export_run
from windtunnel.interop.importing import CHECKPOINT, import_folder

TOLERANCE = 1e-5  # of the largest logit, both in float32
CHUNKS = (3, 1, 1, 6, 1, 9, 3)

logging.set_verbosity_error()
logging.disable_progress_bar()


def disturbed(model: nn.Module) -> nn.Module:
    """Every parameter away from what it starts at, so that gains of one and biases of zero are felt."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@torch.no_grad()
def carried(
    theirs: Any,
    chunks: tuple[int, ...] = CHUNKS,
    called: Callable[[Any], Any] = lambda model: model,
    tolerance: float = 0.0,
) -> dict[str, float]:
    """Logits and cached decoding within 1e-5, the same class and bits from the export; the largest differences.

    chunks: what is decoded at once. called: how theirs is called. tolerance: for gains that are stored less one.
    """
    theirs = disturbed(theirs)
    tokens = torch.randint(theirs.config.vocab_size, (2, sum(chunks)))
    with TemporaryDirectory() as name:
        place = Path(name)
        theirs.save_pretrained(place / "theirs")
        import_folder(place / "theirs", place / "run")
        run = wt.load(place / "run")
        seen = {
            "logits": near(run.model(tokens).logits, theirs(tokens).logits),
            "decoding": decoding(run.model, called(theirs), tokens, chunks),
        }
        export = export_run(place / "run", place / "out", shard_bytes=20_000)
        back = AutoModelForCausalLM.from_pretrained(export.folder).eval()
        assert type(back) is type(theirs)
        assert_same_weights(theirs, back, tolerance)
        near(back(tokens).logits, theirs(tokens).logits)
        assert_same_again(place / "run", export)
    return seen


def assert_same_weights(one: nn.Module, other: nn.Module, tolerance: float) -> None:
    """Equal bits where the tolerance is 0."""
    there = other.state_dict()
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(there[name], tensor, rtol=0, atol=tolerance)


def assert_same_again(run: Path, export: Export) -> None:
    """An import of the export is the same run: spec and weights, bit for bit."""
    again = export.folder.with_name("again")
    import_folder(export.folder, again)
    assert (again / "spec.json").read_bytes() == (run / "spec.json").read_bytes()
    one, other = (load_file(place / "checkpoints" / CHECKPOINT / "model.safetensors") for place in (run, again))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def decoding(ours: Any, theirs: Any, tokens: Tensor, chunks: tuple[int, ...]) -> float:
    """Both caches filled by chunks."""
    state, past, errors, cache = ours.initial_state(len(tokens)), None, [], cache_name(theirs)
    for chunk in tokens.split(chunks, dim=1):
        out = ours(chunk, state=state)
        other = theirs(chunk, **{cache: past}, use_cache=True)
        state, past = out.state, getattr(other, cache, None)
        errors.append(near(out.logits, other.logits))
    return max(errors)


def near(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest entry."""
    error = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    assert error <= TOLERANCE, f"{error:.2g}"
    return error
