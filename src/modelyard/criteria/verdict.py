"""The outcome of deciding a condition, with the evidence for every clause."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from modelyard.criteria.facts import Scalar

Limit: TypeAlias = Scalar | tuple[Scalar, ...] | None


class Outcome(StrEnum):
    """Three values of truth, and one for a question that does not arise."""

    TRUE = "true"
    FALSE = "false"
    UNKNOWN = "unknown"
    NOT_APPLICABLE = "not_applicable"

    @classmethod
    def of(cls, truth: bool) -> Outcome:
        """Return the outcome for a plain truth."""
        return cls.TRUE if truth else cls.FALSE

    def negated(self) -> Outcome:
        """Exchange true and false; the other two stay what they are."""
        return {Outcome.TRUE: Outcome.FALSE, Outcome.FALSE: Outcome.TRUE}.get(self, self)


def conjunction(outcomes: Iterable[Outcome]) -> Outcome:
    """Combine as ``and`` does: false beats unknown beats true; what is not applicable is left out.

    Source: Kleene's strong logic of three values (Introduction to Metamathematics, 1952, §64). Deviation:
    the fourth value is dropped before, and remains only if nothing else does.
    """
    return _combine(outcomes, (Outcome.FALSE, Outcome.UNKNOWN, Outcome.TRUE))


def disjunction(outcomes: Iterable[Outcome]) -> Outcome:
    """Combine as ``or`` does: true beats unknown beats false; what is not applicable is left out."""
    return _combine(outcomes, (Outcome.TRUE, Outcome.UNKNOWN, Outcome.FALSE))


def _combine(outcomes: Iterable[Outcome], strongest_first: tuple[Outcome, ...]) -> Outcome:
    present = set(outcomes)
    return next((outcome for outcome in strongest_first if outcome in present), Outcome.NOT_APPLICABLE)


@dataclass(frozen=True, slots=True)
class ClauseVerdict:
    """What became of one clause.

    Attributes:
        text: The clause; with ``not`` before it where it stands under a negation, so that true always speaks
            for the condition.
        outcome: Its outcome.
        reason: One sentence: what was observed against what, or why nothing was.
        observed: The value looked up; None if there is none.
        limit: What it was compared with, converted to the unit of the observed value.
        interval: Confidence interval of the observed value.
        unit: Unit of observed value, limit and interval.
        evidence: What the facts gave as backing.
    """

    text: str
    outcome: Outcome
    reason: str
    observed: Scalar | None = None
    limit: Limit = None
    interval: tuple[float, float] | None = None
    unit: str | None = None
    evidence: Mapping[str, object] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values; times as ISO text, numbers that are not finite as null."""
        limit = [_json(value) for value in self.limit] if isinstance(self.limit, tuple) else _json(self.limit)
        return {
            "text": self.text,
            "outcome": self.outcome.value,
            "reason": self.reason,
            "observed": _json(self.observed),
            "limit": limit,
            "interval": None if self.interval is None else [_json(bound) for bound in self.interval],
            "unit": self.unit,
            "evidence": dict(self.evidence),
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a condition.

    It has no truth value of its own, since ``if verdict:`` would hide which of the two questions is meant:

    * :attr:`holds`: the condition is true. For triggers, alerts and guards.
    * :attr:`passed`: nothing speaks against it: true, or wholly not applicable. For gates, so that the first
      version of a model is not stopped by a champion that does not exist yet.
    """

    outcome: Outcome
    clauses: tuple[ClauseVerdict, ...]

    @property
    def holds(self) -> bool:
        """Whether the condition is true."""
        return self.outcome is Outcome.TRUE

    @property
    def passed(self) -> bool:
        """Whether a gate lets it through: true or not applicable; never for missing data."""
        return self.outcome in {Outcome.TRUE, Outcome.NOT_APPLICABLE}

    def __bool__(self) -> bool:
        raise TypeError("A verdict is not a truth; ask for .holds (triggers, guards) or .passed (gates).")

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values."""
        return {"outcome": self.outcome.value, "clauses": [clause.to_json() for clause in self.clauses]}


def _json(value: Scalar | None) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    return None if isinstance(value, float) and not math.isfinite(value) else value
