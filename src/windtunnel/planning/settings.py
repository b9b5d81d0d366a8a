"""What a plan is asked, and what it assumes where nothing is said."""

from dataclasses import dataclass, field, replace

import torch

from windtunnel.errors import InputError
from windtunnel.spec import nearest

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
OPTIMISERS = {
    "adamw": "two float32 moments",
    "adam": "two float32 moments",
    "adafactor": "two float32 moments: PaLM's is not factored",
    "muon": "one float32 moment of matrices, two of all else",
    "sgd": "one float32 moment",
}
STEP_TOKENS = 1 << 22
TOKENS_PER_PARAMETER = 20


@dataclass(frozen=True, kw_only=True)
class Settings:
    """batch: sequences a step; None is what makes about 4M tokens. tokens: to train on; None is 20 a parameter.

    optimiser, dtype: dtype None is bfloat16 where the hardware has it; weights are float32 always.
    gradients: bytes of a gradient, kept and sent. recompute: the share of the forward pass that runs again in the
    backward pass; None tries 0 and 1. microbatch: sequences of a device at a time; None is the most that fits.
    utilisation: the share of the peak that products reach while they run. link_share: the share of published
    bandwidths that transfers reach. memory_share: the share of the memory that can be used.
    throughput: tokens a second as observed, in place of the modelled. price: of a device-hour.
    serve_length: tokens of a served sequence; None is the context. serve_mesh: tensor and pipeline of one copy of the
    model; None is the fewest devices. given: which of these were said rather than assumed, and `mesh` if it was.
    """

    batch: int | None = None
    tokens: int | None = None
    optimiser: str = "adamw"
    dtype: str | None = None
    gradients: int | None = None
    recompute: float | None = None
    microbatch: int | None = None
    utilisation: float = 0.6
    link_share: float = 0.7
    memory_share: float = 0.9
    throughput: float | None = None
    price: float | None = None
    serve_length: int | None = None
    serve_mesh: str | None = None
    given: frozenset[str] = field(default=frozenset(), compare=False)

    def __post_init__(self) -> None:
        if self.optimiser not in OPTIMISERS:
            known = ", ".join(OPTIMISERS)
            raise InputError(f"optimiser: unknown {self.optimiser!r}{nearest(self.optimiser, OPTIMISERS)}; of {known}")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise InputError(f"dtype: expected {' or '.join(DTYPES)}, got {self.dtype!r}")
        for name in ("batch", "tokens", "microbatch", "gradients", "serve_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}: expected at least 1, got {value}")
        for name in ("utilisation", "link_share", "memory_share"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"{name}: expected a number above 0 and up to 1, got {getattr(self, name):g}")
        if self.recompute is not None and not 0 <= self.recompute <= 1:
            raise InputError(f"recompute: expected a share from 0 to 1, got {self.recompute:g}")
        for name in ("throughput", "price"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"{name}: expected a number above 0, got {value:g}")

    def for_precision(self, dtype: str) -> "Settings":
        """With the precision, and gradients of its width unless given."""
        return replace(self, dtype=dtype, gradients=self.gradients or DTYPES[dtype].itemsize)

    @property
    def element(self) -> int:
        """Bytes of an activation and of a parameter in use."""
        return DTYPES[self.dtype or "float32"].itemsize

    @property
    def gradient_bytes(self) -> int:
        """Bytes of a gradient."""
        return self.gradients or self.element
