"""How many answers a new version may have given before somebody has looked at them.

The new version answers under leases. A lease is the right to give some answers, all workers together, each an
equal share; when it is used up, the traffic goes to the control until the next one. Its size follows from a
bound on all answers so far: 40, then 96, then doubling. The bound is raised only when the answers under it
have been judged. However fast the traffic and however late the guard, no more than 96 answers can be given
before 80 have been judged, and within 80 a broken version is found (``scores.PROOF``).

A worker may not be able to use its share, because the connections are all at another one. The guard does not
wait for answers that cannot come: when some share is used up and all answers given are judged, the rest is
divided anew. What a superseded lease leaves is counted as used until every worker has taken the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from modelyard.deployment.scores import PROOF
from modelyard.serving.model import Lease, WorkerStatus

FIRST = 40
SECOND = 96
_CAUGHT_UP = 0.9


@dataclass(frozen=True, slots=True)
class Use:
    """What one worker has done with a variant.

    Attributes:
        worker: Its number.
        lease: Id of the lease that it works under.
        used: Answers used of its share.
        share: Its share.
        total: Answers and failures since its counters began.
        crashes: Times that it died while the variant was computing.
    """

    worker: int
    lease: str | None
    used: int
    share: int
    total: int
    crashes: int


def uses_of(statuses: Iterable[WorkerStatus], *, endpoint: str, variant: str, version: int) -> tuple[Use, ...]:
    """Read what the live workers say about a variant."""
    return tuple(
        Use(
            status.worker,
            each.lease,
            each.lease_used,
            each.lease_share,
            each.answers + each.errors + each.crashes,
            each.crashes,
        )
        for status in statuses
        for each in status.variants
        if (each.endpoint, each.variant, each.version) == (endpoint, variant, version)
    )


@dataclass(frozen=True, slots=True)
class Exposure:
    """State of a rollout's leases; immutable.

    Attributes:
        number: Number of the lease in force; 0 is the lease over nothing while the version is loaded.
        answers: Its size.
        before: Most answers that can have been given under the leases before it.
        target: The bound that has been allowed.
        bases: Per worker, what its counters said before the first lease.
        totals: Per worker, answers given since, as far as known.
        crashes: Per worker, crashes that its counters knew before the first lease.
    """

    number: int = 0
    answers: int = 0
    before: int = 0
    target: int = 0
    bases: Mapping[str, int] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)
    crashes: Mapping[str, int] = field(default_factory=dict)

    @property
    def bound(self) -> int:
        """Most answers that can have been given when the lease in force is used up."""
        return self.before + self.answers

    @property
    def given(self) -> int:
        """Answers that are known to have been given."""
        return sum(self.totals.values())

    def lease(self, rollout: str) -> Lease:
        """Return the lease in force."""
        return Lease(self.lease_id(rollout), self.answers)

    def lease_id(self, rollout: str) -> str:
        """Return the id of the lease in force."""
        return f"{rollout}/{self.number}"

    def open(self) -> Exposure:
        """Allow the first answers."""
        return replace(self, number=1, answers=FIRST, before=0, target=FIRST)

    def observe(self, uses: Iterable[Use], *, rollout: str) -> Exposure:
        """Take note of what the workers have done."""
        seen = list(uses)
        bases, totals, crashes = dict(self.bases), dict(self.totals), dict(self.crashes)
        for use in seen:
            key = str(use.worker)
            ours = use.lease is not None and use.lease.startswith(f"{rollout}/")
            bases.setdefault(key, use.total - use.used if ours else use.total)
            if self.number == 0:
                crashes[key] = use.crashes
            totals[key] = max(totals.get(key, 0), use.total - bases[key])
        before = self.before
        if self.everyone(seen, rollout=rollout):
            # What the lease before left unused can no longer be used.
            before = max(0, min(before, sum(totals.values()) - sum(use.used for use in seen)))
        return replace(self, before=before, bases=bases, totals=totals, crashes=crashes)

    def everyone(self, uses: Iterable[Use], *, rollout: str) -> bool:
        """Say whether every worker that ever took part is there and works under the lease in force."""
        seen = {str(use.worker): use.lease for use in uses}
        lease = self.lease_id(rollout)
        return bool(seen) and set(self.bases) <= set(seen) and all(found == lease for found in seen.values())

    def next(self, uses: Iterable[Use], *, judged: int, rollout: str) -> Exposure:
        """Return the exposure after this look: the same, a higher bound, or the rest divided anew.

        Args:
            uses: What the workers have done; ``observe`` has seen it.
            judged: Answers that the guard has judged, all of them good.
            rollout: Id of the rollout.
        """
        seen = list(uses)
        if self.number == 0:
            return self
        settled = self.everyone(seen, rollout=rollout)
        # Somebody's traffic is turned away, and what was answered is judged: no more will come. (A record in ten
        # may be lost or on its way; the bounds hold in any case.)
        caught_up = judged >= _CAUGHT_UP * self.given
        stalled = settled and caught_up and any(use.used >= use.share > 0 for use in seen)
        if judged >= self.target or (stalled and judged >= _enough(self.target)) or judged >= _ahead(self.target):
            return self._reissue(raised(self.target))
        if stalled or (settled and self.answers == 0):
            return self._reissue(self.target)
        return self

    def _reissue(self, target: int) -> Exposure:
        answers = max(0, target - self.bound)
        if answers == 0 and self.answers == 0:
            return replace(self, target=target)
        return replace(self, number=self.number + 1, answers=answers, before=self.bound, target=target)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        return plain | {name: dict(plain[name]) for name in ("bases", "totals", "crashes")}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Exposure:
        """Read what ``to_json`` wrote."""
        return cls(**value)


def raised(target: int) -> int:
    """Return the bound after this one.

    >>> [raised(40), raised(96), raised(192)]
    [96, 192, 384]
    """
    return SECOND if target < SECOND else 2 * target


def _enough(target: int) -> int:
    """Return how many judged answers suffice when no more can come under this bound."""
    return {FIRST: FIRST // 2, SECOND: PROOF}.get(target, target // 2)


def _ahead(target: int) -> int:
    """Return how many judged answers raise the bound before it is reached.

    Not before a broken version would have been found; later ones keep people from changing versions back and
    forth at the end of each lease.
    """
    return target if target <= SECOND else max(PROOF, target // 2)
