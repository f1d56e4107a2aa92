"""The engine: start, wait for, signal, cancel, retry and list durable work."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from modelyard.errors import Conflict, Invalid, NotFound, Unavailable
from modelyard.events import Actor, Clock, EventLog, SystemClock
from modelyard.storage import Database, NewId, Transaction, ulid
from modelyard.workflows import store
from modelyard.workflows.context import ActiveSteps
from modelyard.workflows.errors import StillRunning
from modelyard.workflows.forking import fork
from modelyard.workflows.model import (
    FINAL,
    Definition,
    Outcome,
    Page,
    Run,
    Start,
    Status,
    Ticked,
    check_id,
)
from modelyard.workflows.reading import read_page, read_run
from modelyard.workflows.runner import Runner
from modelyard.workflows.transitions import Transitions, check_state
from modelyard.workflows.upkeep import Upkeep

if TYPE_CHECKING:
    from modelyard.workflows.driver import Driver

LEASE_S = 30.0
"""An executor that has not ticked for so long is taken for dead, and its work is adopted."""

_LOOK_S = 0.1  # a change made by another process is seen within this time

log = logging.getLogger(__name__)


class Engine:
    """Durable work whose finished steps survive ``kill -9``.

    Without ``launch`` it only writes and reads rows, does not load the engine behind it, and leaves the
    running to the processes that have launched one: that is what a command line or an API server needs.

    Args:
        database: Metadata database.
        events: Event log.
        clock: Event time; deadlines are judged by it.
        executor_id: Unique name of this process that it has again after a restart.
        new_id: Makes ids of runs that were given none.
        url: Database of the engine behind; None takes ``workflows.db`` beside a SQLite file, or a schema of
            its own in the same PostgreSQL database.
        logs: Folder for the output of child processes; None keeps none.
        wall_clock: Start and end of steps, heartbeats.
        poll_s: Seconds between two looks at the queues.
        heavy_at_once: How many heavy segments this process runs at a time.
        lease_s: See ``LEASE_S``.
    """

    def __init__(
        self,
        database: Database,
        events: EventLog,
        *,
        clock: Clock,
        executor_id: str,
        new_id: NewId = ulid,
        url: str | None = None,
        logs: Path | None = None,
        wall_clock: Clock | None = None,
        poll_s: float = 0.5,
        heavy_at_once: int = 1,
        lease_s: float = LEASE_S,
    ) -> None:
        if not executor_id or executor_id == "local":
            raise Invalid("Each process needs an executor id of its own, the same again after a restart.")
        self.executor_id = executor_id
        self._database = database
        wall_clock = wall_clock or SystemClock()
        self._new_id = new_id
        self._url = url or beside(database)
        self._poll_s = poll_s
        self._heavy_at_once = heavy_at_once
        self._definitions: dict[str, Definition] = {}
        self._active = ActiveSteps()
        self._changed = threading.Condition()
        self._driver: Driver | None = None
        self._transitions = Transitions(events, clock=clock, wall_clock=wall_clock)
        self._upkeep = Upkeep(
            database,
            self._transitions,
            definitions=self._definitions,
            executor_id=executor_id,
            clock=clock,
            wall_clock=wall_clock,
            lease_s=lease_s,
        )
        self._runner = Runner(
            database,
            self._transitions,
            definitions=self._definitions,
            active=self._active,
            executor_id=executor_id,
            wall_clock=wall_clock,
            clock=clock,
            logs=logs,
            changed=self._notify,
        )

    def register(self, definition: Definition) -> None:
        """Make a workflow known; all of them before ``launch``, which resumes old runs at once.

        Raises:
            Conflict: If the name is taken or the engine is launched.
        """
        if self._driver is not None:
            raise Conflict(f"Register workflow {definition.name!r} before the engine is launched.")
        if definition.name in self._definitions:
            raise Conflict(f"There is a workflow named {definition.name!r} already.")
        self._definitions[definition.name] = definition

    def launch(self) -> None:
        """Begin to run work in this process, and resume what it left unfinished.

        Raises:
            Conflict: If this process runs another engine.
            Unavailable: If the engine's database does not answer.
        """
        from modelyard.workflows.driver import Driver

        driver = Driver(
            self._url,
            executor_id=self.executor_id,
            perform=self._runner.perform,
            poll_s=self._poll_s,
            heavy_at_once=self._heavy_at_once,
        )
        driver.launch()
        self._driver = driver
        self.tick()

    def close(self, *, within_s: float = 10.0) -> None:
        """Stop running work here; steps are told to stop, and what they leave is resumed or adopted.

        Args:
            within_s: Seconds that running steps get.
        """
        driver, self._driver = self._driver, None
        if driver is None:
            return
        if not self._active.close(within_s=within_s):
            log.warning("A workflow step did not stop within %g s; it will be run again.", within_s)
        driver.close()
        self._upkeep.leave()

    def start(
        self,
        name: str,
        input: dict[str, Any] | None = None,  # noqa: A002 - the word of the field
        *,
        actor: Actor,
        workflow_id: str | None = None,
        queue_key: str | None = None,
        project: str = "default",
        subject: str | None = None,
    ) -> str:
        """Start a run, once per ``workflow_id``.

        Args:
            name: A registered definition.
            input: JSON object; ids, not data.
            actor: Who starts it.
            workflow_id: What must happen once, with its time window; unique over all projects. None makes
                one.
            queue_key: Runs with the same key (a model) have at most one segment running at a time.
            project: Project that it belongs to.
            subject: Object that it is about (``kind:name``).

        Returns:
            The run's id.

        Raises:
            NotFound: If no workflow has this name.
            Conflict: If the id belongs to a run with another definition, project or input.
            Invalid: If the id or the input has a wrong form.
        """
        request = Start(name, input or {}, workflow_id, queue_key, project, subject)
        with self._database.transaction() as tx:
            return self.start_in(tx, request, actor=actor)

    def start_in(self, tx: Transaction, request: Start, *, actor: Actor) -> str:
        """Start a run inside the transaction of what causes it; it begins when that commits.

        Returns and raises as ``start``.
        """
        definition = self._definition(request.name)
        workflow_id = check_id(self._new_id() if request.workflow_id is None else request.workflow_id)
        given = check_state("The input", request.input)
        existing = store.run_row(tx.connection, workflow_id)
        if existing is not None:
            same = (existing.name, existing.project, existing.input) == (request.name, request.project, given)
            if not same:
                raise Conflict(
                    f"Workflow {workflow_id!r} exists with another definition, project or input. "
                    "Ids say what must happen once: put what differs into the id.",
                    workflow_id=workflow_id,
                )
            return workflow_id
        start = Start(request.name, given, workflow_id, request.queue_key, request.project, request.subject)
        first = definition.steps[0].name
        self._transitions.begin(tx, start, workflow_id=workflow_id, step=first, actor=actor.name)
        tx.after_commit.append(lambda: self._dispatch_soon(workflow_id))
        return workflow_id

    def signal(self, workflow_id: str, name: str, payload: Any = None, *, actor: Actor) -> bool:
        """Answer a wait. A signal that comes before its wait is kept for it; a second answer changes nothing.

        Returns:
            Whether the signal was taken.

        Raises:
            NotFound: If there is no such run.
            Conflict: If the run is over.
            Invalid: If the payload is not JSON.
        """
        with self._database.transaction() as tx:
            return self.signal_in(tx, workflow_id, name, payload, actor=actor)

    def signal_in(self, tx: Transaction, workflow_id: str, name: str, payload: Any = None, *, actor: Actor) -> bool:
        """Answer a wait inside the transaction of what answers it (an approval).

        Returns and raises as ``signal``.
        """
        value = check_state("The payload", {"payload": payload})["payload"]
        run = self._locked(tx, workflow_id)
        if Status(run.status).final:
            raise Conflict(f"Workflow {workflow_id} has {run.status}; nobody waits for {name!r} any more.")
        taken = self._transitions.signal(tx, run, name=name, payload=value, actor=actor.name)
        tx.after_commit.append(lambda: self._dispatch_soon(workflow_id))
        return taken

    def cancel(self, workflow_id: str, *, actor: Actor, reason: str = "") -> bool:
        """Cancel a run: its children are killed, its wait ends, steps that are done stay done.

        Returns:
            Whether it was cancelled; False if it was over already.

        Raises:
            NotFound: If there is no such run.
        """
        with self._database.transaction() as tx:
            run = self._locked(tx, workflow_id)
            if Status(run.status).final:
                return False
            self._transitions.cancel(tx, run, actor=actor.name, reason=reason)
        self._active.cancel(workflow_id)
        if self._driver is not None:
            try:
                self._driver.cancel(workflow_id, run.segment)
            except Unavailable:
                # Our row decides: the segment ends at its next step in any case.
                log.warning("The engine could not be told that %s is cancelled.", workflow_id, exc_info=True)
        self._notify()
        return True

    def retry_from_step(self, workflow_id: str, step: str, *, actor: Actor, new_workflow_id: str | None = None) -> str:
        """Run a finished run again from a step, under a new id, with the state that the step had.

        Args:
            workflow_id: A run that is over.
            step: A step that it came to; the last visit counts.
            actor: Who retries.
            new_workflow_id: Id of the new run; None makes one.

        Returns:
            Id of the new run.

        Raises:
            NotFound: If there is no such run, or it never came to the step.
            Conflict: If the run is not over, or the new id is taken.
        """
        new_id = check_id(self._new_id() if new_workflow_id is None else new_workflow_id)
        with self._database.transaction() as tx:
            run = self._locked(tx, workflow_id)
            self._definition(run.name).step(step)
            fork(tx, self._transitions, run, step=step, new_id=new_id, actor=actor.name)
            tx.after_commit.append(lambda: self._dispatch_soon(new_id))
        return new_id

    def wait_for(self, workflow_id: str, timeout_s: float, *, or_waiting: bool = False) -> Outcome:
        """Wait until a run is over.

        Args:
            workflow_id: The run.
            timeout_s: Seconds of the wall clock.
            or_waiting: Whether to return also when the run waits for somebody.

        Raises:
            NotFound: If there is no such run.
            StillRunning: If the time is over first.
        """
        end = time.monotonic() + timeout_s
        enough = FINAL | {Status.WAITING} if or_waiting else FINAL
        while True:
            with self._database.reading() as connection:
                row = store.run_row(connection, workflow_id)
            if row is None:
                raise NotFound("workflow", workflow_id)
            if row.status in enough:
                return Outcome(Status(row.status), row.output, row.error)
            left = end - time.monotonic()
            if left <= 0:
                raise StillRunning(workflow_id, status=row.status, timeout_s=timeout_s)
            with self._changed:
                self._changed.wait(min(left, _LOOK_S))

    def get(self, workflow_id: str) -> Run:
        """Return a run with its steps and what it waits for.

        Raises:
            NotFound: If there is no such run.
        """
        return read_run(self._database, workflow_id)

    def log_path(self, workflow_id: str, position: int) -> Path | None:
        """Return the file with the output of a step's children, None if there is none.

        Raises:
            NotFound: If the run never came to this position.
        """
        with self._database.reading() as connection:
            row = store.step_row(connection, workflow_id, position)
        if row is None:
            raise NotFound(f"step in run {workflow_id}", position)
        path = self._runner.log_path(workflow_id, position, row.name)
        return path if path is not None and path.exists() else None

    def tick(self) -> Ticked:
        """Do what time brings: heartbeat, deadlines, hand-over, adoption. Call it about once a second.

        Every process may call it; without ``launch`` it acts on deadlines only.

        Raises:
            Unavailable: If a database does not answer; the next tick makes up for it.
        """
        expired = self._upkeep.expire()
        if expired:
            self._notify()
        if self._driver is None:
            return Ticked(expired=expired)
        return replace(self._upkeep.look_after(self._driver), expired=expired)

    def list(
        self,
        *,
        project: str = "default",
        status: Status | None = None,
        name: str | None = None,
        subject: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """Return a project's runs, newest first.

        Args:
            project: Its name.
            status: Only runs that stand so.
            name: Only runs of this definition.
            subject: Only runs about this object.
            limit: 1 to 500 runs.
            cursor: ``Page.cursor`` of the page before.

        Raises:
            Invalid: If the cursor or the limit has a wrong form.
        """
        wanted = {"status": status, "name": name, "subject": subject}
        return read_page(self._database, project=project, wanted=wanted, limit=limit, cursor=cursor)

    def _definition(self, name: str) -> Definition:
        if name not in self._definitions:
            raise NotFound("workflow definition", name, known=self._definitions)
        return self._definitions[name]

    def _locked(self, tx: Transaction, workflow_id: str) -> sa.Row[Any]:
        run = store.run_row(tx.connection, workflow_id, lock=True)
        if run is None:
            raise NotFound("workflow", workflow_id)
        return run

    def _dispatch_soon(self, workflow_id: str) -> None:
        self._notify()
        if self._driver is None:
            return
        with self._database.reading() as connection:
            row = store.run_row(connection, workflow_id)
        if row is None or row.dispatched or row.status != Status.RUNNING:
            return
        try:
            self._upkeep.dispatch(self._driver, row)
        except Unavailable:
            log.warning("Run %s is written; the next tick hands it over.", workflow_id, exc_info=True)

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()


def beside(database: Database) -> str:
    """Return the URL of the engine's database that belongs to a metadata database.

    Raises:
        Invalid: If the metadata database is in memory.
    """
    url = sa.make_url(database.url)
    if not database.is_sqlite:
        return database.url
    if not url.database or url.database == ":memory:":
        raise Invalid("Workflows need a database in a file: they outlive the process.")
    path = Path(url.database).with_name("workflows.db")
    return url.set(database=str(path)).render_as_string(hide_password=False)
