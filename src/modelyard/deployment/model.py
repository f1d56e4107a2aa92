"""What deployment knows: the declared canary, endpoints, rollouts and the guard's checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal, get_args

from modelyard import criteria
from modelyard.deployment.durations import duration
from modelyard.errors import Invalid, nearest

OnSilence = Literal["roll_back", "hold"]

MEASURES = ("error_rate", "latency", "latency_p50", "latency_p95", "latency_p99", "answers")
"""What the guard measures of each arm; ``champion.<name>`` is the same of the control."""
FACTS = (*MEASURES, *(f"champion.{name}" for name in MEASURES))
FUNCTIONS = ("worse_than",)
CHAMPION = "champion"

WEIGHT_TOTAL = 10_000
_LEAST_STEP = 100 / WEIGHT_TOTAL


@dataclass(frozen=True, slots=True)
class Canary:
    """How a new version comes to answer everything.

    Each step sends a share of the entities to the new version, and ends when its bake is over, enough answers
    were seen and every check of the guard is content. A failed check takes the version back at once, at any
    step.

    Attributes:
        steps: Percentages of traffic, rising, the last one 100.
        bake: Least time of a step, by the injected clock.
        abort_if: Conditions that take the version back, in the condition language over ``FACTS`` and
            ``worse_than(champion, metric)``. Without one on ``error_rate``, ``error_rate > 1%`` is added.
        min_answers: Answers of the new version that a step needs, >= 1.
        max_wait: Time in one step after which silence (too few answers, or checks still open) is acted on.
        on_silence: What is done then: ``roll_back``, or ``hold`` until a person decides.
    """

    steps: tuple[float, ...] = (5, 25, 100)
    bake: str = "10m"
    abort_if: tuple[str, ...] = field(default=(), kw_only=True)
    min_answers: int = field(default=100, kw_only=True)
    max_wait: str = field(default="7d", kw_only=True)
    on_silence: OnSilence = field(default="roll_back", kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", _steps(self.steps))
        conditions = (self.abort_if,) if isinstance(self.abort_if, str) else tuple(self.abort_if)
        object.__setattr__(self, "abort_if", conditions)
        for text in conditions:
            parse_condition(text)
        if isinstance(self.min_answers, bool) or not isinstance(self.min_answers, int) or self.min_answers < 1:
            raise Invalid(f"min_answers is {self.min_answers!r}; expected a whole number of at least 1.")
        if self.on_silence not in get_args(OnSilence):
            raise Invalid(f"on_silence is {self.on_silence!r}; expected 'roll_back' or 'hold'.")
        if self.wait < self.least:
            raise Invalid(f"max_wait ({self.max_wait}) is shorter than bake ({self.bake}): no step could ever pass.")

    @property
    def least(self) -> timedelta:
        """The bake as a duration."""
        return duration(self.bake, what="bake")

    @property
    def wait(self) -> timedelta:
        """The longest wait in one step."""
        found = duration(self.max_wait, what="max_wait")
        if not found:
            raise Invalid("max_wait is zero; expected how long a step may go without enough answers.")
        return found

    def weight(self, step: int) -> int:
        """Return a step's share of 10,000; 0 for step -1, before the first."""
        return 0 if step < 0 else round(self.steps[step] * WEIGHT_TOTAL / 100)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "steps": list(self.steps),
            "bake": self.bake,
            "abort_if": list(self.abort_if),
            "min_answers": self.min_answers,
            "max_wait": self.max_wait,
            "on_silence": self.on_silence,
        }

    @classmethod
    def from_json(cls, value: object) -> Canary:
        """Read what ``to_json`` wrote; absent keys take their defaults.

        Raises:
            Invalid: Naming the key that is unknown, or the value that is wrong.
        """
        if not isinstance(value, Mapping):
            raise Invalid(f"A canary is an object with its settings, not {value!r}.")
        known = [each.name for each in fields(cls)]
        for key in value:
            if key not in known:
                near = nearest(str(key), known)
                hint = f" Did you mean {near!r}?" if near else f" Expected {', '.join(known)}."
                raise Invalid(f"A canary has no setting {key!r}.{hint}")
        return cls(**value)


class Verdict(StrEnum):
    """What a check says. Only ``success`` lets a step pass; only ``failure`` takes a version back."""

    SUCCESS = "success"
    FAILURE = "failure"
    INCONCLUSIVE = "inconclusive"
    NO_DATA = "no_data"


@dataclass(frozen=True, slots=True)
class Check:
    """One check of the guard.

    Attributes:
        name: Stable name: ``errors``, ``scores``, ``answers``, ``loading``, ``crashes`` or a condition's text.
        verdict: What it says.
        reason: One sentence for a person.
        evidence: Numbers behind it; JSON-compatible.
    """

    name: str
    verdict: Verdict
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "name": self.name,
            "verdict": self.verdict.value,
            "reason": self.reason,
            "evidence": dict(self.evidence),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Check:
        """Read what ``to_json`` wrote."""
        return cls(value["name"], Verdict(value["verdict"]), value["reason"], value["evidence"])


class RolloutState(StrEnum):
    """Where a rollout stands."""

    RUNNING = "running"
    HELD = "held"
    FINISHED = "finished"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"

    @property
    def active(self) -> bool:
        """Whether it may still change traffic."""
        return self in ACTIVE


ACTIVE = (RolloutState.RUNNING, RolloutState.HELD)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address that answers predictions.

    Attributes:
        champion: Number of the version that answers what no canary takes.
        champion_digest: Its content digest.
        standby: Version before, kept loaded until ``standby_until`` so that a rollback is one pointer; or None.
        sample: Share of requests that is captured while no rollout runs, 0 to 1; during one it is all.
        redact: Columns whose values never reach the prediction log.
    """

    name: str
    project: str
    model: str
    salt: str
    entity_key: str | None
    time_column: str | None
    champion: int
    champion_digest: str
    standby: int | None
    standby_digest: str | None
    standby_until: datetime | None
    sample: float
    redact: tuple[str, ...]
    created_by: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Rollout:
    """One version on its way to answering everything at an endpoint.

    Attributes:
        version: The version.
        digest: Its content digest.
        control: Version that it is compared with, None for the first version of an endpoint.
        canary: As declared.
        state: Where it stands.
        step: Index of the current step; -1 while the workers load the version.
        step_started_at: When the step began, by the injected clock.
        answers: Answers of the new version that were seen so far.
        control_answers: Answers of the control over the same time.
        exposure: Most answers that the new version can have given, all workers together.
        checks: What the guard said last.
        reason: Why it stands as it does, for a person.
        workflow: Id of the workflow that carries it; None if it needed none.
    """

    id: str
    endpoint: str
    project: str
    model: str
    version: int
    digest: str
    control: int | None
    canary: Canary
    state: RolloutState
    step: int
    step_started_at: datetime | None
    answers: int
    control_answers: int
    exposure: int
    checks: tuple[Check, ...]
    reason: str
    workflow: str | None
    started_by: str
    started_at: datetime
    ended_at: datetime | None

    @property
    def weight(self) -> int:
        """Share of traffic that it asks for now, of 10,000."""
        return self.canary.weight(self.step) if self.state.active else 0


def parse_condition(text: object) -> criteria.Condition:
    """Parse a condition of ``abort_if`` and refuse names that the guard does not know.

    Raises:
        ParseError: If it is no condition, or misspelt; the nearest known name is in the message.
        Invalid: If it is no text.
    """
    if not isinstance(text, str):
        raise Invalid(f"abort_if holds {text!r}; expected conditions such as 'error_rate > 1%'.")
    node = criteria.parse(text)
    # What `worse_than` compares is a metric by its name, which others measure; all else is looked up here.
    compared = {path for path in criteria.names(node) if _only_compared(path, node)}
    criteria.check_names(node, {*FACTS, CHAMPION, *compared}, FUNCTIONS)
    return node


def _only_compared(path: str, node: criteria.Condition) -> bool:
    used = {
        term.args[1].path
        for clause in criteria.clauses(node)
        for term in (getattr(clause, "subject", None), getattr(clause, "left", None), getattr(clause, "right", None))
        if isinstance(term, criteria.Call) and term.name == "worse_than" and len(term.args) == 2
        if isinstance(term.args[1], criteria.Name)
    }
    return path in used


def _steps(given: object) -> tuple[float, ...]:
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise Invalid(f"steps are {given!r}; expected rising percentages such as (5, 25, 100).")
    steps = tuple(given)
    for before, step in zip((0, *steps), steps, strict=False):
        if isinstance(step, bool) or not isinstance(step, int | float) or not _LEAST_STEP <= step <= 100:
            raise Invalid(f"steps hold {step!r}; expected percentages from {_LEAST_STEP:g} to 100.")
        if step <= before:
            raise Invalid(f"steps must rise, but {step:g} follows {before:g}.")
    if not steps or steps[-1] != 100:
        raise Invalid(f"The last step must be 100, so that the version answers everything; steps are {list(steps)}.")
    return steps
