"""What a draft costs: estimated before anything is decoded, measured while it is; and the length that pays.

Greedy requests go by what is measured, since no draft changes their text. Those that draw go by the estimate: which
places are drafted decides which random numbers their tokens are drawn with, and a text is not to depend on the clock.
"""

from torch import nn

from windtunnel.inference.acceptance import tokens_per_call

VERIFYING = 0.05  # what one more token adds to a pass of the target, in passes
_EAGER, _COMPILED = 4e-4, 3e-5  # seconds that a block takes on a CPU however small it is
_DRAFTING = 3e-4  # seconds around the pass that drafts a token
_BANDWIDTH = 1e10  # bytes of weights that are read in a second
_AGAIN, _ROUNDS = 32, 3  # every so many tokens of a text, so many go the way that does not seem to pay
_LEARNING = 0.2  # weight of the newest time


def step_share(draft: nn.Module, target: nn.Module, compiled: bool) -> float:
    """An estimate of the time of drafting one token, in passes of the target.

    Small models take the time of their blocks, not of their weights.
    """
    seconds = [_step_seconds(model, compiled) for model in (draft, target)]
    return (seconds[0] + _DRAFTING) / seconds[1]


def best_length(rate: float, cost: float, longest: int) -> int:
    """How many tokens to draft when each is kept with this rate: the most tokens for the time (Leviathan, section 3.4).

    0 where drafting does not pay.
    """
    return _best(rate, [cost * count + 1 for count in range(longest + 1)])


def tried(generated: int) -> bool:
    """Whether a text that does without drafts tries one at this token: by its own count, so the clock has no say."""
    return generated % _AGAIN < _ROUNDS


class Pace:
    """Running means of the times of passes by how many tokens of a text they read, and of drafting a token."""

    def __init__(self) -> None:
        self._passes: dict[int, float] = {}
        self._drafting: float | None = None

    def passed(self, width: int, seconds: float) -> None:
        """A pass of the target over `width` tokens of each text took so long, with all that follows from it."""
        self._passes[width] = _mean(self._passes.get(width), seconds)

    def drafted(self, count: int, seconds: float) -> None:
        """Drafting `count` tokens took so long."""
        self._drafting = _mean(self._drafting, seconds / count)

    def length(self, rate: float, cost: float, longest: int, generated: int) -> int:
        """How many tokens to draft for a text with so many of its own; cost: the estimate, until it is measured."""
        if 1 not in self._passes or (generated + _AGAIN // 2) % _AGAIN == 0:
            return 0
        single = self._passes[1]
        drafting = single * cost if self._drafting is None else self._drafting
        times = [drafting * count + self._pass(count + 1) for count in range(longest + 1)]
        return _best(rate, times) or int(tried(generated))

    def _pass(self, width: int) -> float:
        known = max(each for each in self._passes if each <= width)
        return self._passes[known] + VERIFYING * self._passes[1] * (width - known)


def _best(rate: float, times: list[float]) -> int:
    """The count of drafted tokens that gives the most tokens for the time."""
    return max(range(len(times)), key=lambda count: tokens_per_call(rate, count) / times[count])


def _step_seconds(model: nn.Module, compiled: bool) -> float:
    blocks = sum(1 for _ in model.get_submodule("blocks").children())
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    return blocks * (_COMPILED if compiled else _EAGER) + size / _BANDWIDTH


def _mean(before: float | None, now: float) -> float:
    return now if before is None else before + _LEARNING * (now - before)
