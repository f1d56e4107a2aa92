"""What the loop holds: the declared policy, the recipe of a training, triggers with their decisions, releases."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

from modelyard.criteria import Condition, Fact, Name, Number, check_names, parse, to_text
from modelyard.errors import Invalid, nearest
from modelyard.evaluation import Task, metric_names
from modelyard.events import DEFAULT_PROJECT, Actor
from modelyard.registry import VersionId
from modelyard.retraining.cron import Schedule
from modelyard.retraining.project import function_name
from modelyard.tracking.sources import Source, source_from_json

TriggerSource = Literal["alert", "condition", "schedule", "manual"]
TriggerAnswer = Literal["started", "deferred", "dropped"]
Verdict = Literal["promoted", "rejected", "inconclusive", "refused", "failed", "cancelled"]
ReleaseState = Literal["training", "approval", "rolling_out", "concluded"]

ALERTS = ("drift", "quality")
"""Kinds of alerts that ``Retrain.when`` may name."""

_TASKS: tuple[Task, ...] = ("binary", "multiclass", "regression")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)")
_MAX_SEED = 2**32


def duration(text: str) -> timedelta:
    """Read a duration such as ``6h``, ``10m`` or ``90d``.

    >>> duration("36h")
    datetime.timedelta(days=1, seconds=43200)

    Raises:
        Invalid: If it is not one above zero.
    """
    match = _DURATION.fullmatch(str(text).strip())
    seconds = 0.0 if match is None else float(Number(float(match[1]), match[2]).magnitude)
    if not 0 < seconds < 86_400 * 36_500:
        raise Invalid(f"{text!r} is not a duration; expected for example 10m, 6h or 90d.")
    return timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True)
class Retrain:
    """When a model is trained anew.

    Attributes:
        when: Kinds of alerts (``drift``, ``quality``) and conditions (``roc_auc < 0.82``,
            ``new_rows >= 10_000``); any one is enough.
        every: ``hourly``, ``daily``, ``weekly``, ``monthly`` or five cron fields in UTC; None for no schedule.
        debounce: After a start, further triggers within this time are covered by it.
        max_runs_per_day: Automatic starts in any 24 hours, 1 to 1,000.
        window: Only rows of this last stretch of the time column; None takes all.
        cooldown: After a release has ended, alerts and conditions wait so long: a retraining that does not
            cure the drift must not start the next one at once.
    """

    when: tuple[str, ...] = ("drift",)
    every: str | None = None
    debounce: str = "6h"
    max_runs_per_day: int = 4
    window: str | None = None
    cooldown: str = "24h"

    def __post_init__(self) -> None:
        if isinstance(self.when, str):
            raise Invalid(f"Retrain.when is a list of conditions: [{self.when!r}].")
        object.__setattr__(self, "when", tuple(self.when))
        known = {*ALERTS, "new_rows", *(name for task in _TASKS for name in metric_names(task))}
        for text in self.when:
            check_names(parse(text, known=known), known, {"lower", "upper"})
        for text in (self.debounce, self.cooldown, *filter(None, (self.window,))):
            duration(text)
        if self.every is not None:
            Schedule.parse(self.every)
        if not 1 <= self.max_runs_per_day <= 1_000:
            raise Invalid(f"max_runs_per_day is 1 to 1,000, not {self.max_runs_per_day}.")

    @property
    def alerts(self) -> frozenset[str]:
        """Kinds of alerts that start a training by themselves."""
        return frozenset(name for text in self.when if (name := _alert(parse(text))) is not None)

    @property
    def conditions(self) -> tuple[tuple[str, Condition], ...]:
        """The other conditions, in one way of writing, with their trees."""
        trees = [tree for text in self.when if _alert(tree := parse(text)) is None]
        return tuple((to_text(tree), tree) for tree in trees)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**asdict(self), "when": list(self.when)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Retrain:
        """Build a policy from its JSON form; a misspelt field is refused with the nearest right one."""
        return cls(**_known(document, cls, "Retrain"))


def _alert(condition: Condition) -> str | None:
    plain = isinstance(condition, Fact) and isinstance(condition.subject, Name)
    name = condition.subject.path if isinstance(condition, Fact) and isinstance(condition.subject, Name) else ""
    return name if plain and name in ALERTS else None


@dataclass(frozen=True, slots=True)
class ApprovalRule:
    """People who must agree before a version gets traffic.

    Attributes:
        role: Governance label that they carry.
        count: How many distinct people, at least 1.
        timeout: How long the request stays open; None for ever.
        on_timeout: What becomes of it then: ``expire`` or ``refuse``; both end the release.
    """

    role: str
    count: int = 1
    timeout: str | None = "14d"
    on_timeout: Literal["expire", "refuse"] = "refuse"

    def __post_init__(self) -> None:
        if not self.role or self.count < 1:
            raise Invalid("An approval names a role and asks at least one person.")
        if self.on_timeout not in {"expire", "refuse"}:
            raise Invalid(f"on_timeout is 'expire' or 'refuse', not {self.on_timeout!r}.")
        if self.timeout is not None:
            duration(self.timeout)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ApprovalRule:
        """Build a rule from its JSON form."""
        return cls(**_known(document, cls, "An approval"))


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that is needed to train and release a model again, as ``apply`` has declared it.

    Attributes:
        model: Name of the model.
        endpoint: Endpoint that serves it.
        code_digest: Object with the packed project (``project.pack``).
        function: ``module:qualname`` in it: a frame in, a fitted model out.
        source: Data source.
        root: Project folder for relative data paths; None where there is none.
        declared_by: Who has applied it: the author of every version that comes out.
        gates: Conditions on a fresh version.
        approvals: Who must agree.
        rollout: How traffic moves, as deployment reads it.
        retrain: When it is trained anew.
        task: ``binary``, ``multiclass``, ``regression``, or None to infer it from the label.
        seed: For the training's and the measurements' randomness.
        timeout: Time limit of a training.
        memory_bytes: Limit on a training's resident memory; None takes four fifths of the machine's.
    """

    model: str
    endpoint: str
    code_digest: str
    function: str
    source: Source
    declared_by: str
    root: str | None = None
    project: str = DEFAULT_PROJECT
    gates: tuple[str, ...] = ()
    approvals: tuple[ApprovalRule, ...] = ()
    rollout: Mapping[str, Any] = field(default_factory=dict)
    retrain: Retrain = field(default_factory=Retrain)
    task: Task | None = None
    seed: int = 0
    timeout: str = "1h"
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        function_name(self.function)
        duration(self.timeout)
        if self.task is not None and self.task not in _TASKS:
            raise Invalid(f"A task is one of {', '.join(_TASKS)}, not {self.task!r}.")
        if not 0 <= self.seed < _MAX_SEED:
            raise Invalid(f"A seed is 0 to {_MAX_SEED - 1:,}, not {self.seed}.")

    @property
    def author(self) -> Actor:
        """Who counts as the author of its versions, and so may not approve them."""
        return Actor(self.declared_by)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        plain = {item.name: getattr(self, item.name) for item in fields(self)}
        return {
            **plain,
            "source": self.source.to_json(),
            "gates": list(self.gates),
            "approvals": [asdict(rule) for rule in self.approvals],
            "rollout": dict(self.rollout),
            "retrain": self.retrain.to_json(),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Recipe:
        """Build a recipe from its JSON form.

        Raises:
            Invalid: If a field is unknown or wrong.
        """
        values = _known(document, cls, "A recipe")
        return cls(
            **{
                **values,
                "source": source_from_json(values["source"]),
                "gates": tuple(values.get("gates") or ()),
                "approvals": tuple(ApprovalRule.from_json(rule) for rule in values.get("approvals") or ()),
                "retrain": Retrain.from_json(values.get("retrain") or {}),
            }
        )


@dataclass(frozen=True, slots=True)
class TriggerDecision:
    """What a trigger leads to.

    Attributes:
        answer: ``started``; ``deferred``, to be judged again at ``due_at``; or ``dropped``.
        reason: One sentence.
    """

    answer: TriggerAnswer
    reason: str
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class TriggerEvent:
    """Something that asked for a training, and what became of it.

    Attributes:
        dedup_key: What may ask once only; unique for the model.
        at: When it asked, by the injected clock.
        workflow_id: Release that it started.
    """

    id: str
    project: str
    model: str
    source: TriggerSource
    dedup_key: str
    payload: Mapping[str, Any]
    actor: str
    at: datetime
    decision: TriggerDecision
    workflow_id: str | None


@dataclass(frozen=True, slots=True)
class Release:
    """One way of a model from its data to its traffic.

    Attributes:
        id: Id of its workflow.
        trigger_id: What started it; None for one that was retried by hand.
        run_id: Tracked run of its training.
        version: Number of the version that came out.
        champion: Number of the version that it was judged against.
        rollout_id: Rollout that moves its traffic.
        source_rows: Rows that the data source had.
        verdict: How it ended; None while it goes on.
        sentence: The same for a manager.
        evidence: Gates and comparisons.
    """

    id: str
    project: str
    model: str
    endpoint: str
    state: ReleaseState
    started_at: datetime
    trigger_id: str | None = None
    run_id: str | None = None
    version: int | None = None
    champion: int | None = None
    rollout_id: str | None = None
    source_rows: int | None = None
    verdict: Verdict | None = None
    sentence: str | None = None
    evidence: Mapping[str, Any] | None = None
    concluded_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RolloutOutcome:
    """How a rollout ended.

    Attributes:
        state: ``finished`` has all the traffic; ``rolled_back`` was found worse; ``inconclusive`` could not be
            judged in its time; ``aborted`` was ended by a person.
        reason: One sentence.
        evidence: Numbers of the guard; JSON-compatible.
    """

    state: Literal["finished", "rolled_back", "inconclusive", "aborted"]
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


class RollOut(Protocol):
    """Moves traffic to a version; deployment does it."""

    def start(
        self,
        endpoint: str,
        version: VersionId,
        *,
        control_version: int | None,
        expected_shares: tuple[float, ...] | None,
        settings: Mapping[str, Any],
        key: str,
        actor: Actor,
    ) -> str:
        """Begin, once per key, and return the rollout's id.

        Args:
            endpoint: Name of the endpoint, in the version's project.
            version: What shall get the traffic.
            control_version: What has it now; None for the first version.
            expected_shares: How its scores should fall among the control's (``evaluation.expected_shares``);
                None if that is not known.
            settings: ``Recipe.rollout``.
            key: The same again when the call is repeated after a crash.
            actor: Who counts as its author.
        """
        ...

    def outcome(self, rollout_id: str) -> RolloutOutcome | None:
        """Return how a rollout ended, None while it goes on."""
        ...


def _known(document: Mapping[str, Any], kind: type[Any], what: str) -> dict[str, Any]:
    known = [item.name for item in fields(kind)]
    for name in document:
        if name not in known:
            near = nearest(name, known)
            raise Invalid(f"{what} has no {name!r}." + (f" Did you mean {near!r}?" if near else ""))
    return dict(document)
