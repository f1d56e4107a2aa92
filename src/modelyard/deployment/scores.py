"""The score test of a rollout: are the canary's scores where they should be among the control's?

It finds a version that is served wrongly (columns swapped, stale features, wrong artifact) within 80 answers,
long before labels come. It runs over the first ``HORIZON`` scores: what is broken from the start shows by
then, and small honest differences between two versions, which any test must find in the end, are not its
matter: labels judge those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from modelyard.deployment.model import Check, Verdict
from modelyard.deployment.placing import NEIGHBOURS, ExpectedBins, place
from modelyard.deployment.rows import BoolArray, FloatArray, IntArray, Rows
from modelyard.evaluation.score_skew import ALPHA, BINS, TOLERANCE, ScoreSkew, effective_control

HORIZON = 500
"""Canary scores after which the test ends."""
PROOF = 80
"""Canary scores within which a shift of 0.5 nats is found in at least 99 % of rollouts
(tests/statistical/test_guard.py)."""
WIDE_TOLERANCE = 0.3
"""Tolerance between versions of the same training data where no gate has measured the difference."""
_FEWEST_CONTROL = 2 * NEIGHBOURS
_PATIENCE = 4 * NEIGHBOURS  # control rows after which a score is placed although its window is one-sided
_KEEP = 5_000

Source = Literal["gate", "same_training", "none"]


class ControlMemory:
    """The control's latest scores, in order of event time; rebuilt from the prediction log after a restart."""

    def __init__(self) -> None:
        self.times_us: IntArray = np.empty(0, dtype=np.int64)
        self.scores: FloatArray = np.empty(0)

    def add(self, times_us: IntArray, scores: FloatArray) -> None:
        """Add scores; the oldest of more than 5,000 are forgotten."""
        times, values = np.concatenate([self.times_us, times_us]), np.concatenate([self.scores, scores])
        order = np.argsort(times, kind="stable")[-_KEEP:]
        self.times_us, self.scores = times[order], values[order]

    def __len__(self) -> int:
        return int(self.times_us.size)


@dataclass(frozen=True, slots=True)
class ScoreWatch:
    """State of the test; immutable.

    Attributes:
        source: Where the expectation comes from: measured by the ``gate``, the ``same_training`` data, or
            ``none``: there is no test.
        why: Why there is no test, or on what it stands.
        seed: Makes the random part of placing ties repeatable.
        reference: Rows behind the expectation, None if it is exact.
        test: The sequential test.
        control_seen: Control scores so far.
        pending: Canary scores whose later neighbours have not come yet: time, score, ``control_seen`` then.
        done: Whether the test has ended without an alarm.
    """

    source: Source
    why: str
    seed: int = 0
    reference: int | None = None
    test: ScoreSkew = field(default_factory=ScoreSkew)
    control_seen: int = 0
    pending: tuple[tuple[int, float, int], ...] = ()
    done: bool = False

    @property
    def running(self) -> bool:
        """Whether scores are still being judged."""
        return self.source != "none" and not self.done

    def update(self, rows: Rows, memory: ControlMemory) -> ScoreWatch:
        """Take new rows, and judge every canary score that has its neighbours.

        Args:
            rows: New rows of both arms; those whose version the client chose are not looked at.
            memory: The control's latest scores; those of ``rows`` are added to it.
        """
        if not self.running:
            return self
        if bool((~rows.failed & ~np.isfinite(rows.score)).any()):
            # A version that gives no finite score fails on the row; here there are several scores, or none.
            return ScoreWatch("none", "the answers do not hold one score a row.")
        control = self.remember(rows, memory)
        canary = rows.only(_usable(rows) & rows.canary)
        seen = self.control_seen + control.count
        arrived = zip(canary.time_us.tolist(), canary.score.tolist(), strict=True)
        waiting = [*self.pending, *((time, score, seen) for time, score in arrived)]
        return replace(self, control_seen=seen, pending=tuple(waiting))._judge(memory)

    def remember(self, rows: Rows, memory: ControlMemory) -> Rows:
        """Add the control's usable rows to the memory, and return them."""
        control = rows.only(_usable(rows) & ~rows.canary)
        memory.add(control.time_us, control.score)
        return control

    def end(self) -> ScoreWatch:
        """End the test: from here on there is no concurrent control."""
        return replace(self, done=True, pending=()) if self.running and not self.test.alarmed else self

    def check(self, *, fewest: int) -> Check:
        """Say how it stands.

        Args:
            fewest: Scores below which a step waits.
        """
        test = self.test
        evidence: dict[str, Any] = {"source": self.source, "scores": test.n, "control_scores": self.control_seen}
        if self.source == "none":
            return Check("scores", Verdict.INCONCLUSIVE, f"Scores are not compared: {self.why}", evidence)
        evidence |= {
            "counts": list(test.counts),
            "expected": [round(share, 4) for share in test.q],
            "tolerance": test.tolerance,
            "false_alarm_probability": test.alpha,
            "log_evidence": round(test.log_e, 3),
            "alarmed_at": test.alarmed_at,
        }
        if test.alarmed:
            reason = (
                f"After {test.alarmed_at} answers its scores do not fall among the champion's as they should, on the "
                f"same traffic at the same time (false alarm in at most {test.alpha:.1%} of rollouts). Usual causes: "
                "columns swapped, features stale or missing, a wrong model file."
            )
            return Check("scores", Verdict.FAILURE, reason, evidence)
        if self.done or test.n >= fewest:
            verdict = Verdict.SUCCESS if self.done else Verdict.INCONCLUSIVE
            return Check("scores", verdict, f"{test.n:,} scores fall where they should. {self.why}", evidence)
        waits = "" if self.control_seen else " The champion has answered nothing meanwhile."
        reason = f"{test.n:,} of {fewest:,} scores are judged.{waits}"
        return Check("scores", Verdict.NO_DATA, reason, evidence)

    def _judge(self, memory: ControlMemory) -> ScoreWatch:
        if self.control_seen < _FEWEST_CONTROL or not self.pending:
            return self
        times = np.array([each[0] for each in self.pending], dtype=np.int64)
        since = self.control_seen - np.array([each[2] for each in self.pending])
        later = len(memory) - np.searchsorted(memory.times_us, times, side="right")
        ready = (later >= NEIGHBOURS) | (since >= _PATIENCE)
        if not ready.any():
            return self
        chosen = np.flatnonzero(ready)[np.argsort(times[ready], kind="stable")]
        scores = np.array([self.pending[i][1] for i in chosen])
        rng = np.random.default_rng([self.seed, self.test.n])
        bins = place(memory.times_us, memory.scores, times[chosen], scores, rng=rng, bins=len(self.test.q))
        size = self.control_seen if self.reference is None else effective_control(self.control_seen, self.reference)
        left = tuple(each for each, gone in zip(self.pending, ready, strict=True) if not gone)
        test = self.test.update(bins[: HORIZON - self.test.n], control_size=size)
        after = replace(self, test=test, pending=left)
        return after.end() if test.n >= HORIZON else after

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        test = self.test
        return {
            "source": self.source,
            "why": self.why,
            "seed": self.seed,
            "reference": self.reference,
            "q": list(test.q),
            "tolerance": test.tolerance,
            "alpha": test.alpha,
            "control_size": test.control_size,
            "counts": list(test.counts),
            "log_e": test.log_e,
            "alarmed_at": test.alarmed_at,
            "control_seen": self.control_seen,
            "pending": [list(each) for each in self.pending],
            "done": self.done,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ScoreWatch:
        """Read what ``to_json`` wrote."""
        test = ScoreSkew(
            q=tuple(value["q"]),
            tolerance=value["tolerance"],
            alpha=value["alpha"],
            control_size=value["control_size"],
            counts=tuple(value["counts"]),
            log_e=value["log_e"],
            alarmed_at=value["alarmed_at"],
        )
        pending = tuple((int(time), float(score), int(seen)) for time, score, seen in value["pending"])
        return cls(
            value["source"],
            value["why"],
            value["seed"],
            value["reference"],
            test,
            value["control_seen"],
            pending,
            value["done"],
        )


def _usable(rows: Rows) -> BoolArray:
    return ~rows.pinned & ~rows.failed & np.isfinite(rows.score)


def choose_test(expected: ExpectedBins | None, *, control: int | None, same_training: bool, seed: int) -> ScoreWatch:
    """Choose the test that the evidence about both versions allows.

    Args:
        expected: What the gate measured, if it did.
        control: Version of the control, None if there is none.
        same_training: Whether both versions were trained on the same data.
        seed: See ``ScoreWatch``.
    """
    if control is None:
        return ScoreWatch("none", "there is no other version yet.")
    if expected is not None and expected.control_version == control:
        why = f"The expectation was measured on {expected.rows:,} rows before the rollout."
        test = ScoreSkew(q=expected.q, tolerance=TOLERANCE, alpha=ALPHA)
        return ScoreWatch("gate", why, seed, expected.rows, test)
    if same_training:
        why = "Both versions were trained on the same data; no gate has measured how they differ."
        test = ScoreSkew(q=(1 / BINS,) * BINS, tolerance=WIDE_TOLERANCE, alpha=ALPHA)
        return ScoreWatch("same_training", why, seed, None, test)
    measured = "" if expected is None else f" (the gate compared with version {expected.control_version})"
    why = (
        f"the versions were trained on different data, and no gate has measured how version {control}'s successor "
        f"should score{measured}. Errors and the conditions of abort_if are watched."
    )
    return ScoreWatch("none", why)
