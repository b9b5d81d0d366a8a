"""Pictures drawn pixel by pixel: the model reads its own pixels, with all that it can keep from one to the next."""

import math

import torch
from torch import Tensor

from windtunnel.axial import AxialTransformer
from windtunnel.data.tokenizers.characters import CharacterTokenizer
from windtunnel.errors import InputError
from windtunnel.inference.sampling import Sampling, distribution
from windtunnel.root import Model
from windtunnel.runs import Run


def draw(run: Run, count: int, sampling: Sampling) -> Tensor:
    """`count` pictures [n r c], numbers from 0 (the alphabet's first level) to 1 (its last).

    All are drawn side by side: for an `AxialTransformer` the upper part runs once a row and the inner part once a
    pixel. The same seed gives the same pictures. Raises `InputError` for a run that was not trained on pictures.
    """
    tokenizer = run.tokenizer
    if not isinstance(tokenizer, CharacterTokenizer):
        kind = "no tokenizer" if tokenizer is None else tokenizer.label
        raise InputError(f"the run has {kind}; pictures are drawn by a run on pictures, such as --data digits")
    rows, columns = grid_of(run.spec)
    levels = len(tokenizer.alphabet)
    stream = torch.Generator().manual_seed(sampling.seed)
    token = torch.full((count, 1), tokenizer.end_of_text, device=run.model.embedding.weight.device)
    state, drawn = run.model.initial_state(count), []
    with torch.no_grad():
        for _ in range(rows * columns):
            out = run.model(token, state=state)
            chances = distribution(out.logits[:, -1, :levels], sampling)  # the end of text is no grey
            token = torch.multinomial(chances.cpu(), 1, generator=stream).to(token.device)
            state = out.state
            drawn.append(token)
    return torch.cat(drawn, 1).view(count, rows, columns).cpu() / max(levels - 1, 1)


def grid_of(spec: Model) -> tuple[int, int]:
    """The rows and columns of the pictures that a model was trained on; those of a flat model are squares."""
    if isinstance(spec, AxialTransformer):
        return spec.rows, spec.columns
    side = math.isqrt(spec.context)
    if side * side != spec.context:
        raise InputError(f"context {spec.context} is no square, so the sides of a picture are not known")
    return side, side
