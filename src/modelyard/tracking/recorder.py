"""The recorder: what training code logs through.

``log`` puts a record on a bounded queue and returns; a thread turns the queue into batches and sends them.
Training is never brought down: what cannot be sent is spooled to disk and sent again exactly once, what the
service refuses is set aside, and each cause is told once.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import index
from pathlib import Path

from modelyard.errors import ModelyardError
from modelyard.storage import NewId, ulid
from modelyard.tracking import model
from modelyard.tracking.batch import Batch, Ending, Start
from modelyard.tracking.filling import Filling, Param, Record, Tag
from modelyard.tracking.keys import relative_key
from modelyard.tracking.model import Artifact, DatasetInput, RunStatus
from modelyard.tracking.spool import Spool
from modelyard.tracking.transport import Transport

logger = logging.getLogger("modelyard.tracking")

# A record is about 200 bytes: a full queue holds some 20 MB.
CAPACITY = 100_000
_WAKE_AT = 512
# Batches kept in memory while the disk has no room either.
_MAX_UNSENT = 256
_FLUSH_EVERY_S = 0.5
_FIRST_RETRY_S = 0.5
_LAST_RETRY_S = 30.0
# How long one call may hold training up when the queue is full and nothing drains it.
_MAX_WAIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Flushed:
    """What has become of everything logged so far.

    Attributes:
        acknowledged: Whether all of it is durable in the service.
        spooled: Batches that wait on this machine's disk.
        refused: Batches that the service will never accept.
        dropped: Records lost because queue, disk and service all had no room.
        waits: Calls that a full queue has held up.
    """

    acknowledged: bool
    spooled: int
    refused: int
    dropped: int
    waits: int


class RunRecorder:
    """Logs one run from one process, from any number of threads.

    Args:
        run_id: The run.
        transport: Where batches go.
        spool: Folder for what cannot be sent.
        start: Creates the run with the first batch; None if it exists.
        capacity: Records that the queue holds before ``log`` waits.
        new_id: Makes batch ids.
        now_us: Microseconds since 1970, for the time of each point.
        monotonic: Seconds, for the pause between attempts.
        max_wait_s: Seconds that a full queue may hold up one call.
    """

    def __init__(
        self,
        run_id: str,
        transport: Transport,
        *,
        spool: Path,
        start: Start | None = None,
        capacity: int = CAPACITY,
        new_id: NewId = ulid,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        monotonic: Callable[[], float] = time.monotonic,
        max_wait_s: float = _MAX_WAIT_S,
    ) -> None:
        self.run_id = run_id
        self._transport = transport
        self._spool = Spool.named(spool, run_id, new_id=new_id)
        self._capacity = capacity
        self._mark = min(capacity, _WAKE_AT)
        self._new_id = new_id
        self._now_us = now_us
        self._monotonic = monotonic
        self._max_wait_s = max_wait_s
        self._queue: deque[Record] = deque()
        self._unsent: deque[Batch] = deque()
        self._step = 0
        self._told: set[str] = set()
        self._refused = self._dropped = self._waits = 0
        self._pause_s = _FIRST_RETRY_S
        self._retry_at = 0.0
        self._sending = threading.Lock()
        self._wake = threading.Event()
        self._room = threading.Event()
        self._patient = True
        self._closed = False
        if start is not None:
            self._put(start)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.name = f"modelyard-{run_id[-6:]}"
        self._thread.start()
        _living.add(self)

    def log(self, metrics: Mapping[str, float], *, step: int | None = None) -> None:
        """Log values of metrics at a step, by default the one after the last step; never raises.

        Takes a few microseconds; what is not a number is left out and told once.
        """
        try:
            step = self._step if step is None else index(step)
            if step >= self._step:
                self._step = step + 1
            values = {key: float(value) for key, value in metrics.items()}
        except (TypeError, ValueError, AttributeError):
            step, values = self._salvaged(metrics, step)
        queue = self._queue
        queue.append((step, self._now_us(), values))
        if len(queue) >= self._mark:
            self._press()

    def log_at(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log values at a step of their own, such as a booster's round, without moving the next step."""
        self._put((step, self._now_us(), {key: float(value) for key, value in metrics.items()}))

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log parameters; a long value is cut to what can be stored."""
        for key, value in params.items():
            self._put(Param(str(key), str(value)[: model.MAX_PARAM_VALUE]))

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags; a long value is cut to what can be stored."""
        for key, value in tags.items():
            self._put(Tag(str(key), str(value)[: model.MAX_RUN_TAG_VALUE]))

    def log_input(self, dataset: DatasetInput) -> None:
        """Log a dataset that the run has read."""
        self._put(dataset)

    def log_artifact(self, path: str, content: bytes | Path) -> None:
        """Store a file or bytes under a relative key; the content is read before this returns.

        Raises:
            Invalid: If ``path`` is not a relative key.
        """
        relative_key(path)
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        self._put(Artifact(path, self.upload(content), size))

    def upload(self, content: bytes | Path) -> str:
        """Put content into the object store, or beside the spool while that is out of reach."""
        try:
            return self._transport.upload(content)
        except Exception as error:  # noqa: BLE001 - the edge between training and the tracker
            self._tell(error)
            with self._sending:
                return self._spool.keep(content)

    def flush(self) -> Flushed:
        """Send everything logged until now, or spool it, and say which."""
        with self._sending:
            self._drain(retry=True)
            return Flushed(
                acknowledged=not (self._spool.waiting or self._unsent or self._refused or self._dropped),
                spooled=self._spool.waiting,
                refused=self._refused,
                dropped=self._dropped,
                waits=self._waits,
            )

    def finish(self, status: RunStatus = "finished", *, error: str | None = None) -> Flushed:
        """End the run, send or spool everything, and stop. Later calls change nothing."""
        if self._closed:
            return self.flush()
        self._put(Ending(status, self._now_us(), error))
        return self.close()

    def close(self) -> Flushed:
        """Send or spool everything and stop, without ending the run."""
        self._closed = True
        flushed = self.flush()
        self._wake.set()
        if self._thread is not threading.current_thread():
            self._thread.join()
        with self._sending:
            self._spool.close()
        return flushed

    def forget(self) -> None:
        """Drop everything: this is a forked child, and the parent's thread sends what was queued."""
        self._queue = deque(maxlen=0)
        self._unsent.clear()
        self._sending = threading.Lock()
        self._closed = True

    def _work(self) -> None:
        while not self._closed:
            self._wake.wait(_FLUSH_EVERY_S)
            self._wake.clear()
            with self._sending:
                try:
                    self._drain(retry=self._monotonic() >= self._retry_at)
                except Exception:
                    # The thread has to live: without it a full queue would hold training up.
                    logger.exception("Modelyard could not send a part of run %s.", self.run_id)

    def _put(self, record: Record) -> None:
        self._queue.append(record)
        if len(self._queue) >= self._mark:
            self._press()

    def _press(self) -> None:
        """Wake the thread, and wait while the queue is full."""
        if not self._wake.is_set():
            self._wake.set()
        if len(self._queue) < self._capacity:
            return
        self._waits += 1
        end = self._monotonic() + (self._max_wait_s if self._patient else 0.0)
        while len(self._queue) >= self._capacity:
            if self._closed or self._monotonic() >= end:
                # Only the first call waits its full time: the next ones know that nothing moves.
                self._patient = False
                self._drop()
                return
            self._room.clear()
            self._wake.set()
            self._room.wait(0.05)

    def _drop(self) -> None:
        if self._queue:
            self._queue.popleft()
        self._dropped += 1
        self._tell_once("dropped", "Modelyard cannot keep up: the oldest records of this run are lost.")

    def _drain(self, *, retry: bool) -> None:
        """Turn the whole queue into batches, and send or spool each, in order."""
        if retry:
            self._replay()
        while self._queue:
            batch = self._collect()
            self._patient = True
            self._room.set()
            if not self._spool.waiting and not self._unsent and self._send(batch):
                continue
            self._keep(batch)

    def _collect(self) -> Batch:
        """Take records off the queue until a batch is full."""
        filling = Filling(Batch(self._new_id(), self.run_id))
        while self._queue:
            record = self._queue.popleft()
            if not filling.take(record):
                self._queue.extendleft(reversed(list(filling.rest(record))))
                if not filling.empty:
                    break
        return filling.batch

    def _send(self, batch: Batch) -> bool:
        try:
            self._spool.send(batch, self._transport, self._refuse)
        except Exception as error:  # noqa: BLE001 - the edge between training and the tracker
            self._fail(error)
            return False
        return True

    def _replay(self) -> None:
        try:
            self._spool.replay(self._transport, self._refuse)
            while self._unsent:
                self._spool.send(self._unsent[0], self._transport, self._refuse)
                self._unsent.popleft()
        except Exception as error:  # noqa: BLE001 - the edge between training and the tracker
            self._fail(error)
            return
        self._pause_s = _FIRST_RETRY_S

    def _keep(self, batch: Batch) -> None:
        """Spool a batch; without room on the disk, keep as much as the queue may hold in memory."""
        try:
            if not self._unsent:
                self._spool.append(batch)
                return
        except OSError as error:
            self._tell(error)
        self._unsent.append(batch)
        if len(self._unsent) > _MAX_UNSENT:
            self._unsent.popleft()
            self._dropped += 1

    def _refuse(self, batch: Batch, error: ModelyardError) -> None:
        self._refused += 1
        self._tell_once(error.code, f"Modelyard refused a part of run {self.run_id}: {error}")
        try:
            self._spool.refuse(batch, error)
        except OSError as failure:
            self._tell(failure)

    def _fail(self, error: Exception) -> None:
        self._retry_at = self._monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LAST_RETRY_S)
        self._tell(error)

    def _tell(self, error: Exception) -> None:
        cause = error.code if isinstance(error, ModelyardError) else type(error).__name__
        self._tell_once(
            cause,
            f"Modelyard cannot be reached ({error}). Training goes on; what is logged waits in "
            f"{self._spool.path.parent} and is sent later.",
        )

    def _tell_once(self, cause: str, message: str) -> None:
        # A log record, not a Python warning: under ``-W error`` a warning would end the training.
        if cause not in self._told:
            self._told.add(cause)
            logger.warning(message)

    def _salvaged(self, metrics: object, step: object) -> tuple[int, dict[str, float]]:
        """Keep what can be logged of a call with something in it that cannot."""
        if not isinstance(step, int):
            step = int(step) if isinstance(step, float) and step.is_integer() else self._step
            self._step = max(self._step, step + 1)
        values: dict[str, float] = {}
        for key, value in metrics.items() if isinstance(metrics, Mapping) else ():
            try:
                values[key] = float(value)
            except (TypeError, ValueError):
                self._tell_once(f"number {key}", f"Metric {key!r} is not a number; it is not logged.")
        return step, values


_living: weakref.WeakSet[RunRecorder] = weakref.WeakSet()


def _after_fork() -> None:
    for recorder in list(_living):
        recorder.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
