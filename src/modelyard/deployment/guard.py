"""The guard of one rollout: what it has seen, and what it says.

It is fed with prediction rows and holds no clock and no I/O, so that its decisions depend on observed rows
alone and go on where they stopped after a restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from modelyard import criteria
from modelyard.deployment.arms import ArmTally, Outcomes, facts_of
from modelyard.deployment.limits import LimitTest, read_conditions
from modelyard.deployment.model import WEIGHT_TOTAL, Canary, Check, Verdict
from modelyard.deployment.rows import Rows
from modelyard.deployment.scores import PROOF, ControlMemory, ScoreWatch

_AT_ONCE = 2_000  # rows taken together: the control memory must still hold the neighbours of the first of them


@dataclass(frozen=True, slots=True)
class Guard:
    """State of the guard; immutable.

    Attributes:
        canary: All that the new version has answered.
        control: All that the control has answered over the same time.
        step_answers: Answers of the new version in this step.
        limits: Tests of limits on the new version alone.
        scores: Test of its scores.
        taus: Mixture scales of compared metrics, fixed at their first look.
        incidents: What the workers reported: a version that cannot be loaded, a crash. It never goes away.
    """

    canary: ArmTally
    control: ArmTally
    step_answers: int
    limits: tuple[LimitTest, ...]
    scores: ScoreWatch
    taus: Mapping[str, float] = field(default_factory=dict)
    incidents: tuple[Check, ...] = ()

    @classmethod
    def begin(cls, canary: Canary, scores: ScoreWatch) -> Guard:
        """Return the guard before the first row."""
        return cls(ArmTally(), ArmTally(), 0, read_conditions(canary).limits, scores)

    @property
    def judged(self) -> int:
        """Answers of the new version that every test has seen."""
        return self.canary.answers - len(self.scores.pending)

    def update(self, rows: Rows, memory: ControlMemory) -> Guard:
        """Take new rows of both arms."""
        state = self
        for first in range(0, rows.count, _AT_ONCE):
            state = state._take(rows.slice(first, first + _AT_ONCE), memory)
        return state

    def enter_step(self, canary: Canary, step: int) -> Guard:
        """Begin to count the answers of a step anew."""
        state = replace(self, step_answers=0)
        return state.settle_scores(canary, step)

    def settle_scores(self, canary: Canary, step: int) -> Guard:
        """End the score test where there is no concurrent control left to compare with."""
        alone = canary.weight(step) == WEIGHT_TOTAL
        if alone and self.scores.running and self.scores.test.n >= min(PROOF, canary.min_answers):
            return replace(self, scores=self.scores.end())
        return self

    def report(self, incident: Check) -> Guard:
        """Take note of an incident; one of each name."""
        if any(each.name == incident.name for each in self.incidents):
            return self
        return replace(self, incidents=(*self.incidents, incident))

    def decide(self, canary: Canary, *, outcomes: Outcomes) -> tuple[Guard, tuple[Check, ...]]:
        """Return every check, and the state with the scales of metrics that were compared for the first time."""
        taus = dict(self.taus)
        facts = facts_of(self.canary, self.control, outcomes=outcomes, taus=taus)
        checks = [
            *self.incidents,
            *(limit.check() for limit in self.limits),
            self.scores.check(fewest=min(PROOF, canary.min_answers)),
            self._answers(canary),
        ]
        for text in read_conditions(canary).others:
            checks.append(self._condition(text, facts, canary))  # noqa: PERF401 - reads better than a comprehension
        return replace(self, taus=taus), tuple(checks)

    def _take(self, rows: Rows, memory: ControlMemory) -> Guard:
        new, old = rows.only(rows.canary), rows.only(~rows.canary)
        return replace(
            self,
            canary=self.canary.add(new),
            control=self.control.add(old),
            step_answers=self.step_answers + new.count,
            limits=tuple(limit.update(new) for limit in self.limits),
            scores=self.scores.update(rows, memory),
        )

    def _answers(self, canary: Canary) -> Check:
        evidence = {
            "step": self.step_answers,
            "needed": canary.min_answers,
            "all": self.canary.answers,
            "champion": self.control.answers,
        }
        seen = f"{self.step_answers:,} answers in this step; {canary.min_answers:,} are needed."
        enough = self.step_answers >= canary.min_answers
        return Check("answers", Verdict.SUCCESS if enough else Verdict.NO_DATA, seen, evidence)

    def _condition(self, text: str, facts: criteria.Facts, canary: Canary) -> Check:
        verdict = criteria.decide(criteria.parse(text), facts)
        reasons = " ".join(clause.reason for clause in verdict.clauses)
        evidence = {"condition": text, **verdict.to_json()}
        if verdict.outcome is criteria.Outcome.UNKNOWN:
            return Check(text, Verdict.NO_DATA, reasons, evidence)
        if not verdict.holds:
            return Check(text, Verdict.SUCCESS, reasons, evidence)
        # A fact of a handful of answers proves nothing; sequential comparisons bring their own minimum.
        enough = min(self.canary.answers, self.control.answers) >= canary.min_answers
        if not enough and not criteria.functions(criteria.parse(text)):
            return Check(text, Verdict.NO_DATA, f"Too few answers to tell: {reasons}", evidence)
        return Check(text, Verdict.FAILURE, reasons, evidence)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "canary": self.canary.to_json(),
            "control": self.control.to_json(),
            "step_answers": self.step_answers,
            "limits": [limit.to_json() for limit in self.limits],
            "scores": self.scores.to_json(),
            "taus": dict(self.taus),
            "incidents": [incident.to_json() for incident in self.incidents],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Guard:
        """Read what ``to_json`` wrote."""
        return cls(
            ArmTally.from_json(value["canary"]),
            ArmTally.from_json(value["control"]),
            value["step_answers"],
            tuple(LimitTest.from_json(each) for each in value["limits"]),
            ScoreWatch.from_json(value["scores"]),
            value["taus"],
            tuple(Check.from_json(each) for each in value["incidents"]),
        )


def failures(checks: tuple[Check, ...]) -> tuple[Check, ...]:
    """Return the checks that take the version back at once."""
    return tuple(check for check in checks if check.verdict is Verdict.FAILURE)


def unsettled(checks: tuple[Check, ...]) -> tuple[Check, ...]:
    """Return the checks that a step still waits for.

    A score test goes on over several steps: once it has seen enough, that it is still open holds nobody up.
    """
    return tuple(
        check
        for check in checks
        if check.verdict is Verdict.NO_DATA or (check.verdict is Verdict.INCONCLUSIVE and check.name != "scores")
    )
