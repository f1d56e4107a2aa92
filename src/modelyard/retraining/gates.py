"""Gates: conditions on what training measured, decided with stated error rates.

``better_than(champion, roc_auc, min_gain=0.002)`` and ``not_worse(champion, roc_auc, margin=0.01)`` need both models
scored on the same rows. The child does that, so the workflow first collects which comparisons the gates ask for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from modelyard.criteria import (
    Condition,
    Missing,
    Name,
    NotApplicable,
    Observation,
    Outcome,
    Verdict,
    check_names,
    decide,
    to_text,
)
from modelyard.criteria import parse as parse_condition
from modelyard.criteria.facts import Answer, Argument
from modelyard.errors import Invalid, nearest
from modelyard.evaluation import Task, metric_names

COMPARISONS = ("better_than", "not_worse")
GateOutcome = Literal["passed", "failed", "inconclusive"]
_LATENCY = ("latency_p50", "latency_p95", "latency_p99")
_OPTIONS = {"better_than": {"min_gain", "alpha"}, "not_worse": {"margin", "alpha"}}
_TASKS: tuple[Task, ...] = ("binary", "multiclass", "regression")


@dataclass(frozen=True, slots=True)
class GateReport:
    """What the gates said of a version.

    Attributes:
        outcome: ``passed`` if every gate did, one about a champion that does not exist being left out;
            ``failed`` if one is false; ``inconclusive`` if one cannot be answered and none is false.
        gates: Text of each gate with its verdict as JSON.
        reason: One line for a person: the first gate that did not pass, or that all did.
    """

    outcome: GateOutcome
    gates: tuple[Mapping[str, Any], ...]
    reason: str

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return self.outcome == "passed"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"passed": self.passed, "outcome": self.outcome, "gates": list(self.gates), "reason": self.reason}


def parse_gates(texts: Sequence[str]) -> list[Condition]:
    """Parse gates and check every name and option in them.

    Raises:
        ParseError: Points at the column and names the nearest right word.
        Invalid: If a comparison has wrong arguments; says what it takes.
    """
    metrics = {name for task in _TASKS for name in metric_names(task)}
    known = {*metrics, *_LATENCY, "rows", "champion"}
    conditions = [parse_condition(text, known=known) for text in texts]
    for condition in conditions:
        check_names(condition, known, {*COMPARISONS, "lower", "upper"})
        decide(condition, _Collector({}))
    return conditions


def requested(conditions: Sequence[Condition]) -> dict[str, dict[str, Any]]:
    """Return the comparisons that the gates ask for: ``kind``, ``metric`` and ``options`` each, by a stable key."""
    found: dict[str, dict[str, Any]] = {}
    for condition in conditions:
        decide(condition, _Collector(found))
    return found


def judge(conditions: Sequence[Condition], result: Mapping[str, Any], *, has_champion: bool) -> GateReport:
    """Decide every gate from what the child measured.

    Args:
        conditions: Parsed gates.
        result: What ``training.run`` returned.
        has_champion: Whether a version is in production.
    """
    facts = GateFacts(result, has_champion=has_champion)
    verdicts = [(condition, decide(condition, facts)) for condition in conditions]
    failed = [(condition, verdict) for condition, verdict in verdicts if not verdict.passed]
    gates = tuple({"gate": to_text(condition), **verdict.to_json()} for condition, verdict in verdicts)
    if failed:
        # A gate that is false decides, whatever is not known.
        condition, verdict = next((pair for pair in failed if pair[1].outcome is Outcome.FALSE), failed[0])
        outcome: GateOutcome = "failed" if verdict.outcome is Outcome.FALSE else "inconclusive"
        return GateReport(outcome, gates, f"{to_text(condition)}: {_why(verdict)}")
    return GateReport("passed", gates, f"all {len(gates)} gates passed" if gates else "no gate is declared")


class GateFacts:
    """Facts about a freshly trained version.

    Args:
        result: What ``training.run`` returned.
        has_champion: Whether a version is in production.
    """

    def __init__(self, result: Mapping[str, Any], *, has_champion: bool) -> None:
        self._result = result
        self._has_champion = has_champion

    def value(self, path: str) -> Answer:
        """Return a metric on the holdout, a latency, or the number of training rows."""
        if path in _LATENCY:
            quantile = path.removeprefix("latency_")
            return Observation(self._result["latency"][f"{quantile}_ms"], unit="ms", evidence=self._machine())
        if path == "rows":
            return Observation(self._result["rows"]["train"])
        measured = self._result["metrics"].get(path)
        if measured is None:
            return Missing(f"{path} is not a metric of this {self._result['task']} model")
        if measured["value"] is None:
            return Missing(measured["reason"])
        return Observation(measured["value"], interval=(measured["low"], measured["high"]))

    def call(self, name: str, args: tuple[Argument, ...], kwargs: Mapping[str, Argument]) -> Answer:
        """Return the verdict of a comparison with the champion."""
        if name not in COMPARISONS:
            return Missing(f"there is no function {name}")
        if not self._has_champion:
            return NotApplicable("there is no champion yet")
        key, _ = _request(name, args, kwargs)
        found = self._result["comparisons"].get(key)
        if found is None:
            return Missing("no labelled row that the champion has not seen was there to compare on")
        return _slices(found) if name == "not_worse" else _comparison(found)

    def held(self, node: object, seconds: float) -> Answer:
        """Say that a training has no history."""
        return Missing("a gate looks at one moment; 'for' has no meaning in it")

    def _machine(self) -> Mapping[str, Any]:
        return {"machine": self._result["latency"].get("machine"), "calls": self._result["latency"].get("calls")}


def _comparison(found: Mapping[str, Any]) -> Answer:
    if found["verdict"] == "inconclusive":
        return Missing(found["reason"])
    return Observation(found["verdict"] == "promote", evidence=found)


def _slices(found: Mapping[str, Any]) -> Answer:
    slices = found["slices"].values()
    undecided = next((item["reason"] for item in slices if item["verdict"] == "inconclusive"), None)
    if undecided is not None:
        return Missing(undecided)
    return Observation(all(item["verdict"] == "not_worse" for item in slices), evidence=found)


class _Collector:
    """Facts that know nothing and write down which comparisons are asked for."""

    def __init__(self, found: dict[str, dict[str, Any]]) -> None:
        self._found = found

    def value(self, path: str) -> Answer:
        return Missing("not measured yet")

    def call(self, name: str, args: tuple[Argument, ...], kwargs: Mapping[str, Argument]) -> Answer:
        if name in COMPARISONS:
            key, request = _request(name, args, kwargs)
            self._found[key] = request
        return Missing("not measured yet")

    def held(self, node: object, seconds: float) -> Answer:
        return Missing("not measured yet")


def _request(name: str, args: tuple[Argument, ...], kwargs: Mapping[str, Argument]) -> tuple[str, dict[str, Any]]:
    if len(args) != 2 or args[0] != Name("champion") or not isinstance(args[1], Name):
        raise Invalid(f"{name} takes champion and a metric: {name}(champion, roc_auc).")
    for option in kwargs:
        if option not in _OPTIONS[name]:
            near = nearest(option, _OPTIONS[name])
            raise Invalid(f"{name} has no option {option!r}." + (f" Did you mean {near!r}?" if near else ""))
    if name == "not_worse" and "margin" not in kwargs:
        raise Invalid("not_worse needs the loss that is tolerated: not_worse(champion, roc_auc, margin=0.01).")
    request = {"kind": name, "metric": args[1].path, "options": dict(kwargs)}
    return json.dumps(request, sort_keys=True, default=str), request


def _why(verdict: Verdict) -> str:
    return next((clause.reason for clause in verdict.clauses if clause.outcome is verdict.outcome), "did not pass")
