"""Ladders of runs with a known law: the refit of Chinchilla by Besiroglu et al. 2024 (arXiv 2404.10102)."""

import numpy as np

from windtunnel.comparison.scaling import Runs, ladder

E, A, B, ALPHA, BETA = 1.8172, 482.01, 2085.43, 0.3478, 0.3658
STANDARD_ERRORS = {"E": 0.026, "A": 124.6, "B": 1293.0, "alpha": 0.015, "beta": 0.021}
TRUTH = {"E": E, "A": A, "B": B, "alpha": ALPHA, "beta": BETA}


def loss(parameters, tokens):
    return E + A * parameters**-ALPHA + B * tokens**-BETA


def best_size(compute):
    """N that minimises the law at C = 6 N D."""
    return (ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA)) * (compute / 6) ** (BETA / (ALPHA + BETA))


def best_loss(compute):
    size = best_size(compute)
    return loss(size, compute / 6 / size)


def simulated(seed=0, sigma=0.0, *, saved=1.0, budgets=5, sizes=7, span=256.0, shift=1.0, bend=0.0) -> Runs:
    """Runs whose loss at C is the law's at `saved` C (by C^bend more at larger C), sizes `shift` times the best."""
    compute = np.repeat(np.geomspace(1e18, span * 1e18, budgets), sizes)
    effective = compute * saved * (compute / 1e18) ** bend
    steps = np.tile(2.0 ** np.linspace(-(sizes - 1) / 2, (sizes - 1) / 2, sizes), budgets)
    noise = np.exp(sigma * np.random.default_rng(seed).standard_normal(compute.size))
    parameters = best_size(compute) * steps * shift
    inner = best_size(effective) * steps * shift
    return ladder(
        "arm",
        parameters=parameters,
        tokens=compute / 6 / parameters,
        compute=compute,
        losses=loss(inner, effective / 6 / inner) * noise,
    )
