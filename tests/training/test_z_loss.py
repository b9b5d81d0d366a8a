"""z-loss in training: PaLM's gradient, and a reported cross-entropy without it."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.proof import Proof
from windtunnel.data.sampler import Sampler
from windtunnel.data.shards import Dataset
from windtunnel.execution import Execution
from windtunnel.kernels import linear_cross_entropy
from windtunnel.training.loop import Trainer


def test_gradient_by_logits_is_palms(proof: Proof) -> None:
    """softmax (1 + 2 · 1e-4 log Z) - onehot, by an identity matrix for the unembedding; and torch's own autograd."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(11, 23, generator=draw, dtype=torch.float64).mul_(5).requires_grad_()
    targets = torch.randint(23, (11,), generator=draw)
    targets[4] = -1
    cross_entropy, z_term = linear_cross_entropy(logits, torch.eye(23, dtype=torch.float64), targets, z_loss=1e-4)
    gradient = torch.autograd.grad(cross_entropy + z_term, logits)[0]
    counted = (targets >= 0)[:, None]
    log_z = logits.logsumexp(-1, keepdim=True)
    written_out = logits.softmax(-1) * (1 + 2e-4 * log_z) - F.one_hot(targets.clamp(min=0), 23)
    apart = float((gradient - written_out * counted / 10).detach().abs().max())
    theirs = F.cross_entropy(logits, targets, ignore_index=-1)
    theirs_z = 1e-4 * (log_z.square() * counted).sum() / 10
    autograd = torch.autograd.grad(theirs + theirs_z, logits)[0]
    assert apart < 1e-15
    torch.testing.assert_close(gradient, autograd, atol=1e-15, rtol=1e-12)
    torch.testing.assert_close(z_term, theirs_z)
    proof(
        "z-loss",
        "torch autograd, float64",
        gradients=float((gradient - autograd).detach().abs().max()),
        closed_form=apart,
    )


@pytest.mark.parametrize("accumulation", [1, 4])
def test_training_minimises_it_and_reports_without_it(
    dataset: Dataset, make_spec: Any, make_settings: Any, accumulation: int
) -> None:
    settings = make_settings(z_loss=0.01, accumulation=accumulation, clip=None)
    execution = Execution(device="cpu", threads=1).resolve()
    sampler = Sampler(dataset.train, 16, 0)
    trainer = Trainer(make_spec("palm").build().initialize(1), sampler, settings, execution)
    batch = sampler.batch(0, 4)
    logits = trainer.model(batch.tokens, documents=batch.documents).logits.flatten(0, 1)
    cross_entropy = F.cross_entropy(logits, batch.targets.flatten())
    z_term = 0.01 * logits.logsumexp(-1).square().mean()
    wanted = torch.autograd.grad(cross_entropy + z_term, list(trainer.model.parameters()))
    step = trainer.advance(0, None)
    assert float(step.loss) == pytest.approx(cross_entropy.item(), rel=1e-5)
    assert float(step.layers["z_loss"]) == pytest.approx(z_term.item(), rel=1e-5)
    assert float(step.norm) == pytest.approx(float(sum(g.square().sum() for g in wanted) ** 0.5), rel=1e-4)
