"""One model and the state of many rows that stand at different places: fed, moved and rewound row by row."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from windtunnel.inference import states
from windtunnel.inference.compiled import Say, compiled_or_said
from windtunnel.root import ModelLayer, ModelState

FAR = 1 << 24  # tokens, where nothing bounds them


def limit_of(model: ModelLayer) -> int | None:
    """Tokens that a model can hold: None where its state stops growing and no table of positions bounds it."""
    positions = getattr(model.embedding, "positions", None)
    table = getattr(positions, "length", None)
    if table is not None:
        return int(table)
    return None if model.state_bytes(FAR) == model.state_bytes(2 * FAR) else int(model.spec.context)


class Batch:
    """`lengths[row]` tokens have been fed to each row. Calls feed neighbouring rows the same number of tokens.

    A row can be rewound to any length that it had since it was last marked: buffers forget what came later, states of
    fixed size go back to their copy at the mark and read again what is to stay. compiled: a few tokens at a time go
    through compiled steps (`compiled.py`), where there can be any; long prompts are eager. cache: the type of keys,
    values and inputs that are kept, None for the model's own; rewinding and drafts give what single tokens give with
    that cache.
    """

    def __init__(
        self,
        model: ModelLayer,
        rows: int,
        capacity: int,
        chunk: int,
        compiled: bool = False,
        say: Say | None = None,
        cache: torch.dtype | None = None,
    ) -> None:
        self.model, self.chunk = model, chunk
        self.element = (cache or model.embedding.weight.dtype).itemsize
        self.lengths = [0] * rows
        self._written = [0] * rows  # tokens at most, what was rewound included
        self.state = model.reserve(rows, capacity, chunk, cache)
        self._empty = model.reserve(1, capacity, chunk, cache)
        self._rewinds_by_forgetting = states.only_buffers(self.state.blocks)
        self._marks: dict[int, tuple[int, tuple[Any, ...]]] = {}
        self.step = compiled_or_said(model, self.state, say, cache) if compiled else None

    def state_bytes(self, length: int) -> int:
        """Bytes of state that a row of `length` tokens needs."""
        return self.model.state_bytes(length, self.element)

    def clear(self, row: int) -> None:
        """Make a row empty."""
        states.clear(self.state, row, self._empty, self._written[row])
        self.lengths[row] = self._written[row] = 0
        self._marks.pop(row, None)

    def move(self, source: int, target: int) -> None:
        """Copy a row onto another."""
        states.move(self.state, source, target, max(self._written[source], self._written[target]))
        self.lengths[target], self._written[target] = self.lengths[source], self._written[source]
        if source in self._marks:
            self._marks[target] = self._marks.pop(source)

    def feed(self, first: int, tokens: Sequence[Sequence[int]], last: int = 1) -> Tensor:
        """Give rows first, first + 1, .. their next tokens; the logits [b last v] after the last ones of each."""
        chosen = slice(first, first + len(tokens))
        lengths = self.lengths[chosen]
        self.lengths[chosen] = [length + len(tokens[0]) for length in lengths]
        self._written[chosen] = list(map(max, self._written[chosen], self.lengths[chosen]))
        ids = torch.tensor(tokens, device=self.model.embedding.weight.device)
        if self.step is not None and self.step.takes(ids.shape[1]):
            return self.step(first, ids, lengths)[:, -last:]
        position = lengths[0] if len(set(lengths)) == 1 else tuple(lengths)
        whole = len(tokens) == len(self.lengths)
        blocks = self.state.blocks if whole else states.rows(self.state, chosen)
        out = self.model(ids, state=ModelState(position, blocks), last=last)
        assert out.state is not None
        states.put(self.state, chosen, out.state.blocks)
        logits: Tensor = out.logits
        return logits

    def read(self, row: int, text: Sequence[int]) -> Tensor:
        """Feed one row everything of `text` that it has not seen, by chunks; the logits [v] after its last token."""
        while True:
            start = self.lengths[row]
            logits = self.feed(row, [text[start : start + self.chunk]])
            if self.lengths[row] == len(text):
                return logits[0, -1]

    def mark(self, rows: range) -> None:
        """Remember these rows as they are, to rewind to."""
        if not self._rewinds_by_forgetting:
            for row in rows:
                self._marks[row] = (self.lengths[row], states.snapshot(states.rows(self.state, _only(row))))

    def rewind(self, row: int, length: int, text: Sequence[int]) -> None:
        """Make a row as if only the first `length` tokens of its `text` had been fed."""
        if self.lengths[row] == length:
            return
        if self._rewinds_by_forgetting:
            states.roll_back(states.rows(self.state, _only(row)), length)
            self.lengths[row] = length
            return
        self.lengths[row], held = self._marks[row]
        states.roll_back(states.rows(self.state, _only(row)), self.lengths[row])
        states.put(self.state, _only(row), held)
        if length > self.lengths[row]:
            self.read(row, text[:length])


def _only(row: int) -> slice:
    return slice(row, row + 1)
