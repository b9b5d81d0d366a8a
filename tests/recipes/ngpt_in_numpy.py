"""nGPT written a second time, from the equations of arXiv 2410.01131 alone: numpy, loops over heads, no autograd.

Every operation is analytic, so a complex step through it gives derivatives to the last digit:
d/dx f = Im f(x + i h) / h.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.complexfloating | np.floating]


def norm(x: Array) -> Array:
    """x / ||x||, without conjugation."""
    return x / np.sqrt((x * x).sum(-1, keepdims=True))


def rotated(x: Array) -> Array:
    """Rotary positions of x [t k], base 10 000: pairs (i, i + k/2) as one complex number turned by m * theta_i."""
    t, k = x.shape
    angle = np.arange(t)[:, None] * 10_000.0 ** (-2 * np.arange(k // 2) / k)
    first, second = x[:, : k // 2], x[:, k // 2 :]
    return np.concatenate(
        [np.cos(angle) * first - np.sin(angle) * second, np.sin(angle) * first + np.cos(angle) * second], axis=1
    )


def attended(h: Array, w: dict[str, Array], heads: int) -> Array:
    """Equations 12-16: q and k normalised after the rotation and scaled by s_qk, scores times sqrt(k)."""
    q, k, v = h @ w["q"].T, h @ w["k"].T, h @ w["v"].T
    width = q.shape[1] // heads
    out = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        query = norm(rotated(q[:, part])) * w["s_qk"][part]
        key = norm(rotated(k[:, part])) * w["s_qk"][part]
        rows = []
        for row in range(len(h)):
            scores = np.sqrt(width) * (key[: row + 1] @ query[row])
            weights = np.exp(scores - scores.real.max())
            rows.append((weights / weights.sum()) @ v[: row + 1, part])
        out.append(np.array(rows))
    return np.concatenate(out, axis=1) @ w["o"].T


def transformed(h: Array, w: dict[str, Array]) -> Array:
    """Equations 18-21: u and v scaled, v also by sqrt(d), then u * SiLU(v)."""
    u = (h @ w["u"].T) * w["s_u"]
    v = (h @ w["v_mlp"].T) * w["s_v"] * np.sqrt(h.shape[1])
    return (u * v / (1 + np.exp(-v))) @ w["o_mlp"].T


def logits(tokens: NDArray[np.integer], model: dict[str, Array], layers: list[dict[str, Array]], heads: int) -> Array:
    """Equations 7-11 and 3: the update on the sphere twice a layer, no final norm, logits times s_z."""
    h = model["in"][tokens]
    for w in layers:
        h = norm(h + np.sqrt(w["a_A"] ** 2) * (norm(attended(h, w, heads)) - h))
        h = norm(h + np.sqrt(w["a_M"] ** 2) * (norm(transformed(h, w)) - h))
    return (h @ model["out"].T) * model["s_z"]


def cross_entropy(z: Array, targets: NDArray[np.integer]) -> complex:
    """Mean over positions, in nats."""
    shifted = z - z.real.max(-1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(-1))
    return complex((log_sum - shifted[np.arange(len(targets)), targets]).mean())
