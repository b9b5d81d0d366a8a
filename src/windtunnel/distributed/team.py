"""The processes that train one model together, and this one's place among them."""

import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from windtunnel.distributed.mesh import AXES, Mesh
from windtunnel.errors import InputError, WorkError

_GRACE = 3.0  # seconds in which those that are well answer a roll call
_LONGEST = 2048  # bytes of a message that every process sends
_FOR_EVER = timedelta(days=30)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Team:
    """One process's view of the mesh. Alone, every call returns what it was given.

    All processes make the same calls in the same order. names: where each process runs. devices: torch's DeviceMesh.
    weights: the same with the axes over which weights are spread as one, named "shard".
    store: what processes can still say to each other when messages fail. group: through which messages go, None for
    torch's default. aside: the same team through another group, for a thread of each process.
    """

    mesh: Mesh = field(default_factory=lambda: Mesh(shard=1))
    rank: int = 0
    names: tuple[str, ...] = ("this process",)
    devices: Any = None
    weights: Any = None
    store: Any = None
    patience: float = 600.0
    group: Any = None
    aside: "Team | None" = None
    _turns: Iterator[int] = field(default_factory=itertools.count)

    @property
    def size(self) -> int:
        """How many processes there are."""
        return len(self.names)

    @property
    def lead(self) -> bool:
        """Whether this process writes the run's files and speaks for all."""
        return self.rank == 0

    @property
    def readers(self) -> int:
        """How many processes read different rows of a batch."""
        return self.mesh.readers

    def index(self, axis: str) -> int:
        """This process's place along an axis of the mesh."""
        rest, found = self.rank, {}
        for name, size in reversed(list(zip(AXES, self.mesh.sizes, strict=True))):
            rest, found[name] = divmod(rest, size)
        return found[axis]

    def rows(self, count: int) -> range:
        """Which of the `count` rows of a batch are this process's."""
        each = count // self.readers
        first = (self.rank // (self.mesh.context * self.mesh.tensor)) * each
        return range(first, first + each)

    def columns(self, length: int) -> range:
        """Which of the `length` tokens of a row are this process's."""
        each = length // self.mesh.context
        return range(self.index("context") * each, (self.index("context") + 1) * each)

    def of_rows(self, values: Tensor) -> Tensor:
        """The sum over all that read different tokens, in place; the same bits everywhere."""
        return self.total(values if self.index("tensor") == 0 else values.zero_())

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place; the same bits everywhere."""
        if self.size > 1:
            dist.all_reduce(values, group=self.group)
        return values

    def largest(self, number: int) -> int:
        """The largest of the numbers that the processes give."""
        if self.size == 1:
            return number
        found = torch.tensor(number)
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self.group)
        return int(found)

    def gathered(self, rows: Tensor) -> Tensor:
        """The rows [r ...] of all processes, in the order of ranks."""
        if self.size == 1:
            return rows
        every = rows.new_empty((self.size * len(rows), *rows.shape[1:]))
        dist.all_gather(list(torch.split(every, len(rows))), rows.contiguous(), group=self.group)
        return every

    def collected(self, message: str) -> list[str]:
        """What each process says, in the order of ranks; what is longer than 2 kB is cut."""
        words = message.encode()[:_LONGEST].ljust(_LONGEST, b"\0")
        every = self.gathered(torch.frombuffer(bytearray(words), dtype=torch.uint8)[None])
        return [row.numpy().tobytes().rstrip(b"\0").decode(errors="replace") for row in every]

    def agreed(self, value: Any) -> Any:
        """The lead's value, which JSON can hold, everywhere."""
        if self.size == 1:
            return value
        words = bytearray(json.dumps(value).encode() if self.lead else b"")
        sent = torch.zeros(self.largest(len(words)), dtype=torch.uint8)
        if self.lead:
            sent = torch.frombuffer(words, dtype=torch.uint8)
        dist.broadcast(sent, 0, group=self.group)
        return json.loads(sent.numpy().tobytes())

    def together(self, action: Callable[[], Result]) -> Result:
        """Every process acts; if one fails, all of them raise what the first of those raised."""
        if self.size == 1:
            return action()
        fault: Exception | None = None
        try:
            result = action()
        except (InputError, WorkError, OSError) as error:
            fault = error
        said = "" if fault is None else f"{'input' if isinstance(fault, InputError) else 'work'} {fault}"
        for rank, words in enumerate(self.collected(said)):
            if words:
                kind, _, message = words.partition(" ")
                where = "" if rank == 0 else f"process {rank} ({self.names[rank]}): "
                raise (InputError if kind == "input" else WorkError)(where + message) from fault
        return result

    def led(self, action: Callable[[], Result]) -> Result | None:
        """The lead acts, the others wait; its errors are raised everywhere. Only the lead has the result."""
        return self.together(lambda: action() if self.lead else None)

    def after_the_lead(self, action: Callable[[], Result]) -> Result:
        """The lead acts, however long it takes, then the others, who find what it left on the disk."""
        if self.size == 1:
            return action()
        key = f"lead/{next(self._turns)}"

        def act() -> Result:
            if not self.lead:
                self.store.wait([key], _FOR_EVER)
                return action()
            try:
                return action()
            finally:
                self.store.set(key, "done")

        return self.together(act)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Turn a message that failed into a `WorkError` that names the processes which do not answer."""
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, WorkError) or not _is_of_messages(error):
                raise
            raise WorkError(f"{self._silent()}; the last checkpoint is kept: go on with --resume") from error

    def _silent(self) -> str:
        """A roll call: who is there says so, whoever does not within a few seconds is named."""
        missing, until = set(range(self.size)), time.monotonic() + _GRACE
        try:
            self.store.set(f"here/{self.rank}", "yes")
            while missing and time.monotonic() < until:
                missing = {rank for rank in missing if not self.store.check([f"here/{rank}"])}
                time.sleep(0.05)
        except dist.DistError:
            return f"no answer from process 0 ({self.names[0]}) or from torchrun's agent on its host: dead"
        if not missing:
            return f"process {self.rank} ({self.names[self.rank]}): a message between the processes was lost"
        named = ", ".join(f"process {rank} ({self.names[rank]})" for rank in sorted(missing))
        return f"no answer from {named}: dead, or waited for longer than {self.patience:g} s"


ALONE = Team()


def _is_of_messages(error: RuntimeError) -> bool:
    known = ("gloo", "NCCL", "Connection", "Timed out")
    return isinstance(error, dist.DistError) or any(word in str(error) for word in known)
