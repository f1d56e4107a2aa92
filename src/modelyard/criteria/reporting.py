"""The verdict of one clause: outcome, evidence and one sentence that says why."""

from __future__ import annotations

from datetime import datetime

from modelyard.criteria.facts import Answer, Missing, NotApplicable, Observation, Scalar
from modelyard.criteria.model import (
    LITERALS,
    Clause,
    Comparison,
    Fact,
    Match,
    Membership,
    Presence,
    Text,
    Within,
)
from modelyard.criteria.text import to_text
from modelyard.criteria.verdict import ClauseVerdict, Limit, Outcome

_LONGEST = 200  # characters of an observed text that a reason repeats


def decided(node: Clause, answer: Observation | None, truth: bool, reason: str, limit: Limit = None) -> ClauseVerdict:
    """Report a clause that is true or false."""
    return _reported(node, answer, Outcome.of(truth), reason, limit)


def compared(node: Clause, answer: Observation, truth: bool, test: str, limit: Limit) -> ClauseVerdict:
    """Report a clause that compared an observation; ``test`` says with what."""
    subject = _subject_text(node)
    return decided(node, answer, truth, f"{subject} is {shown(answer)}; {'' if truth else 'not '}{test}.", limit)


def unknown(node: Clause, answer: Observation, reason: str, limit: Limit = None) -> ClauseVerdict:
    """Report a clause that the observed value cannot decide."""
    return _reported(node, answer, Outcome.UNKNOWN, reason, limit)


def undecided(node: Clause, answer: Answer, limit: Limit = None) -> ClauseVerdict:
    """Report a clause whose subject has no usable value."""
    match answer:
        case NotApplicable(reason):
            return _reported(node, None, Outcome.NOT_APPLICABLE, reason, None)
        case Missing(reason):
            return _reported(node, None, Outcome.UNKNOWN, reason, limit)
        case Observation():
            return unknown(node, answer, f"{_subject_text(node)} is not a number (NaN).", limit)


def _reported(node: Clause, answer: Observation | None, outcome: Outcome, reason: str, limit: Limit) -> ClauseVerdict:
    text = to_text(node)
    if answer is None:
        return ClauseVerdict(text, outcome, reason, limit=limit)
    return ClauseVerdict(
        text, outcome, reason, answer.value, limit, answer.interval, answer.unit, dict(answer.evidence)
    )


def _subject_text(node: Clause) -> str:
    match node:
        case Comparison(left, _, right):
            return to_text(right if isinstance(left, LITERALS) else left)
        case Membership() | Match() | Presence() | Within() | Fact():
            return to_text(node.subject)
        case _:
            return to_text(node)


def shown(answer: Observation) -> str:
    """Write an observed value with its unit and interval."""
    value = written(answer.value, answer.unit)
    if answer.interval is None:
        return value
    low, high = (written(bound, answer.unit) for bound in answer.interval)
    return f"{value} (interval {low} to {high})"


def written(value: Scalar, unit: str | None) -> str:
    """Write a value for a reason; numbers in full, so that 0.8499999 never reads as 0.85."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return to_text(Text(value)) if len(value) <= _LONGEST else f"{to_text(Text(value[:_LONGEST]))}…"
    text = value.isoformat() if isinstance(value, datetime) else repr(value)
    return text if unit is None else f"{text} {unit}"
