"""Wald's sequential test of a failure rate against a limit: ``error_rate > 1%``.

The likelihood ratio of rate p1 against p0 is an e-process under every rate <= p0 and its inverse one
under every rate >= p1 (the ratio is monotone in the number of failures). Crossing 1/alpha or 1/beta is
therefore wrong with probability at most alpha or beta, at whatever times one looks (Ville).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log, log1p, sqrt
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from modelyard.errors import Invalid

Side: TypeAlias = Literal["over", "within", "undecided"]


@dataclass(frozen=True, slots=True)
class RateTest:
    """State of the test; immutable, :meth:`update` returns the next one.

    Attributes:
        p0: The limit: rates up to it are acceptable.
        p1: Rate, above the limit, that must be caught. Rates between the two may go either way.
        alpha: Probability of calling a rate <= p0 "over".
        beta: Probability of calling a rate >= p1 "within".
        failures: Failures so far.
        n: Observations so far.
        verdict: "over", "within" or "undecided"; the first crossing stays.
        decided_at: Observations at the crossing, or None.

    Source:
        Wald (1945). Deviation: bounds 1/alpha and beta in place of (1 - beta)/alpha and
        beta/(1 - alpha), which makes both error rates exact bounds.

    >>> RateTest(p0=0.01, p1=0.05).update([True, True, True]).verdict
    'over'
    """

    p0: float
    p1: float
    alpha: float = 0.01
    beta: float = 0.1
    failures: int = 0
    n: int = 0
    verdict: Side = "undecided"
    decided_at: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.p0 < self.p1 < 1:
            raise Invalid(f"Rates must satisfy 0 < p0 < p1 < 1; they are {self.p0} and {self.p1}.")
        if not (0 < self.alpha < 1 and 0 < self.beta < 1):
            raise Invalid(f"alpha and beta lie between 0 and 1; they are {self.alpha} and {self.beta}.")

    @property
    def log_e_over(self) -> float:
        """Log evidence that the rate is above the limit; its negative speaks for "within"."""
        return self.failures * log(self.p1 / self.p0) + (self.n - self.failures) * (log1p(-self.p1) - log1p(-self.p0))

    def update(self, failed: npt.ArrayLike) -> RateTest:
        """Add observations in order of time.

        Args:
            failed: Shape (m,), booleans.

        Returns:
            The next state; the verdict may fall at any observation within the batch.
        """
        outcomes = np.asarray(failed, dtype=np.bool_).ravel()
        if not outcomes.size:
            return self
        gain, loss = log(self.p1 / self.p0), log1p(-self.p1) - log1p(-self.p0)
        path = self.log_e_over + np.cumsum(np.where(outcomes, gain, loss))
        over, within = path >= log(1 / self.alpha), path <= log(self.beta)
        after = replace(self, failures=self.failures + int(outcomes.sum()), n=self.n + outcomes.size)
        crossed = over | within
        if self.verdict != "undecided" or not crossed.any():
            return after
        first = int(crossed.argmax())
        return replace(after, verdict="over" if over[first] else "within", decided_at=self.n + first + 1)

    def add_counts(self, *, failures: int, n: int) -> RateTest:
        """Add a batch whose order is unknown; the verdict is then taken at its end."""
        if not 0 <= failures <= n:
            raise Invalid(f"{failures} failures of {n} observations is not a count.")
        after = replace(self, failures=self.failures + failures, n=self.n + n)
        if self.verdict != "undecided":
            return after
        if after.log_e_over >= log(1 / self.alpha):
            return replace(after, verdict="over", decided_at=after.n)
        if after.log_e_over <= log(self.beta):
            return replace(after, verdict="within", decided_at=after.n)
        return after

    @property
    def reason(self) -> str:
        """One sentence for a person."""
        seen = f"{self.failures:,} failures in {self.n:,} observations"
        if self.verdict == "over":
            return f"The rate is above {self.p0:.2%} ({seen}; wrong at most {self.alpha:.1%} of the time)."
        if self.verdict == "within":
            return f"The rate is below {self.p1:.2%} ({seen}; wrong at most {self.beta:.1%} of the time)."
        return f"Whether the rate is above {self.p0:.2%} is still open ({seen})."


def rate_to_catch(limit: float) -> float:
    """Return the rate p1 to test a limit against where nobody named one.

    Four tenths of a standard deviation of one observation above the limit: 5 % for a limit of 1 %,
    22 % for 10 %. It keeps the number of observations needed about the same, near 90.
    """
    return min(limit + 0.4 * sqrt(limit * (1 - limit)), (1 + limit) / 2)
