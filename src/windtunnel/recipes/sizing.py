"""How recipes choose sizes: named published ones, and everything else following from the width."""

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from windtunnel.errors import InputError
from windtunnel.root import Model
from windtunnel.spec import nearest

Settings = Mapping[str, Any]
Sizes = Mapping[str, Settings]
Built = TypeVar("Built", bound=Model)

DEFAULTS: Settings = {"vocab": 1024, "layers": 6, "width": 256, "context": 256}
_OPTIONAL = inspect.Parameter("size", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=str | None)
_COUNTS = (
    "vocab",
    "layers",
    "width",
    "context",
    "heads",
    "kv_heads",
    "hidden",
    "head_width",
    "rows",
    "columns",
    "experts",
    "every",
)


@dataclass(frozen=True)
class Training:
    """What a recipe declares about its own training.

    learning_rate: the centre of its grid under AdamW at width 64; it falls with 1/sqrt(width).
    weight_decay, warmup: given only where the paper's idea includes them; None takes the common setting.
    why: the reason, printed wherever the common settings are left.
    """

    learning_rate: float = 3e-3
    weight_decay: float | None = None
    warmup: float | None = None
    why: str = ""

    def learning_rate_at(self, width: int) -> float:
        """The centre of the grid for a model of this width."""
        return self.learning_rate * math.sqrt(64 / width)


@dataclass(frozen=True)
class Paper:
    """How a paper trained: the fields of `TrainingSettings` that leave their defaults and do not depend on size.

    What is not given here keeps its default, the learning rate that of the recipe for its width. why: the source, and
    what could not be taken over.
    """

    settings: Mapping[str, Any]
    why: str


def recipe(sizes: Sizes) -> Callable[[Callable[..., Built]], Callable[..., Built]]:
    """Make a function of vocab, layers, width, context and its own settings a recipe.

    All are keywords. What is not given comes from the named `size`, else from DEFAULTS, else from the function's own
    default. Raises `InputError` for an unknown size or setting, with the nearest names, and for counts below 1.
    """

    def decorate(function: Callable[..., Built]) -> Callable[..., Built]:
        known = {"size": _OPTIONAL, **inspect.signature(function).parameters}

        @functools.wraps(function)
        def build(*, size: str | None = None, **given: Any) -> Built:
            if size is not None and size not in sizes:
                raise InputError(f"size: unknown size {size!r}{nearest(size, sizes)}")
            for name in given:
                if name not in known:
                    raise InputError(f"{function.__name__} has no setting {name!r}{nearest(name, known)}")
            settings = {**DEFAULTS, **(sizes[size] if size is not None else {})}
            settings |= {name: value for name, value in given.items() if value is not None}
            _check_counts(settings)
            return function(**settings)

        optional = [one.replace(default=None) if one.default is one.empty else one for one in known.values()]
        build.__signature__ = inspect.Signature(optional)  # type: ignore[attr-defined]
        return build

    return decorate


def heads_for(width: int) -> int:
    """Heads of 64, but at least 4 of them; reduced to a divisor of the width that leaves an even head width."""
    wanted = max(4, width // 64)
    for heads in range(wanted, 0, -1):
        if width % heads == 0 and (width // heads) % 2 == 0:
            return heads
    raise InputError(f"width: no number of heads divides {width} into even head widths; choose an even width")


def one_of(setting: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a word that a setting does not have, with the nearest that it has."""
    if value not in allowed:
        raise InputError(f"{setting}: unknown choice {value!r}{nearest(value, allowed)}")


def grid_for(length: int, rows: int | None = None) -> tuple[int, int]:
    """Rows and columns of a grid of `length` points; None takes the most even one with at least as many columns."""
    if rows is None:
        rows = next(rows for rows in range(math.isqrt(length), 0, -1) if length % rows == 0)
    if rows < 1 or length % rows:
        raise InputError(f"rows: {rows} does not divide the context of {length}")
    return rows, length // rows


def gated_hidden(width: int) -> int:
    """8/3 of the width, rounded up to a multiple of 8: the parameters of an ungated MLP of 4 x width."""
    return math.ceil(8 * width / 3 / 8) * 8


def _check_counts(settings: Settings) -> None:
    for name in _COUNTS:
        value = settings.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise InputError(f"{name}: expected a whole number of at least 1, got {value!r}")
