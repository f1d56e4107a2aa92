"""Copies for shadow variants, answered after the client has its own answer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from modelyard.serving.endpoint import LiveEndpoint, LiveVariant
from modelyard.serving.outcome import Outcome
from modelyard.serving.protocols.ask import Row

QUEUE_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class ShadowJob:
    """One request's copy for one shadow.

    Attributes:
        endpoint: Where it came in.
        variant: The shadow.
        rows: All rows of the request.
        chosen: Which of them the shadow gets.
        outcome: What the client was told.
        keep: Records the shadow's answer; called with the answer and its latency in µs.
    """

    endpoint: LiveEndpoint
    variant: LiveVariant
    rows: list[Row]
    chosen: list[int]
    outcome: Outcome
    keep: Callable[[Outcome, int], None]


class ShadowQueue:
    """A bounded queue that is worked off between requests; what does not fit is dropped and counted.

    Args:
        limit: Most jobs that wait.
        timer_ns: Monotonic clock in nanoseconds.

    Attributes:
        dropped: Jobs that found the queue full.
        handled: Jobs done or dropped.
    """

    def __init__(self, *, limit: int = QUEUE_LIMIT, timer_ns: Callable[[], int]) -> None:
        self._jobs: deque[ShadowJob] = deque()
        self._limit = limit
        self._timer_ns = timer_ns
        self._task: asyncio.Task[None] | None = None
        self.dropped = 0
        self.handled = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: ShadowJob) -> None:
        """Add a job, or count it as dropped."""
        if len(self._jobs) >= self._limit:
            self.dropped += 1
            self.handled += 1
            return
        self._jobs.append(job)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def drain(self) -> None:
        """Wait until the queue is empty."""
        if self._task is not None:
            await self._task

    def run_one(self) -> None:
        """Work off the oldest job."""
        job = self._jobs.popleft()
        self.handled += 1
        started = self._timer_ns()
        answer = job.endpoint.shadow(job.variant, job.rows, job.outcome, job.chosen)
        job.keep(answer, (self._timer_ns() - started) // 1000)

    async def _work(self) -> None:
        try:
            while self._jobs:
                # One turn of the loop between two jobs: requests that have arrived go first.
                await asyncio.sleep(0)
                self.run_one()
        finally:
            self._task = None
