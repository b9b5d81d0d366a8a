"""Two sources of noise: other seeds, and other text. Differences are taken document by document."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from windtunnel.errors import InputError
from windtunnel.statistics import Floats, Interval, satterthwaite, t_quantile


@dataclass(frozen=True)
class DocumentLosses:
    """Held-out losses of both arms at one horizon, on the same documents.

    variant, baseline: summed nats, seeds x documents. weights: tokens (or bytes) of each document.
    clusters: a label for each document; None makes each document its own cluster.
    """

    variant: Floats
    baseline: Floats
    weights: Floats
    clusters: np.ndarray | None = None

    @classmethod
    def of(
        cls, variant: ArrayLike, baseline: ArrayLike, weights: ArrayLike, clusters: ArrayLike | None = None
    ) -> "DocumentLosses":
        """Checks the shapes: both arms [seeds, documents], weights [documents]."""
        first, second = (np.atleast_2d(np.asarray(arm, dtype=np.float64)) for arm in (variant, baseline))
        amounts = np.asarray(weights, dtype=np.float64)
        if first.shape[1:] != second.shape[1:] or first.shape[1:] != amounts.shape:
            raise InputError(
                f"documents: variant {first.shape}, baseline {second.shape} and weights {amounts.shape} "
                "must count the same documents"
            )
        if not amounts.sum() > 0:
            raise InputError("documents: no held-out token was counted")
        return cls(first, second, amounts, None if clusters is None else np.asarray(clusters))

    @property
    def clusters_count(self) -> int:
        """How many clusters the documents form."""
        return int(self._labels().max()) + 1

    def difference(self) -> float:
        """Seed-mean difference of nats per unit of weight."""
        return float((self.variant.mean(axis=0) - self.baseline.mean(axis=0)).sum() / self.weights.sum())

    def error(self) -> float:
        """Clustered standard error over documents of the paired, seed-averaged difference.

        SE^2 = (sum w)^-2 sum_clusters (sum_{i in c} w_i (d_i - Delta))^2, with w_i d_i the difference in nats.
        """
        nats = self.variant.mean(axis=0) - self.baseline.mean(axis=0)  # documents
        return _clustered_error(nats - self.weights * self.difference(), self.weights, self._labels())

    def unpaired_error(self) -> float:
        """What the error would be with different documents for each arm: the worth of pairing."""
        parts = []
        for arm in (self.variant, self.baseline):
            nats = arm.mean(axis=0)
            residual = nats - self.weights * (nats.sum() / self.weights.sum())
            parts.append(_clustered_error(residual, self.weights, self._labels()))
        return math.hypot(*parts)

    def _labels(self) -> np.ndarray:
        if self.clusters is None:
            return np.arange(self.weights.size)
        return np.unique(self.clusters, return_inverse=True)[1].reshape(-1)


def _clustered_error(residuals: Floats, weights: Floats, labels: np.ndarray) -> float:
    totals = np.bincount(labels, weights=residuals)  # clusters
    return float(np.sqrt((totals**2).sum()) / weights.sum())


def combined_interval(
    difference: float, seed_error: float, seeds: int, document_error: float, documents: int, level: float = 0.95
) -> Interval:
    """Seeds and documents together: SE^2 = SE_seed^2 + SE_documents^2, Satterthwaite degrees of freedom."""
    if seeds < 2 or documents < 2 or not math.isfinite(seed_error):
        return Interval(difference, -math.inf, math.inf)
    total = math.hypot(seed_error, document_error)
    if total == 0:
        return Interval(difference, difference, difference)
    freedom = satterthwaite([seed_error**2, document_error**2], [seeds - 1, documents - 1])
    half = t_quantile(level, freedom) * total
    return Interval(difference, difference - half, difference + half)
