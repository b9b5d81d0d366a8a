"""What the decoding benchmark is asked to measure."""

import dataclasses
from collections.abc import Sequence

from windtunnel.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured. prompts, batches: the grid. tokens: new ones a generation. rounds: turns of everyone.

    positions: two, at which the time of a token is compared; empty leaves that out. requests: served together and one
    after another. drafts: the longest draft by prompt lookup. chunk: tokens of a prompt in one call.
    compiled: single tokens go through a compiled step. cache_dtype: how keys and values are kept; None is float32.
    """

    prompts: tuple[int, ...] = (64, 256, 1024)
    batches: tuple[int, ...] = (1, 4, 16)
    tokens: int = 32
    rounds: int = 5
    threads: int = 2
    positions: tuple[int, ...] = (2048, 16_384)
    requests: int = 16
    drafts: int = 4
    chunk: int = 256
    compiled: bool = False
    cache_dtype: str | None = None

    def __post_init__(self) -> None:
        for name in ("prompts", "batches"):
            values = getattr(self, name)
            if not values or min(values) < 1 or list(values) != sorted(set(values)):
                raise InputError(f"{name}: expected growing whole numbers of at least 1, got {_spelled(values)}")
        for name, least in (("tokens", 2), ("rounds", 1), ("threads", 1), ("requests", 1), ("drafts", 1), ("chunk", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        if self.cache_dtype not in (None, "float32", "bfloat16", "float16"):
            raise InputError(f"cache_dtype: expected float32, bfloat16 or float16, got {self.cache_dtype!r}")
        if self.positions and not (len(self.positions) == 2 and 1 <= self.positions[0] < self.positions[1]):
            raise InputError(f"positions: expected a near and a far one, got {_spelled(self.positions)}")

    @property
    def longest(self) -> int:
        """Tokens of the longest text in the grid."""
        return self.prompts[-1] + self.tokens


def _spelled(values: Sequence[int]) -> str:
    return ",".join(str(value) for value in values) or "none"
