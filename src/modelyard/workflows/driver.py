"""The one place that knows DBOS Transact: it keeps segments running across crashes, and limits how many run.

A segment, the stretch of a run between two waits, is one DBOS workflow whose steps are positions of the run.
DBOS holds ids and positions only; states and answers are in our own tables, so its database never needs to be
read to show or decide anything.
"""

from __future__ import annotations

import contextvars
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
from dbos import (
    DBOS,
    DBOSConfig,
    DBOSPortableJSONSerializer,
    SetEnqueueOptions,
    SetWorkflowID,
    StepOptions,
)
from sqlalchemy import event

from modelyard.errors import Conflict, Invalid, StorageFull, Unavailable

if TYPE_CHECKING:
    from psycopg import Cursor
    from psycopg.rows import RowMaker

T = TypeVar("T")

APPLICATION = "modelyard"
APPLICATION_VERSION = "1"
"""Pinned: DBOS recovers only work of its own version, and by default any change of code is a new version,
which would orphan unfinished runs. Segments are addressed by step names, so it need not change."""

SCHEMA = "modelyard_workflows"
HEAVY_QUEUE = "modelyard-heavy"
LIGHT_QUEUE = "modelyard-light"
_SEGMENT = "modelyard.segment"
_PICKLE = "py_pickle"
_BUSY_TIMEOUT_MS = 30_000
_IDLE_TRANSACTION_MS = 60_000
_ENDED = frozenset({"SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"})

# DBOS is a process-wide singleton: whoever holds this lock has it.
_SINGLETON = threading.Lock()


def engine_id(run_id: str, number: int) -> str:
    """Return the id under which the engine knows a segment."""
    return f"{run_id}:{number}"


class Driver:
    """DBOS, as far as we use it.

    Args:
        url: Database of the engine: a SQLite file of its own, or PostgreSQL (it uses its own schema).
        executor_id: Unique name of this process, the same again after a restart.
        perform: Runs one step (run id, segment, position) and returns the next position of the segment.
        poll_s: Seconds between two looks at the queues.
        heavy_at_once: How many heavy segments this process runs at a time.
    """

    def __init__(
        self,
        url: str,
        *,
        executor_id: str,
        perform: Callable[[str, int, int], int | None],
        poll_s: float,
        heavy_at_once: int,
    ) -> None:
        self._url = url
        self._executor_id = executor_id
        self._perform = perform
        self._poll_s = poll_s
        self._heavy_at_once = heavy_at_once
        self._engine: sa.Engine | None = None
        self._closed = False
        self._segment: Callable[[str, int, int], None] | None = None

    def launch(self) -> None:
        """Start the engine; it resumes what this executor left unfinished.

        Raises:
            Conflict: If this process runs an engine already.
            Invalid: If the environment asks for DBOS Cloud.
            Unavailable: If the database does not answer.
        """
        if os.environ.get("DBOS__CLOUD") == "true":
            raise Invalid("DBOS__CLOUD is set: it would replace the executor's name. Unset it.")
        if not _SINGLETON.acquire(blocking=False):
            raise Conflict("This process runs a workflow engine already; close it first.")
        try:
            with _translated():
                self._launch()
        except BaseException:
            self._destroy()
            raise

    def close(self) -> None:
        """Stop the engine. Segments that are still running stay unfinished in its database."""
        self._destroy()

    def submit(self, run_id: str, number: int, position: int, *, heavy: bool, key: str | None) -> None:
        """Hand a segment over; the same one twice runs once.

        Args:
            run_id: The run.
            number: Counts the run's segments: each wait that is answered starts the next one.
            position: Position of its first step.
            heavy: Whether it takes one of the slots for heavy work.
            key: At most one segment with this key runs at a time; without one a light segment starts at once.

        Raises:
            Unavailable: If the database does not answer.
        """
        queue = HEAVY_QUEUE if heavy else LIGHT_QUEUE
        with _translated():
            if heavy or key is not None:
                _outside(self._enqueue, queue, key or run_id, run_id, number, position)
            else:
                _outside(self._start, run_id, number, position)

    def cancel(self, run_id: str, number: int) -> None:
        """Let a segment end at its next step, or never start.

        Raises:
            Unavailable: If the database does not answer.
        """
        with _translated():
            _outside(DBOS.cancel_workflow, engine_id(run_id, number))

    def adopt(self, executor_id: str) -> int:
        """Take over the unfinished segments of an executor that is dead; return how many.

        Only one taker gets each segment, so doing it twice is harmless.
        """
        # Private: without Conductor there is no public way. A test pins it; the version is pinned exactly.
        with _translated():
            return len(_outside(DBOS._recover_pending_workflows, [executor_id]))

    def ended(self, segments: Sequence[tuple[str, int]]) -> frozenset[tuple[str, int]]:
        """Return those segments, of at most 1,000, that the engine has ended or does not know."""
        known = {engine_id(*segment): segment for segment in segments}
        if not known:
            return frozenset()
        with _translated():
            found = _outside(_statuses, list(known))
        return frozenset(segment for key, segment in known.items() if found.get(key, "ERROR") in _ENDED)

    def _launch(self) -> None:
        logger = logging.getLogger("dbos")
        if not logger.handlers:
            # With a handler there, DBOS adds no console of its own and lets records propagate to ours.
            logger.addHandler(logging.NullHandler())
        self._engine = engine(self._url)
        event.listen(self._engine, "checkin", self._close_late)
        config: DBOSConfig = {
            "name": APPLICATION,
            "system_database_url": self._url,
            "system_database_engine": self._engine,
            "dbos_system_schema": SCHEMA,
            "application_version": APPLICATION_VERSION,
            "executor_id": self._executor_id,
            "serializer": DBOSPortableJSONSerializer(),
            "log_level": "WARNING",  # its start-up lines advertise a paid service
            "enable_otlp": False,
            "use_listen_notify": False,  # we wait in our own tables
            "notification_listener_polling_interval_sec": min(1.0, self._poll_s),
        }
        DBOS(config=config)
        # Starts that repeat without an end are counted by our runner, which can say which step it is.
        self._segment = DBOS.workflow(name=_SEGMENT, max_recovery_attempts=None)(_segment_of(self._perform))
        DBOS.launch()
        for queue, at_once in ((HEAVY_QUEUE, self._heavy_at_once), (LIGHT_QUEUE, None)):
            DBOS.register_queue(
                queue,
                worker_concurrency=at_once,
                partition_concurrency=1,
                polling_interval_sec=self._poll_s,
                on_conflict="always_update",
            )

    def _start(self, run_id: str, number: int, position: int) -> None:
        with SetWorkflowID(engine_id(run_id, number)):
            DBOS.start_workflow(self._workflow(), run_id, number, position)

    def _enqueue(self, queue: str, key: str, run_id: str, number: int, position: int) -> None:
        with SetWorkflowID(engine_id(run_id, number)), SetEnqueueOptions(queue_partition_key=key):
            DBOS.enqueue_workflow(queue, self._workflow(), run_id, number, position)

    def _workflow(self) -> Callable[[str, int, int], None]:
        if self._segment is None:
            raise Unavailable("The workflow engine is not running.")
        return self._segment

    def _close_late(self, _connection: object, record: Any) -> None:
        # DBOS does not wait for its threads: one that writes an outcome while the engine is closed gives its
        # connection back to a pool that nobody closes any more.
        if self._closed:
            record.invalidate()

    def _destroy(self) -> None:
        self._closed = True
        try:
            DBOS.destroy(destroy_registry=True)
        finally:
            self._segment = None
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None
            _SINGLETON.release()


def engine(url: str) -> sa.Engine:
    """Open the engine's database as DBOS expects it, durably, and deaf to pickled values.

    DBOS configures nothing on an engine that it is given: the settings below are its own, plus WAL and FULL,
    which approvals need (with NORMAL the last commits can be lost with the power).
    """
    if sa.make_url(url).get_backend_name() != "sqlite":
        return sa.create_engine(
            url,
            pool_size=20,
            max_overflow=0,
            pool_pre_ping=True,
            connect_args={
                "options": f"-c idle_in_transaction_session_timeout={_IDLE_TRANSACTION_MS}",
                "row_factory": _checked_rows,
            },
        )
    sqlite = sa.create_engine(url, connect_args={"timeout": _BUSY_TIMEOUT_MS / 1000})

    @event.listens_for(sqlite, "connect")
    def configure(connection: Any, _record: object) -> None:
        # DBOS begins its migrations itself and relies on the driver's own BEGIN IMMEDIATE elsewhere.
        connection.isolation_level = "IMMEDIATE"
        for pragma in (
            f"busy_timeout={_BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
        ):
            connection.execute(f"PRAGMA {pragma}")
        connection.row_factory = lambda _cursor, row: _checked(row)

    return sqlite


def _segment_of(perform: Callable[[str, int, int], int | None]) -> Callable[[str, int, int], None]:
    """Return the workflow function of an engine: a function, since DBOS takes no bound methods."""

    def segment(run_id: str, number: int, position: int) -> None:
        following: int | None = position
        while following is not None:
            options = StepOptions(name=f"position {following}")
            following = DBOS.run_step(options, perform, run_id, number, following)

    return segment


def _checked_rows(cursor: Cursor[Any]) -> RowMaker[tuple[Any, ...]]:
    from psycopg.rows import tuple_row

    make = tuple_row(cursor)
    return lambda values: _checked(make(values))


def _checked(row: tuple[Any, ...]) -> tuple[Any, ...]:
    # DBOS reads each value by the format that its row names, whatever serializer it was given: a row that
    # says "pickle" would run code. We never write one, so it was planted.
    if _PICKLE in row:
        raise Invalid("The workflow database holds a pickled value, which is refused: it could run code.")
    return row


def _statuses(ids: list[str]) -> dict[str, str]:
    rows = DBOS.list_workflows(workflow_ids=ids, load_input=False, load_output=False)
    return {row.workflow_id: row.status for row in rows}


def _outside(function: Callable[..., T], *arguments: Any) -> T:
    """Call DBOS as if from outside any workflow, also when a step starts or signals another run."""
    return contextvars.Context().run(function, *arguments)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sa.exc.OperationalError as error:
        if "full" in str(error.orig).lower():
            raise StorageFull("The workflow database has no room left. Free some space.") from error
        raise Unavailable("The workflow database did not answer. Try again in a moment.") from error
