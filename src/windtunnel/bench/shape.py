"""The size of the model that the training benchmark runs, and of its batch."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """A Llama without grouping; by default 6.8 million parameters. tied: one table for embedding and head."""

    layers: int = 6
    width: int = 256
    heads: int = 4
    hidden: int = 688
    vocab: int = 4096
    context: int = 256
    batch_size: int = 16
    tied: bool = False

    @property
    def step_tokens(self) -> int:
        return self.batch_size * self.context

    def spec(self) -> Any:
        """Windtunnel's spec of it."""
        from windtunnel import recipes

        sizes = dataclasses.asdict(self)
        del sizes["batch_size"]
        return recipes.get("llama")(**sizes)
