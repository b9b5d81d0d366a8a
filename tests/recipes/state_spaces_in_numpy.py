"""LRU and H3 language models in numpy, one sequence at a time, written from the papers' equations with plain loops.

Weights are looked up under Windtunnel's names; nothing else is shared with it.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Weights = Mapping[str, Array]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def layer_norm(x: Array, w: Weights, name: str) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(x: Array, w: Weights, name: str) -> Array:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def lru(u: Array, w: Weights, name: str) -> Array:
    """u [t d] to [t d]; the state is a vector of complex numbers."""
    nu, theta, log_gamma = w[f"{name}.modes"]
    eigenvalues = np.exp(-np.exp(nu) + 1j * np.exp(theta))
    into = w[f"{name}.into_real"] + 1j * w[f"{name}.into_imaginary"]
    out_of = w[f"{name}.out_of_real"] + 1j * w[f"{name}.out_of_imaginary"]
    state, outputs = np.zeros(len(nu), dtype=complex), []
    for token in u:
        state = eigenvalues * state + np.exp(log_gamma) * (into @ token)
        outputs.append((out_of @ state).real + w[f"{name}.skip"] * token)
    active = gelu(np.array(outputs))
    return linear(active, w, f"{name}.value") * sigmoid(linear(active, w, f"{name}.gate"))


def h3(u: Array, w: Weights, name: str) -> Array:
    """u [t d] to [t d]: a delay line for each channel of k, a matrix of states for each head."""
    q, k, v = (linear(u, w, f"{name}.{each}") for each in "qkv")
    width, heads = u.shape[1], len(w[f"{name}.log_step"])
    line, shifted = np.zeros_like(w[f"{name}.shift_into"]), []
    for token in k:
        line = np.concatenate([np.zeros((width, 1)), line[:, :-1]], axis=1) + w[f"{name}.shift_into"] * token[:, None]
        shifted.append((w[f"{name}.shift_out"] * line).sum(1) + w[f"{name}.shift_skip"] * token)
    step = np.exp(w[f"{name}.log_step"])
    a = -np.exp(w[f"{name}.log_rate"]) + 1j * w[f"{name}.frequency"]
    b, c = (w[f"{name}.{each}"] @ np.array([1, 1j]) for each in ("into", "out_of"))
    size = width // heads
    y = np.zeros_like(u)
    for h in range(heads):
        own = slice(h * size, (h + 1) * size)
        a_bar = (1 + step[h] * a[h] / 2) / (1 - step[h] * a[h] / 2)
        b_bar = step[h] * b[h] / (1 - step[h] * a[h] / 2)
        state = np.zeros((size, size, len(a_bar)), dtype=complex)
        for t in range(len(u)):
            product = np.outer(shifted[t][own], v[t, own])
            state = a_bar * state + b_bar * product[..., None]
            output = 2 * (state @ c[h]).real + w[f"{name}.skip"][h] * product
            y[t, own] = q[t, own] @ output
    return linear(y, w, f"{name}.o")


def logits(tokens: NDArray[np.int64], w: Weights, layers: int, mixer: Callable[[Array, Weights, str], Array]) -> Array:
    """[t v] of tokens [t]; an MLP where there are weights for one."""
    x = w["embedding.weight"][tokens]
    for index in range(layers):
        block = f"blocks.{index}"
        x = x + mixer(layer_norm(x, w, f"{block}.residual.mixer_norm"), w, f"{block}.mixer")
        if f"{block}.mlp.up.weight" in w:
            hidden = gelu(linear(layer_norm(x, w, f"{block}.residual.mlp_norm"), w, f"{block}.mlp.up"))
            x = x + linear(hidden, w, f"{block}.mlp.down")
    return layer_norm(x, w, "norm") @ w.get("head.weight", w["embedding.weight"]).T


def mean_loss(scores: Array, targets: NDArray[np.int64]) -> float:
    """Mean cross-entropy in nats."""
    highest = scores.max(-1, keepdims=True)
    total = np.log(np.exp(scores - highest).sum(-1)) + highest[:, 0]
    return float((total - scores[np.arange(len(targets)), targets]).mean())
