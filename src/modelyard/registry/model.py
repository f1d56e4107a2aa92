"""What the registry holds: models, immutable versions and everything that is said about a version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from modelyard.errors import Invalid
from modelyard.events import DEFAULT_PROJECT
from modelyard.tracking import clean_name

Stage = Literal["development", "staging", "production", "archived"]
STAGES: tuple[Stage, ...] = ("development", "staging", "production", "archived")
ApprovalStatus = Literal["requested", "granted", "refused", "expired", "revoked"]
OnTimeout = Literal["expire", "refuse"]
Direction = Literal["up", "down", "both"]

# Limits of mlflow 3.17.2 for registry tags and aliases (utils/validation.py); names fit a subject of the log.
MAX_MODEL_NAME = 250
MAX_TAG_VALUE = 100_000
MAX_ALIAS = 255
MAX_DESCRIPTION = 100_000
MAX_FILES = 10_000
MAX_PAGE = 1000


@dataclass(frozen=True, slots=True)
class VersionId:
    """Names a version: model, number and project."""

    model: str
    number: int
    project: str = DEFAULT_PROJECT

    @property
    def subject(self) -> str:
        """Subject of its events and name of its node in the lineage."""
        return f"version:{self.model}/{self.number}"


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file of a version: a relative key, the content's SHA-256 in hex and its length."""

    path: str
    digest: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A named line of versions.

    Attributes:
        last_number: Number of the newest version ever registered, 0 before the first; never used again.
        owner: Person or group that answers for it, empty if nobody has said.
    """

    project: str
    name: str
    description: str
    owner: str
    last_number: int
    created_by: str
    created_at: datetime
    updated_at: datetime
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Version:
    """One immutable content under a number.

    Attributes:
        content_digest: SHA-256 over path, digest and size of every file; what ``models.folder_digest`` gives.
        files: Every file, by path. Empty in lists: ``Registry.get_version`` reads them.
        signature: Inputs and outputs, as ``models.Signature.to_json`` writes them, or None.
        lineage: ``data``, ``code``, ``environment`` (digests), ``parameters``, ``parents``; as registered.
        trained_by: Who started the run that it came from, if it came from one.
        engine: How the fastest exact engine was verified, or None.
        profile_digest: Object with the profile of the training data, or None.
    """

    project: str
    model: str
    number: int
    content_digest: str
    stage: Stage
    signature: Mapping[str, Any] | None
    lineage: Mapping[str, Any]
    run_id: str | None
    trained_by: str | None
    created_by: str
    created_at: datetime
    updated_at: datetime
    description: str
    profile_digest: str | None
    engine: Mapping[str, Any] | None
    files: tuple[FileRef, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def id(self) -> VersionId:
        """Its name."""
        return VersionId(self.model, self.number, self.project)

    @property
    def subject(self) -> str:
        """Subject of its events and name of its node in the lineage."""
        return self.id.subject

    @property
    def authors(self) -> frozenset[str]:
        """Everybody who may not approve it: who registered and who trained it."""
        return frozenset(name for name in (self.created_by, self.trained_by) if name)


VersionLike = Version | VersionId


@dataclass(frozen=True, slots=True)
class StageChange:
    """A move of a version between stages.

    Attributes:
        before: Its stage before, None when it was registered.
        via: Rollout that made the move, None for a move by hand.
        evidence: The verdict of the promotion rule, if there was one.
    """

    model: str
    number: int
    before: Stage | None
    after: Stage
    actor: str
    at: datetime
    reason: str
    via: str | None
    evidence: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class StageRequest:
    """A move that only a rollout may make, asked for by a person; deployment reads its event.

    Attributes:
        endpoint: The endpoint whose traffic the move is about.
    """

    version: VersionId
    stage: Stage
    endpoint: str
    requested_by: str
    at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class AliasChange:
    """An alias that began to name a version, or (``number`` None) none any more."""

    alias: str
    number: int | None
    actor: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Vote:
    """One person's answer to a request for approval."""

    person: str
    granted: bool
    at: datetime
    comment: str


@dataclass(frozen=True, slots=True)
class Approval:
    """A request that people let an action happen to exactly this content.

    Attributes:
        label: Governance label that a voter needs, besides the access role ``approver``.
        quorum: How many distinct people must grant.
        digest: SHA-256 over content digest, signature, action and evidence: what a vote is bound to.
        expires_at: When the request lapses if it is still open.
        on_timeout: What becomes of it then: ``expire`` or ``refuse``.
        valid_until: Until when a granted approval counts; None for ever.
    """

    id: str
    version: VersionId
    action: str
    label: str
    quorum: int
    content_digest: str
    digest: str
    evidence: Mapping[str, Any]
    status: ApprovalStatus
    requested_by: str
    requested_at: datetime
    note: str
    expires_at: datetime | None
    on_timeout: OnTimeout
    valid_until: datetime | None
    settled_at: datetime | None
    votes: tuple[Vote, ...] = ()

    def counts(self, at: datetime) -> bool:
        """Say whether it lets the action happen at a time."""
        return self.status == "granted" and (self.valid_until is None or at < self.valid_until)


@dataclass(frozen=True, slots=True)
class StandingDecision:
    """Whether an action may happen to a version, as governance has decided until further notice."""

    version: VersionId
    action: str
    allowed: bool
    reason: str
    evidence: Mapping[str, Any]
    content_digest: str
    decided_by: str
    decided_at: datetime
    valid_until: datetime | None


@dataclass(frozen=True, slots=True)
class Permission:
    """The answer to "may this happen now?", with its reason."""

    allowed: bool
    reason: str
    decision: StandingDecision | None = None


@dataclass(frozen=True, slots=True)
class PromotionRule:
    """A condition on the metrics of a version that enters a stage."""

    model: str
    stage: Stage
    text: str
    created_by: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class PromotionCheck:
    """What a promotion rule says of a version; ``evidence`` is the verdict with every clause."""

    rule: str
    passed: bool
    evidence: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Edge:
    """``source`` went into ``target``: data into a run, a run into a version, a version into an endpoint."""

    source: str
    target: str
    relation: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Lineage:
    """What can be reached from a subject.

    Attributes:
        nodes: Subjects, nearest first, the one asked about first of all.
        complete: False if there was more than the limit.
    """

    subject: str
    nodes: tuple[str, ...]
    edges: tuple[Edge, ...]
    complete: bool


def model_name(name: str) -> str:
    """Return a model's name if it is usable: no control characters and none of ``/ @ :``, which references use.

    Raises:
        Invalid: If it is not.
    """
    clean_name("model name", name, limit=MAX_MODEL_NAME)
    if any(mark in name for mark in "/@:"):
        raise Invalid(f"The model name {name!r} holds '/', '@' or ':', which references to versions use.")
    return name


def alias_name(alias: str) -> str:
    """Return an alias if it is usable and cannot be taken for a number, a stage or ``latest``.

    Raises:
        Invalid: If it is not.
    """
    clean_name("alias", alias, limit=MAX_ALIAS)
    if any(mark in alias for mark in "/@:") or alias.isdigit() or alias == "latest" or alias in STAGES:
        raise Invalid(f"{alias!r} cannot be an alias: numbers, stages, 'latest' and '/ @ :' have a meaning.")
    return alias


def stage_name(stage: str) -> Stage:
    """Return a stage if it is one.

    Raises:
        Invalid: If it is not.
    """
    for known in STAGES:
        if known == stage:
            return known
    raise Invalid(f"There is no stage {stage!r}; expected one of {', '.join(STAGES)}.", stage=stage)
