"""What the control plane tells the serving workers: the route table, and what they tell back: their status.

Both are JSON files. The control plane publishes a whole new table with a higher generation; workers swap to
it and name the generation that they serve.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import msgspec

from modelyard.errors import Invalid

WEIGHT_TOTAL = 10_000

Role = Literal["control", "canary", "shadow"]


@dataclass(frozen=True, slots=True)
class Lease:
    """How far a variant may go unwatched.

    Attributes:
        id: Changes with each grant; a new id starts at zero used.
        answers: Answers that all workers together may give; each takes an equal share.
    """

    id: str
    answers: int


@dataclass(frozen=True, slots=True)
class VariantRoute:
    """One version behind an endpoint.

    Attributes:
        name: Unique within the endpoint.
        role: ``control`` answers what no canary takes, ``canary`` answers its weight, ``shadow`` gets copies.
        model: Name of the registered model.
        version: Number of its version.
        digest: Content digest; the model lies in ``serving/models/<digest>``.
        weight: Share of entities, of 10,000. For a shadow, the share of entities that are copied. A canary
            with weight 0 stays loaded and ready.
        lease: Limit on unwatched answers, or None for no limit.
    """

    name: str
    role: Role
    model: str
    version: int
    digest: str
    weight: int
    lease: Lease | None = None


@dataclass(frozen=True, slots=True)
class EndpointRoute:
    """An address that answers predictions.

    Attributes:
        name: Last part of ``/predict/<name>``, unique over all projects of one home.
        project: Project that it belongs to.
        salt: Mixed into the hash of the entity key, so that two endpoints split people independently.
        entity_key: Column whose value decides the variant, or None to decide by request.
        time_column: Column that holds a row's event time, or None to use the wall clock.
        variants: Exactly one control; its weight and the canaries' sum to 10,000.
        sample: Share of requests that are captured, 0 to 1.
        redact: Columns whose values never reach the prediction log.
    """

    name: str
    project: str
    salt: str
    entity_key: str | None
    time_column: str | None
    variants: tuple[VariantRoute, ...]
    sample: float = 1.0
    redact: tuple[str, ...] = ()

    @property
    def control(self) -> VariantRoute:
        """The variant that takes what no canary takes."""
        return next(variant for variant in self.variants if variant.role == "control")


@dataclass(frozen=True, slots=True)
class RouteTable:
    """Everything that the workers serve.

    Attributes:
        generation: Grows with each table that is published.
        endpoints: In any order; names are unique.
    """

    generation: int
    endpoints: tuple[EndpointRoute, ...]


@dataclass(frozen=True, slots=True)
class VariantStatus:
    """What one worker has done for one variant, over all of the worker's processes.

    Attributes:
        endpoint: Name of the endpoint.
        variant: Name of the variant.
        version: Number of the version that answers.
        answers: Rows answered.
        errors: Rows that the variant failed on (it raised, gave no finite score, or refused rows that the
            control's signature accepts).
        lease: Id of the current lease, or None.
        lease_used: Answers used of this worker's share.
        lease_share: This worker's share.
        crashes: Times that this worker's process died while this variant was computing.
        latency_us_total: Sum over answered rows of the request's time in the worker, for a mean.
    """

    endpoint: str
    variant: str
    version: int
    answers: int = 0
    errors: int = 0
    lease: str | None = None
    lease_used: int = 0
    lease_share: int = 0
    crashes: int = 0
    latency_us_total: int = 0


@dataclass(frozen=True, slots=True)
class LoadFailure:
    """A variant that a worker could not load; the endpoint goes on without it.

    Attributes:
        endpoint: Name of the endpoint.
        variant: Name of the variant.
        version: Number of the version.
        message: What went wrong.
    """

    endpoint: str
    variant: str
    version: int
    message: str


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A version that a worker holds, checked and ready.

    Attributes:
        digest: Content digest.
        engine: What computes it.
        load_ms: Time that loading and the self-check took.
    """

    digest: str
    engine: str
    load_ms: float


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker's own account, rewritten at most every 100 ms while something changes.

    Attributes:
        worker: Number of the worker, from 0.
        pid: Its process.
        host: Address that it listens on.
        port: Port that it listens on.
        generation: Generation of the table that answers now; 0 before the first.
        ready: Whether every endpoint of that table can answer.
        draining: Whether it has been asked to stop.
        models: Versions that it holds.
        failed: Variants that it could not load.
        variants: Counters.
        rejected: Requests refused before a variant was reached, by error code.
        captured: Prediction records written.
        capture_dropped: Records lost because the buffer or disk was full.
        shadow_dropped: Copies lost because the shadow queue was full.
        swap_ms: Time from noticing the table to answering from it.
        error: Why the route table itself could not be taken, or empty; the one before stays in force.
        updated_ms: Wall clock, milliseconds since 1970.
    """

    worker: int
    pid: int
    host: str
    port: int
    generation: int = 0
    ready: bool = False
    draining: bool = False
    models: tuple[LoadedModel, ...] = ()
    failed: tuple[LoadFailure, ...] = ()
    variants: tuple[VariantStatus, ...] = ()
    rejected: dict[str, int] = field(default_factory=dict)
    captured: int = 0
    capture_dropped: int = 0
    shadow_dropped: int = 0
    swap_ms: float = 0.0
    error: str = ""
    updated_ms: int = 0


def encode(value: RouteTable | WorkerStatus) -> bytes:
    """Encode a table or a status as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1)


def decode_table(text: bytes) -> RouteTable:
    """Read and check a table.

    Raises:
        Invalid: If it is not a table, or breaks one of the rules of its classes.
    """
    try:
        table = msgspec.json.decode(text, type=RouteTable)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"This is not a route table: {error}.") from error
    check(table)
    return table


def decode_status(text: bytes) -> WorkerStatus:
    """Read a worker's status.

    Raises:
        Invalid: If it is not one.
    """
    try:
        return msgspec.json.decode(text, type=WorkerStatus)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"This is not a worker's status: {error}.") from error


def check(table: RouteTable) -> None:
    """Check a table's rules.

    Raises:
        Invalid: Naming the endpoint and the rule that it breaks.
    """
    _unique("endpoint", [endpoint.name for endpoint in table.endpoints], where="The route table")
    for endpoint in table.endpoints:
        where = f"Endpoint {endpoint.name!r}"
        _unique("variant", [variant.name for variant in endpoint.variants], where=where)
        controls = [variant for variant in endpoint.variants if variant.role == "control"]
        if len(controls) != 1:
            raise Invalid(f"{where} has {len(controls)} controls; it needs exactly one.")
        if controls[0].lease is not None:
            raise Invalid(f"{where}: the control has a lease, but nothing could take over from it.")
        if not 0.0 <= endpoint.sample <= 1.0:
            raise Invalid(f"{where} samples {endpoint.sample}; expected 0 to 1.")
        _check_weights(endpoint, where)


def _check_weights(endpoint: EndpointRoute, where: str) -> None:
    for variant in endpoint.variants:
        if not 0 <= variant.weight <= WEIGHT_TOTAL:
            raise Invalid(f"{where}: variant {variant.name!r} weighs {variant.weight}; expected 0 to 10,000.")
        if variant.lease is not None and variant.lease.answers < 0:
            raise Invalid(f"{where}: the lease of {variant.name!r} is negative.")
    total = sum(variant.weight for variant in endpoint.variants if variant.role != "shadow")
    if total != WEIGHT_TOTAL:
        raise Invalid(f"{where}: control and canaries weigh {total:,} together; expected 10,000.")


def _unique(kind: str, names: list[str], *, where: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Invalid(f"{where} names the {kind} {twice[0]!r} twice.")
