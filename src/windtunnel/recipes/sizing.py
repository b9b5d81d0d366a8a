"""How recipes choose sizes: named published ones, and everything else following from the width."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from windtunnel.errors import InputError
from windtunnel.spec import nearest

Settings = Mapping[str, Any]
Sizes = Mapping[str, Settings]

DEFAULTS: Settings = {"vocab": 1024, "layers": 6, "width": 256, "context": 256}


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


def choose(sizes: Sizes, size: str | None, **given: Any) -> SimpleNamespace:
    """Settings of a model: those given, else the named size's, else the defaults; None where nothing says more."""
    if size is not None and size not in sizes:
        raise InputError(f"size: unknown size {size!r}{nearest(size, sizes)}")
    published = sizes[size] if size is not None else {}
    chosen = {
        name: value if value is not None else published.get(name, DEFAULTS.get(name)) for name, value in given.items()
    }
    for name in ("vocab", "layers", "width", "context", "heads", "kv_heads", "hidden", "head_width"):
        value = chosen.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise InputError(f"{name}: expected a whole number of at least 1, got {value!r}")
    return SimpleNamespace(**chosen)


def heads_for(width: int) -> int:
    """Heads of 64, but at least 4 of them; reduced to a divisor of the width that leaves an even head width."""
    wanted = max(4, width // 64)
    for heads in range(wanted, 0, -1):
        if width % heads == 0 and (width // heads) % 2 == 0:
            return heads
    raise InputError(f"width: no number of heads divides {width} into even head widths; choose an even width")


def gated_hidden(width: int) -> int:
    """8/3 of the width, rounded up to a multiple of 8: the parameters of an ungated MLP of 4 x width."""
    return math.ceil(8 * width / 3 / 8) * 8


def build(recipe: Callable[..., Any], settings: Settings, name: str) -> Any:
    """Call a recipe with settings from outside; an unknown setting is refused with the nearest names."""
    known = inspect.signature(recipe).parameters
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    for setting in settings:
        if setting not in known and not anything:
            raise InputError(f"{name} has no setting {setting!r}{nearest(setting, known)}")
    return recipe(**settings)
