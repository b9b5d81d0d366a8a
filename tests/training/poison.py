"""Bad data: some sequences of the order are noise instead of text, whoever reads them and whenever."""

from collections.abc import Sequence

import torch

from windtunnel.data.sampler import Batch, Sampler

_read = Sampler.read


def poison(*bad: Sequence[int], vocab: int = 256) -> None:
    """From now on these sequences are uniformly random tokens. `cure` takes it back."""
    spoilt = {sequence for part in bad for sequence in part}

    def read(self: Sampler, sequences: range) -> Batch:
        batch = _read(self, sequences)
        for row, sequence in enumerate(sequences):
            if sequence in spoilt:
                noise = torch.randint(vocab, (2, self.context), generator=torch.Generator().manual_seed(sequence))
                batch.tokens[row], batch.targets[row] = noise
        return batch

    Sampler.read = read  # type: ignore[method-assign]


def cure() -> None:
    """Read the data as it is."""
    Sampler.read = _read  # type: ignore[method-assign]
