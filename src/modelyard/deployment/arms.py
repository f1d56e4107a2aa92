"""What has been seen of each arm, and the facts that conditions are decided on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any, TypeAlias

import numpy as np

from modelyard import criteria
from modelyard.deployment.model import CHAMPION
from modelyard.deployment.rows import Rows
from modelyard.errors import Invalid
from modelyard.evaluation.estimate import wilson
from modelyard.evaluation.msprt import FEWEST, Arm, default_tau
from modelyard.evaluation.noninferiority import sequential_noninferiority

ALPHA = 0.01
"""Probability that a version which is not worse is ever called worse, per condition."""

_STEPS = 16  # latency buckets per doubling: a percentile is off by at most 4.5 %

Outcome: TypeAlias = tuple[Arm, Arm, bool]
Outcomes: TypeAlias = Callable[[str], Outcome | None]
"""Measured outcomes by metric name: control arm, canary arm, whether higher is better; None if unknown."""


@dataclass(frozen=True, slots=True)
class ArmTally:
    """Counts of one arm; they add exactly.

    Attributes:
        answers: Rows that it answered or failed on.
        failed: Rows that it failed on.
        latencies: Answered rows per latency bucket.
        latency_ms: Sum of latencies.
        latency_ms_sq: Sum of their squares.
    """

    answers: int = 0
    failed: int = 0
    latencies: Mapping[str, int] = field(default_factory=dict)
    latency_ms: float = 0.0
    latency_ms_sq: float = 0.0

    def add(self, rows: Rows) -> ArmTally:
        """Count rows of this arm."""
        if not rows.count:
            return self
        answered_ms = rows.latency_us[~rows.failed] / 1000
        buckets = np.ceil(np.log2(np.maximum(answered_ms, 1e-3)) * _STEPS).astype(int)
        latencies = dict(self.latencies)
        for bucket, count in zip(*np.unique(buckets, return_counts=True), strict=True):
            latencies[str(bucket)] = latencies.get(str(bucket), 0) + int(count)
        return ArmTally(
            self.answers + rows.count,
            self.failed + int(rows.failed.sum()),
            latencies,
            self.latency_ms + float(answered_ms.sum()),
            self.latency_ms_sq + float((answered_ms**2).sum()),
        )

    def latency_quantile_ms(self, share: float) -> float | None:
        """Return the upper edge of the bucket that holds a quantile; None without an answer."""
        wanted = ceil(share * sum(self.latencies.values()))
        reached = 0
        for bucket in sorted(map(int, self.latencies)):
            reached += self.latencies[str(bucket)]
            if reached >= wanted:
                return float(2 ** (bucket / _STEPS))
        return None

    def facts(self) -> dict[str, object]:
        """Return what conditions may ask, by the names in ``model.MEASURES``."""
        answered = self.answers - self.failed
        absent = criteria.Missing("There is no answer yet.")
        found: dict[str, object] = {"answers": self.answers}
        if self.answers:
            interval = wilson(self.failed, self.answers)
            found["error_rate"] = criteria.Observation(self.failed / self.answers, interval)
        for name, share in (("latency_p50", 0.5), ("latency_p95", 0.95), ("latency_p99", 0.99)):
            value = self.latency_quantile_ms(share)
            found[name] = absent if value is None else criteria.Observation(value, unit="ms")
        found["latency"] = criteria.Observation(self.latency_ms / answered, unit="ms") if answered else absent
        return {"error_rate": absent, **found}

    def arm(self, metric: str) -> Arm | None:
        """Return this arm's mean of a metric that the guard measures itself; None for others."""
        if metric == "error_rate":
            return Arm.of_counts(self.failed, self.answers)
        if metric == "latency":
            return Arm(self.answers - self.failed, self.latency_ms, self.latency_ms_sq)
        return None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {name: getattr(self, name) for name in self.__slots__} | {"latencies": dict(self.latencies)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ArmTally:
        """Read what ``to_json`` wrote."""
        return cls(**value)


def facts_of(
    canary: ArmTally, control: ArmTally, *, outcomes: Outcomes, taus: dict[str, float]
) -> criteria.MappingFacts:
    """Return the facts that conditions are decided on.

    Args:
        canary: The new version's arm.
        control: The concurrent control's arm.
        outcomes: Metrics that the guard does not measure itself.
        taus: Mixture scale of each compared metric; the scale of a metric's first look is added and kept.
    """
    values = canary.facts() | {f"{CHAMPION}.{name}": value for name, value in control.facts().items()}

    def worse_than(rival: object, metric: object, margin: object = 0.0) -> criteria.Answer:
        if rival != criteria.Name(CHAMPION) or not isinstance(metric, criteria.Name):
            raise Invalid("expected worse_than(champion, metric)")
        if isinstance(margin, bool) or not isinstance(margin, int | float):
            raise Invalid("the margin is a number, the largest loss that is tolerated")
        return compare_arms(metric.path, canary, control, margin=float(margin), outcomes=outcomes, taus=taus)

    return criteria.MappingFacts(values, functions={"worse_than": worse_than})


def compare_arms(
    metric: str,
    canary: ArmTally,
    control: ArmTally,
    *,
    margin: float,
    outcomes: Outcomes,
    taus: dict[str, float],
) -> criteria.Answer:
    """Say whether the canary is shown to be worse than the concurrent control; may be asked at any time."""
    new, old = canary.arm(metric), control.arm(metric)
    higher_is_better = False
    if new is None or old is None:
        found = outcomes(metric)
        if found is None:
            return criteria.Missing(f"Nothing is measured under the name {metric!r} yet.")
        old, new, higher_is_better = found
    fewest = min(old.n, new.n)
    if fewest < FEWEST:
        return criteria.Missing(f"{fewest:,} outcomes of {metric} in the smaller arm; {FEWEST:,} are needed.")
    tau = taus.setdefault(metric, default_tau(old))
    judged = sequential_noninferiority(old, new, margin=margin, tau=tau, alpha=ALPHA, higher_is_better=higher_is_better)
    evidence = {
        "metric": metric,
        "champion": old.mean,
        "canary": new.mean,
        "champion_outcomes": old.n,
        "canary_outcomes": new.n,
        "margin": margin,
        "false_alarm_probability": ALPHA,
        "verdict": judged.verdict,
        "reason": judged.reason,
    }
    return criteria.Observation(judged.verdict == "worse", evidence=evidence)
