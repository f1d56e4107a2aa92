"""An endpoint as a worker holds it: its variants, loaded and checked, and the way from rows to answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from modelyard.errors import Invalid, ModelyardError
from modelyard.models.faults import NoFiniteScore
from modelyard.serving.faults import Busy, LeaseUsedUp, ModelFailed, SchemaMismatch, UnknownVersion
from modelyard.serving.ids import PredictionIds
from modelyard.serving.model import EndpointRoute, VariantRoute
from modelyard.serving.outcome import Outcome
from modelyard.serving.protocols.ask import Ask, Row
from modelyard.serving.routing import Router, key_bytes
from modelyard.serving.tally import Tally

log = logging.getLogger(__name__)


class Scored(msgspec.Struct):
    """What a model said about some rows; lists have one entry a row.

    Attributes:
        scores: The score, or None where there are several outputs.
        labels: The predicted class, or None.
        outputs: All outputs where there are several, or None.
        warnings: Pairs of row number and warning, or empty.
    """

    scores: list[float | None]
    labels: list[Any]
    outputs: list[list[float] | None] | None = None
    warnings: Sequence[tuple[int, dict[str, Any]]] = ()


@dataclass(frozen=True, slots=True)
class ModelFace:
    """A loaded model, as far as serving cares.

    Attributes:
        predict: Rows to scores; raises ``Invalid`` for rows that do not fit the signature.
        check: Raises ``Invalid`` if rows do not fit the signature.
        columns: Name and type of each input, in signature order.
        classes: Class labels; empty if it is no classifier.
        outputs: Numbers per row.
        engine: What computes it.
    """

    predict: Callable[[Sequence[Row]], Scored]
    check: Callable[[Sequence[Row]], None]
    columns: tuple[tuple[str, str], ...]
    classes: tuple[Any, ...] = ()
    outputs: int = 1
    engine: str = ""


@dataclass(eq=False, slots=True)
class LiveVariant:
    """A variant that can answer.

    Attributes:
        route: Its row in the table.
        index: Its place in the endpoint's descriptor.
        face: Its model.
        tally: Its counters.
        reported: Kinds of exception that were logged; each is logged once.
    """

    route: VariantRoute
    index: int
    face: ModelFace
    tally: Tally
    reported: set[str] = field(default_factory=set)


class LiveEndpoint:
    """An endpoint that can answer.

    Args:
        route: Its row in the table.
        variants: The variants that could be loaded, the control among them.
        descriptor: Digest of its descriptor.
        ids: Makes prediction ids.
        limit: Most requests under way at once.
    """

    def __init__(
        self,
        route: EndpointRoute,
        variants: Sequence[LiveVariant],
        *,
        descriptor: bytes,
        ids: PredictionIds,
        limit: int,
    ) -> None:
        self.route = route
        self.name = route.name
        self.descriptor = descriptor
        self.variants = tuple(variants)
        self.router: Router[LiveVariant] = Router(route, {v.route.name: (v, v.tally) for v in variants})
        self.control = self.router.control
        self.order = tuple(name for name, _ in self.control.face.columns)
        self.redact = frozenset(route.redact)
        self.has_shadows = any(variant.route.role == "shadow" for variant in variants)
        self.limit = limit
        self.under_way = 0
        self._ids = ids
        known = {name for variant in variants for name, _ in variant.face.columns}
        self.named = named = [name for name in (route.entity_key, route.time_column) if name is not None]
        self._extra = tuple(dict.fromkeys(name for name in named if name not in known))
        # A variant may lack an input that another has and that is also the key or the time.
        self._surplus = {
            variant.index: surplus
            for variant in variants
            if (surplus := frozenset(named) & known - {name for name, _ in variant.face.columns})
        }

    def enter(self) -> None:
        """Count a request that begins.

        Raises:
            Busy: If as many are under way as may be.
        """
        if self.under_way >= self.limit:
            raise Busy(self.name, limit=self.limit)
        self.under_way += 1

    def leave(self) -> None:
        """Count a request that has ended."""
        self.under_way -= 1

    def answer(self, ask: Ask, *, wall_ns: int, started_ns: int) -> Outcome:
        """Route the rows and predict them.

        Args:
            ask: The rows; columns that no variant takes are removed from them.
            wall_ns: Wall clock, for ids.
            started_ns: ``perf_counter_ns`` when the request was complete.

        Returns:
            One entry a row. A row that its variant failed on has an error there; others are answered.

        Raises:
            Invalid: If a row does not fit; nothing is answered then.
            UnknownVersion: If the version asked for is not served.
            LeaseUsedUp: If it may not answer for now.
        """
        rows = ask.rows
        new_id = self._ids.new
        ids = [new_id(wall_ns) for _ in rows]
        outcome = Outcome(ask.request_id or ids[0], ids, [], [], [])
        self._route(ask, outcome)
        first = outcome.variants[0]
        if len(rows) == 1 or all(variant is first for variant in outcome.variants):
            self._answer_together(first, rows, outcome, started_ns)
        else:
            self._answer_apart(rows, outcome, started_ns)
        return outcome

    def pinned(self, version: int) -> LiveVariant:
        """Return the variant that serves a version.

        Raises:
            UnknownVersion: If none does.
        """
        return self._pinned(version)[0]

    def shadow(self, variant: LiveVariant, rows: list[Row], outcome: Outcome, chosen: list[int]) -> Outcome:
        """Let a shadow answer copies of some rows; its faults are counted and nobody else's concern."""
        started = time.perf_counter_ns()
        copies = [rows[i] for i in chosen]
        count = len(copies)
        copy = Outcome(outcome.request_id, [outcome.ids[i] for i in chosen], [variant] * count, [], [])
        try:
            self._answer_together(variant, copies, copy, started)
        except Invalid as error:
            _fill_error(copy, error, count)
        return copy

    def _route(self, ask: Ask, outcome: Outcome) -> None:
        rows = ask.rows
        key = self.route.entity_key
        if ask.version is not None:
            outcome.variants, outcome.pinned = self._pin(ask.version, len(rows)), True
            outcome.sticky = False
        elif not self.router.splits:
            outcome.variants = [self.control] * len(rows)
            outcome.sticky = key is not None and all(_has(row, key) for row in rows)
        else:
            places = outcome.places = []
            choose, bucket = self.router.choose, self.router.bucket
            for row in rows:
                hashed = key_bytes(row.get(key)) if key is not None and isinstance(row, dict) else None
                if hashed is None:
                    outcome.sticky = False
                    hashed = outcome.request_id.encode("utf-8", "surrogatepass")
                place = bucket(hashed)
                places.append(place)
                outcome.variants.append(choose(place))
        if self._extra:
            for row in rows:
                if isinstance(row, dict):
                    for name in self._extra:
                        row.pop(name, None)

    def _pin(self, version: int, count: int) -> list[LiveVariant]:
        variant, tally = self._pinned(version)
        for _ in range(count):
            if not tally.take():
                raise LeaseUsedUp(self.name, version=version)
        return [variant] * count

    def _pinned(self, version: int) -> tuple[LiveVariant, Tally]:
        found = self.router.by_version.get(version)
        if found is None:
            raise UnknownVersion(str(version), endpoint=self.name, served=self.router.by_version)
        return found

    def _answer_together(self, variant: LiveVariant, rows: list[Row], outcome: Outcome, started_ns: int) -> None:
        count = len(rows)
        tally = variant.tally
        tally.enter()
        try:
            scored = variant.face.predict(self._fitted(variant, rows) if self._surplus else rows)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the edge to the model's own code
            fault = self._fault(variant, rows, error)
            tally.failed(count)
            _fill_error(outcome, fault, count)
            return
        finally:
            tally.leave()
        outcome.scores, outcome.labels, outcome.outputs = scored.scores, scored.labels, scored.outputs
        if scored.warnings:
            outcome.warnings = [[] for _ in rows]
            for row, warning in scored.warnings:
                outcome.warnings[row].append(warning)
        tally.answered(count, latency_us=(time.perf_counter_ns() - started_ns) // 1000)

    def _answer_apart(self, rows: list[Row], outcome: Outcome, started_ns: int) -> None:
        """Predict each variant's rows together and put the answers back in the rows' order."""
        groups: dict[int, list[int]] = {}
        for i, variant in enumerate(outcome.variants):
            groups.setdefault(variant.index, []).append(i)
        outcome.scores, outcome.labels = [None] * len(rows), [None] * len(rows)
        for members in groups.values():
            variant = outcome.variants[members[0]]
            part = Outcome("", [], [], [], [])
            try:
                self._answer_together(variant, [rows[i] for i in members], part, started_ns)
            except Invalid:
                # Its row number counts within the group; the check of all rows finds the right one.
                variant.face.check(rows)
                raise
            _put_back(part, outcome, members)

    def _fault(self, variant: LiveVariant, rows: list[Row], error: BaseException) -> ModelyardError:
        """Return the variant's fault behind what its model raised, or raise the request's own."""
        if isinstance(error, NoFiniteScore):
            return error
        if isinstance(error, Invalid):
            blamed = self._blame(variant, rows, error)
            if blamed is None:
                raise error
            return blamed
        return self._failure(variant, error)

    def _fitted(self, variant: LiveVariant, rows: list[Row]) -> list[Row]:
        """Leave out the key and the time for a variant that does not take them though another does."""
        surplus = self._surplus.get(variant.index)
        if surplus is None:
            return rows
        return [
            {name: value for name, value in row.items() if name not in surplus} if isinstance(row, dict) else row
            for row in rows
        ]

    def _blame(self, variant: LiveVariant, rows: list[Row], error: Invalid) -> ModelyardError | None:
        """Return a fault of the variant if the control would have taken the rows that it refused."""
        if variant is self.control:
            return None
        try:
            self.control.face.check(self._fitted(self.control, rows))
        except Invalid:
            return None
        route = variant.route
        return SchemaMismatch(self.name, variant=route.name, version=route.version, reason=error.message)

    def _failure(self, variant: LiveVariant, error: BaseException) -> ModelFailed:
        route, kind = variant.route, type(error).__name__
        if kind not in variant.reported and len(variant.reported) < 100:
            variant.reported.add(kind)
            log.error(
                "version %d of endpoint %r failed; further %s are counted only",
                route.version,
                self.name,
                kind,
                exc_info=error,
            )
        return ModelFailed(self.name, variant=route.name, version=route.version, reason=kind)


def _has(row: Row, key: str) -> bool:
    return isinstance(row, dict) and row.get(key) is not None


def _fill_error(outcome: Outcome, error: ModelyardError, count: int) -> None:
    outcome.scores, outcome.labels = [None] * count, [None] * count
    outcome.errors = [error] * count


def _put_back(part: Outcome, whole: Outcome, members: list[int]) -> None:
    count = len(whole.scores)
    if part.outputs is not None and whole.outputs is None:
        whole.outputs = [None] * count
    if part.errors is not None and whole.errors is None:
        whole.errors = [None] * count
    if part.warnings is not None and whole.warnings is None:
        whole.warnings = [[] for _ in range(count)]
    for place, i in enumerate(members):
        whole.scores[i], whole.labels[i] = part.scores[place], part.labels[place]
        if part.outputs is not None and whole.outputs is not None:
            whole.outputs[i] = part.outputs[place]
        if part.errors is not None and whole.errors is not None:
            whole.errors[i] = part.errors[place]
        if part.warnings is not None and whole.warnings is not None:
            whole.warnings[i] = part.warnings[place]
