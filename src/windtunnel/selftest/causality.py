"""Self-test 8: no logit feels a later token, no document another, and decoding in chunks is one pass."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from windtunnel import recipes
from windtunnel.root import ModelLayer
from windtunnel.selftest.check import Lab, Outcome, largest, worst
from windtunnel.selftest.tiny import tiny_model, tokens_for

AT = 17
CHUNKS = (1, 5, 1, 7, 13, 2, 11)
TWO_DOCUMENTS = torch.tensor([[0] * 11 + [1] * 29, [0] * 30 + [1] * 10])
ALLOWED = 1e-9  # float64: the same sums in another order


def with_another_token(model: ModelLayer, tokens: Tensor, at: int = AT) -> tuple[Tensor, Tensor]:
    """Logits before and after the token at one place is replaced [b t v]."""
    changed = tokens.clone()
    changed[:, at] = (changed[:, at] + 1) % model.spec.vocab
    return model(tokens).logits, model(changed).logits


def with_another_document(
    model: ModelLayer, tokens: Tensor, documents: Tensor = TWO_DOCUMENTS
) -> tuple[Tensor, Tensor]:
    """Logits before and after every token of the first document is replaced [b t v]."""
    changed = torch.where(documents == 0, (tokens + 1) % model.spec.vocab, tokens)
    return model(tokens, documents=documents).logits, model(changed, documents=documents).logits


def in_chunks(model: ModelLayer, tokens: Tensor, chunks: Sequence[int] = CHUNKS) -> tuple[Tensor, Any]:
    """Logits and the last state of decoding chunk by chunk."""
    state, parts = model.initial_state(tokens.shape[0]), []
    for chunk in torch.split(tokens, list(chunks), dim=1):
        out = model(chunk, state=state)
        parts.append(out.logits)
        state = out.state
    return torch.cat(parts, 1), state


@torch.no_grad()
def later_tokens(lab: Lab) -> Outcome:
    """Every recipe: what of a later token is felt, and of another document."""
    felt = {}
    for recipe in recipes.names():
        model = tiny_model(recipe, torch.float64)
        tokens = tokens_for(model.spec)
        before, after = with_another_token(model, tokens)
        felt[recipe] = largest(before[:, :AT], after[:, :AT])
        if not (before[:, AT] != after[:, AT]).any():
            return Outcome(False, f"{recipe}: no logit feels its own token")
        if model.spec.packs_documents:
            before, after = with_another_document(model, tokens)
            second = TWO_DOCUMENTS == 1
            felt[f"{recipe}, documents"] = largest(before[second], after[second])
    return worst(felt, ALLOWED)


@torch.no_grad()
def decoding(lab: Lab) -> Outcome:
    """Every recipe: decoding in odd chunks against one pass, in whatever form each takes."""
    differences = {}
    for recipe in recipes.names():
        model = tiny_model(recipe, torch.float64)
        tokens = tokens_for(model.spec)
        differences[recipe] = largest(in_chunks(model, tokens)[0], model(tokens).logits)
    return worst(differences, ALLOWED)
