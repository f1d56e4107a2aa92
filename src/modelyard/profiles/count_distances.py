"""Distances between two vectors of counts, vectorised over leading axes.

A bootstrap null needs tens of thousands of distances between simulated counts, so every function takes
arrays of shape (..., B), which broadcast, and returns shape (...). Cells that are empty on both sides say
nothing about a difference and are left out; each side needs at least one count.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_JEFFREYS = 0.5


def shares(counts: Counts) -> Floats:
    """Divide counts of shape (..., B) by their sum over the last axis."""
    floats = counts.astype(np.float64)
    return np.asarray(floats / floats.sum(axis=-1, keepdims=True))


def population_stability_index(reference: Counts, current: Counts) -> Floats:
    """Return sum (q - p) ln(q / p) in nats, >= 0, with p and q smoothed by Jeffreys' 0.5 per cell in use.

    Args:
        reference: Counts, shape (..., B).
        current: Counts in the same cells, shape (..., B).
    """
    used = (reference > 0) | (current > 0)
    cells = used.sum(axis=-1, keepdims=True)
    p, q = (
        (counts + _JEFFREYS) / (counts.sum(axis=-1, keepdims=True) + _JEFFREYS * cells)
        for counts in (reference, current)
    )
    return np.asarray(np.where(used, (q - p) * np.log(q / p), 0.0).sum(axis=-1))


def jensen_shannon_distance(reference: Counts, current: Counts) -> Floats:
    """Return the square root of the Jensen-Shannon divergence in bits; in [0, 1], arguments as above."""
    p, q = shares(reference), shares(current)
    middle = (p + q) / 2.0
    divergence = (_relative_bits(p, middle) + _relative_bits(q, middle)) / 2.0
    return np.asarray(np.sqrt(np.clip(divergence, 0.0, 1.0)))


def _relative_bits(p: Floats, q: Floats) -> Floats:
    ratio = np.divide(p, q, out=np.ones(np.broadcast_shapes(p.shape, q.shape)), where=p > 0)
    return np.asarray((p * np.log2(ratio)).sum(axis=-1))


def hellinger_distance(reference: Counts, current: Counts) -> Floats:
    """Return sqrt(1 - sum sqrt(p q)); in [0, 1], arguments as above."""
    gap = np.sqrt(shares(reference)) - np.sqrt(shares(current))
    # Half the squared gaps equals 1 - sum sqrt(p q), without cancellation when p is near q.
    return np.asarray(np.sqrt(np.clip((gap * gap).sum(axis=-1) / 2.0, 0.0, 1.0)))


def l_infinity_distance(reference: Counts, current: Counts) -> Floats:
    """Return the largest difference between shares; in [0, 1], arguments as above."""
    return np.asarray(np.abs(shares(reference) - shares(current)).max(axis=-1))


def kolmogorov_smirnov_distance(reference: Counts, current: Counts) -> Floats:
    """Return the largest difference between cumulative shares of ordered cells; in [0, 1]."""
    gap = np.cumsum(shares(reference) - shares(current), axis=-1)
    return np.asarray(np.clip(np.abs(gap).max(axis=-1), 0.0, 1.0))


def chi_square_statistic(reference: Counts, current: Counts) -> Floats:
    """Return Pearson's statistic of homogeneity for the 2 x B table; >= 0, arguments as above."""
    m = reference.sum(axis=-1, keepdims=True).astype(np.float64)
    n = current.sum(axis=-1, keepdims=True).astype(np.float64)
    both = (reference + current).astype(np.float64)
    gap = np.sqrt(n / m) * reference - np.sqrt(m / n) * current
    return np.asarray(np.divide(gap * gap, both, out=np.zeros_like(gap), where=both > 0).sum(axis=-1))
