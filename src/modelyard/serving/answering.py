"""What happens to a request's rows: predicted, recorded, and copied to the shadows."""

from __future__ import annotations

import time
from collections.abc import Callable

from modelyard.serving.capture import NATIVE, Capture, redacted
from modelyard.serving.endpoint import LiveEndpoint
from modelyard.serving.outcome import Outcome
from modelyard.serving.protocols import native, oip
from modelyard.serving.protocols.ask import Ask
from modelyard.serving.shadow import ShadowJob, ShadowQueue


class Answering:
    """Answers asks of every protocol.

    Args:
        capture: Keeps prediction records.
        shadows: Queue of copies for shadow variants.
        wall_ns: Wall clock in nanoseconds since 1970.
        timer_ns: Monotonic clock in nanoseconds.

    Attributes:
        predictions: Asks that reached a variant; a change means that counters have changed.
    """

    def __init__(
        self,
        *,
        capture: Capture,
        shadows: ShadowQueue,
        wall_ns: Callable[[], int] = time.time_ns,
        timer_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._capture = capture
        self._shadows = shadows
        self._wall_ns = wall_ns
        self._timer_ns = timer_ns
        self.predictions = 0

    def predict(
        self, endpoint: LiveEndpoint, ask: Ask, *, body: bytes, protocol: int, started_ns: int
    ) -> tuple[Outcome, bool]:
        """Predict and record.

        Args:
            endpoint: Where it came in.
            ask: The rows; columns that are no inputs are taken out of them.
            body: What was sent, for the record.
            protocol: ``NATIVE`` or ``OIP``.
            started_ns: When the request was complete, by ``timer_ns``.

        Returns:
            The answers, and whether they were recorded.

        Raises:
            Invalid: If a row does not fit.
            UnknownVersion: If the version asked for is not served.
            LeaseUsedUp: If it may not answer for now.
        """
        wall_ns = self._wall_ns()
        self.predictions += 1
        outcome = endpoint.answer(ask, wall_ns=wall_ns, started_ns=started_ns)
        if endpoint.redact:
            protocol, body = NATIVE, _redacted(endpoint, protocol, body)
        sample = endpoint.route.sample
        captured = sample > 0.0 and self._capture.keep(
            outcome,
            descriptor=endpoint.descriptor,
            sample=sample,
            protocol=protocol,
            body=body,
            time_us=wall_ns // 1000,
            latency_us=(self._timer_ns() - started_ns) // 1000,
        )
        if outcome.places is not None and endpoint.has_shadows:
            self._copy(endpoint, ask, outcome, body, protocol, captured=captured)
        return outcome, captured

    def _copy(
        self, endpoint: LiveEndpoint, ask: Ask, outcome: Outcome, body: bytes, protocol: int, *, captured: bool
    ) -> None:
        """Queue copies for the shadows; their answers are recorded if the request was."""
        wanted: dict[int, list[int]] = {}
        for i, place in enumerate(outcome.places or ()):
            for variant in endpoint.router.shadows(place):
                wanted.setdefault(variant.index, []).append(i)
        for variant in endpoint.variants:
            chosen = wanted.get(variant.index)
            if chosen is None:
                continue

            def keep(answer: Outcome, latency_us: int, chosen: list[int] = chosen) -> None:
                if captured:
                    self._capture.keep(
                        answer,
                        descriptor=endpoint.descriptor,
                        sample=1.0,
                        protocol=protocol,
                        body=body,
                        time_us=self._wall_ns() // 1000,
                        latency_us=latency_us,
                        rows=chosen,
                    )

            self._shadows.put(ShadowJob(endpoint, variant, ask.rows, chosen, outcome, keep))


def _redacted(endpoint: LiveEndpoint, protocol: int, body: bytes) -> bytes:
    # The rows were taken apart on the way, so the columns that may be kept are read afresh.
    order = endpoint.order
    again = native.parse(body) if protocol == NATIVE else oip.parse(body, order=order, extra=endpoint.named)
    return redacted(again.rows, endpoint.redact, order=order)
