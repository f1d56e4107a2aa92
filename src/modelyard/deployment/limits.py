"""Limits on the canary alone, as sequential tests: ``error_rate > 1%``, ``latency_p99 > 50ms``.

A limit on a percentile is one on a rate: the 99th percentile is above 50 ms when more than 1 % of the answers
take longer. Wald's test decides either way after some 60 answers and is wrong at a stated rate, whatever the
traffic. Once it has accepted it starts anew, so that what breaks later is found as fast; the rounds share one
probability of a false alarm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from modelyard import criteria
from modelyard.deployment.model import Canary, Check, Verdict, parse_condition
from modelyard.deployment.rows import BoolArray, Rows
from modelyard.evaluation.sprt import RateTest, rate_to_catch

ALPHA = 0.01
"""Probability that a rate within the limit is ever called over it, over all rounds."""
DEFAULT_LIMIT = "error_rate > 1%"

_SHARES = {"latency_p50": 0.5, "latency_p95": 0.05, "latency_p99": 0.01}
_LEAST_RATE, _LEAST_CAUGHT = 1e-6, 0.01  # a limit of zero: the first failure decides
_MIRRORED = {criteria.Operator.LT: criteria.Operator.GT, criteria.Operator.LE: criteria.Operator.GE}


@dataclass(frozen=True, slots=True)
class LimitTest:
    """State of the test of one limit; immutable.

    Attributes:
        text: The limit as written.
        rate: Share of bad answers that is acceptable.
        slower_than_us: What makes an answer bad: taking longer; None for failing.
        round: How often the test has started, from 1.
        failures: Bad answers of this round.
        n: Answers of this round.
        over_at: Answer, counted over all rounds, at which the limit was found exceeded; None if it was not.
        total_failures: Bad answers of all rounds.
        total: Answers of all rounds.
    """

    text: str
    rate: float
    slower_than_us: float | None = None
    round: int = 1
    failures: int = 0
    n: int = 0
    over_at: int | None = None
    total_failures: int = 0
    total: int = 0

    @property
    def test(self) -> RateTest:
        """Wald's test of this round; round j has the share 1 / (j (j + 1)) of the false alarms, which sum to 1."""
        p0 = max(self.rate, _LEAST_RATE)
        p1 = max(rate_to_catch(p0), _LEAST_CAUGHT)
        alpha = ALPHA / (self.round * (self.round + 1))
        return RateTest(p0, p1, alpha=alpha, failures=self.failures, n=self.n)

    def update(self, canary: Rows) -> LimitTest:
        """Add answers of the canary in their order."""
        bad: BoolArray = canary.failed
        if self.slower_than_us is not None:
            answered = canary.only(~canary.failed)
            bad = np.asarray(answered.latency_us > self.slower_than_us, dtype=np.bool_)
        state = self
        while bad.size and state.over_at is None:
            after = state.test.update(bad)
            taken = bad.size if after.decided_at is None else after.decided_at - state.n
            state = state._after(bad[:taken], after)
            bad = bad[taken:]
        return replace(state, total=state.total + int(bad.size), total_failures=state.total_failures + int(bad.sum()))

    def _after(self, bad: BoolArray, test: RateTest) -> LimitTest:
        total, failures = self.total + int(bad.size), self.total_failures + int(bad.sum())
        state = replace(self, total=total, total_failures=failures)
        if test.verdict == "over":
            return replace(state, failures=self.failures + int(bad.sum()), n=self.n + int(bad.size), over_at=total)
        if test.verdict == "within":
            return replace(state, round=self.round + 1, failures=0, n=0)
        return replace(state, failures=test.failures, n=test.n)

    def check(self) -> Check:
        """Say how it stands."""
        name = "errors" if self.slower_than_us is None else self.text
        what = "failed" if self.slower_than_us is None else f"took longer than {self.slower_than_us / 1000:g} ms"
        seen = f"{self.total_failures:,} of {self.total:,} answers {what}"
        evidence = {
            "limit": self.text,
            "rate": self.rate,
            "bad": self.total_failures,
            "answers": self.total,
            "rounds": self.round,
            "over_at": self.over_at,
            "false_alarm_probability": ALPHA,
        }
        if self.over_at is not None:
            reason = f"{seen}; the limit is {self.rate:.2%} (a false alarm in at most {ALPHA:.0%} of rollouts)."
            return Check(name, Verdict.FAILURE, reason, evidence)
        if not self.total:
            return Check(name, Verdict.NO_DATA, "It has not answered yet.", evidence)
        if self.round > 1:
            return Check(name, Verdict.SUCCESS, f"{seen}, which is within {self.text!r}'s limit.", evidence)
        reason = f"{seen}; whether that is within {self.rate:.2%} is still open."
        return Check(name, Verdict.INCONCLUSIVE, reason, evidence)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LimitTest:
        """Read what ``to_json`` wrote."""
        return cls(**value)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What ``abort_if`` comes to.

    Attributes:
        limits: Limits on the canary alone, one on the error rate among them.
        others: Everything else, decided on facts.
    """

    limits: tuple[LimitTest, ...]
    others: tuple[str, ...]


def read_conditions(canary: Canary) -> Conditions:
    """Split the conditions of a canary into limits that are tested and others that are decided on facts.

    ``a or b`` aborts when either holds, so its parts are separate conditions.
    """
    parts: list[criteria.Condition] = []
    for text in canary.abort_if:
        node = parse_condition(text)
        parts += node.parts if isinstance(node, criteria.AnyOf) else (node,)
    limits, others = [], []
    for part in parts:
        limit = _limit(part)
        if limit is None:
            others.append(criteria.to_text(part))
        else:
            limits.append(limit)
    if all(limit.slower_than_us is not None for limit in limits):
        default = _limit(criteria.parse(DEFAULT_LIMIT))
        limits = [*([] if default is None else [default]), *limits]
    return Conditions(tuple(limits), tuple(others))


def _limit(node: criteria.Condition) -> LimitTest | None:
    """Return the test of a plain upper limit on a rate or a percentile; None for anything else."""
    if not isinstance(node, criteria.Comparison):
        return None
    left, operator, right = node.left, node.operator, node.right
    if isinstance(left, criteria.Number):
        left, operator, right = right, _MIRRORED.get(operator, operator), left
    above = operator in {criteria.Operator.GT, criteria.Operator.GE}
    if not above or not isinstance(left, criteria.Name) or not isinstance(right, criteria.Number):
        return None
    text = criteria.to_text(node)
    if left.path == "error_rate" and 0 <= right.magnitude < 1:
        return LimitTest(text, float(right.magnitude))
    if left.path in _SHARES and right.magnitude > 0:
        # Without a unit it is in milliseconds, as latencies are shown.
        microseconds = right.magnitude * (1e6 if right.unit else 1e3)
        return LimitTest(text, _SHARES[left.path], float(microseconds))
    return None
