"""Texts that say nothing: five sentences again and again."""

from windtunnel.evaluation.retrieval.haystack import Haystacks
from windtunnel.evaluation.retrieval.prompts import encoded

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "


def noise_tokens(haystacks: Haystacks, tokens: int) -> str:
    """About so many tokens of whole sentences, at least one."""
    tokenizer = haystacks.tokenizer
    each = max(1, len(encoded(tokenizer, NOISE)))
    text = NOISE * (tokens // each + 1)
    shown = tokenizer.decode(encoded(tokenizer, text)[:tokens])
    return text[: shown.rfind(".") + 1] or NOISE[: NOISE.index(".") + 1]
