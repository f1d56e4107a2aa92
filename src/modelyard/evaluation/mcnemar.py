"""McNemar's exact test: two classifiers, the same rows, right or wrong."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt

from modelyard.errors import Invalid
from modelyard.evaluation.estimate import normal_quantile


@dataclass(frozen=True, slots=True)
class McNemar:
    """Accuracy of two classifiers on the same rows.

    Attributes:
        n: Number of rows.
        gained: Rows that only the challenger gets right.
        lost: Rows that only the champion gets right.
        difference: Accuracy of the challenger minus that of the champion.
        p_greater: One-sided exact p-value of "the challenger is not better".
        p_less: One-sided exact p-value of "the challenger is not worse".
        p_value: Two-sided exact p-value.
    """

    n: int
    gained: int
    lost: int
    difference: float
    p_greater: float
    p_less: float
    p_value: float

    def bounds(self, *, confidence: float) -> tuple[float, float]:
        """Return the two-sided interval of the difference in accuracy.

        Source:
            Agresti & Min (2005), Statistics in Medicine 24: Wald's after adding 1/2 to each of the
            four cells, which repairs its coverage when few rows are discordant.
        """
        total = self.n + 2
        b, c = self.gained + 0.5, self.lost + 0.5
        centre = (b - c) / total
        half = normal_quantile(0.5 + confidence / 2) * sqrt((b + c) - (b - c) ** 2 / total) / total
        return max(-1.0, centre - half), min(1.0, centre + half)


def mcnemar(champion_right: npt.ArrayLike, challenger_right: npt.ArrayLike) -> McNemar:
    """Compare two classifiers by the rows on which exactly one of them is right.

    Args:
        champion_right: Shape (n,), booleans: whether the first model is right. n >= 1.
        challenger_right: Shape (n,), the same of the second model.

    Returns:
        Counts, difference and exact p-values, valid for any number of discordant rows.

    Raises:
        Invalid: If the two do not have the same shape, or there are no rows.

    Source:
        McNemar (1947); Dietterich (1998): given b + c discordant rows, b is Bin(b + c, 1/2) when
        neither is better; p = min(1, 2 P[Bin(b + c, 1/2) <= min(b, c)]).
    """
    old = np.asarray(champion_right, dtype=np.bool_)
    new = np.asarray(challenger_right, dtype=np.bool_)
    if old.shape != new.shape or old.ndim != 1 or not old.size:
        raise Invalid(f"Two equal, non-empty columns are expected, not shapes {old.shape} and {new.shape}.")
    gained, lost = int((new & ~old).sum()), int((old & ~new).sum())
    greater, less = _tail(gained, lost), _tail(lost, gained)
    return McNemar(
        n=old.size,
        gained=gained,
        lost=lost,
        difference=(gained - lost) / old.size,
        p_greater=greater,
        p_less=less,
        p_value=min(1.0, 2 * min(greater, less)),
    )


def _tail(wins: int, losses: int) -> float:
    """Return P[Bin(wins + losses, 1/2) >= wins] = P[Bin(wins + losses, 1/2) <= losses]."""
    from scipy.special import bdtr  # noqa: PLC0415 (SciPy is slow to import)

    return float(bdtr(losses, wins + losses, 0.5))
