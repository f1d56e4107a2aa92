"""Sample ratio mismatch: whether traffic was split as configured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modelyard.errors import Invalid

ALPHA = 0.001
"""Level: Fabijan et al. (2019), KDD. A mismatch voids the experiment, so it must be beyond doubt."""

FEWEST = 1_000
"""Observations before the first look."""


@dataclass(frozen=True, slots=True)
class SplitCheck:
    """Whether a split is sane.

    Attributes:
        mismatch: True if the split is not as configured; None if there are too few observations.
        chi2: Pearson's statistic.
        p_value: Of one look; for a check after every batch use :class:`ScoreSkew` with the shares
            as ``q`` and tolerance 0.
        n: Number of observations.
        reason: One sentence.
    """

    mismatch: bool | None
    chi2: float
    p_value: float
    n: int
    reason: str


def split_check(
    counts: Sequence[int], shares: Sequence[float], *, alpha: float = ALPHA, fewest: int = FEWEST
) -> SplitCheck:
    """Test whether observed arm sizes fit the configured shares.

    Args:
        counts: Observations per arm.
        shares: Configured weight per arm, > 0; need not sum to 1.
        alpha: Level.
        fewest: Observations below which the answer is "not yet".

    Raises:
        Invalid: If arms and shares differ in number, fewer than two, or a share is not positive.

    Source:
        Pearson's chi-square, sum (O - E)^2 / E; Fabijan et al. (2019).
    """
    from scipy.special import chdtrc  # noqa: PLC0415 (SciPy is slow to import)

    observed, weights = np.asarray(counts, dtype=np.float64), np.asarray(shares, dtype=np.float64)
    if observed.shape != weights.shape or observed.size < 2 or not (weights > 0).all():
        raise Invalid("A split needs two or more arms, each with a count and a positive share.")
    n = int(observed.sum())
    expected = weights / weights.sum() * n
    chi2 = float(((observed - expected) ** 2 / expected).sum()) if n else 0.0
    p_value = float(chdtrc(observed.size - 1, chi2))
    if n < fewest:
        return SplitCheck(None, chi2, p_value, n, f"{n:,} observations; {fewest:,} are needed to judge the split.")
    got = " / ".join(f"{share:.1%}" for share in observed / n)
    want = " / ".join(f"{share:.1%}" for share in weights / weights.sum())
    mismatch = p_value < alpha
    verdict = "does not fit" if mismatch else "fits"
    return SplitCheck(
        mismatch, chi2, p_value, n, f"The split {got} {verdict} the configured {want} (p = {p_value:.2g})."
    )
