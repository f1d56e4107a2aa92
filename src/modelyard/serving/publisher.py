"""How the control plane reaches the workers: a route table renamed into place, and their status files read.

Nothing here needs a running worker: a table published while none is up is what the next one starts with.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from modelyard.errors import Conflict, Invalid, Unavailable
from modelyard.serving.model import (
    LoadFailure,
    RouteTable,
    WorkerStatus,
    check,
    decode_status,
    decode_table,
    encode,
)
from modelyard.serving.tally import is_locked

POLL_S = 0.01


class LoadRefused(Unavailable):
    """Some worker could not load a variant of the published table."""

    code = "load_refused"

    def __init__(self, generation: int, failures: Iterable[tuple[int, LoadFailure]]) -> None:
        listed = [
            {
                "worker": worker,
                "endpoint": f.endpoint,
                "variant": f.variant,
                "version": f.version,
                "message": f.message,
            }
            for worker, f in failures
        ]
        first = listed[0]
        super().__init__(
            f"Worker {first['worker']} could not load version {first['version']} as {first['variant']!r} of "
            f"endpoint {first['endpoint']!r}: {first['message']} The endpoint goes on without it.",
            generation=generation,
            failures=listed,
        )


@dataclass(frozen=True, slots=True)
class ServingPaths:
    """Where serving keeps its files in a home folder.

    Attributes:
        home: The home folder.
    """

    home: Path

    @property
    def routes(self) -> Path:
        """The route table."""
        return self.home / "serving" / "routes.json"

    @property
    def tokens(self) -> Path:
        """Digests of the tokens that may predict; absent when none are needed."""
        return self.home / "serving" / "tokens.json"

    @property
    def workers(self) -> Path:
        """Folder of the workers' status files."""
        return self.home / "serving" / "workers"

    @property
    def models(self) -> Path:
        """Folder of materialised versions, one folder per content digest."""
        return self.home / "serving" / "models"

    @property
    def descriptors(self) -> Path:
        """Folder of what the collector needs to read records, one file per digest."""
        return self.home / "serving" / "descriptors"

    def status(self, worker: int) -> Path:
        """Status file of one worker."""
        return self.workers / f"{worker}.json"

    def tallies(self, worker: int) -> Path:
        """Counters of one worker that outlive its process, which holds a lock on the file."""
        return self.workers / f"{worker}.tallies"

    def append(self, worker: int) -> Path:
        """Folder of one worker's prediction records."""
        return self.home / "predictions" / "append" / f"worker-{worker}"


class RoutePublisher:
    """Publishes route tables and waits for the workers to serve them.

    Args:
        home: The home folder.
        monotonic: Clock for timeouts, in seconds.
        sleep: Waits that many seconds between two looks at the status files.
        alive: Tells whether the worker that wrote a status still runs.
    """

    def __init__(
        self,
        home: Path,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        alive: Callable[[WorkerStatus], bool] | None = None,
    ) -> None:
        self.paths = ServingPaths(home)
        self._monotonic = monotonic
        self._sleep = sleep
        self._alive = alive or self._holds_its_lock

    def current(self) -> RouteTable:
        """Return the published table; an empty one with generation 0 if there is none.

        Raises:
            Invalid: If the file is not a route table.
        """
        try:
            return decode_table(self.paths.routes.read_bytes())
        except FileNotFoundError:
            return RouteTable(0, ())

    def publish(self, table: RouteTable) -> RouteTable:
        """Put a table in force, durably: it is on disk when this returns.

        Args:
            table: Generation 0 stands for "the next one". A model folder that it names must exist.

        Returns:
            The table as published, with its generation.

        Raises:
            Invalid: If the table breaks a rule, or names a version whose folder is not there.
            Conflict: If its generation is not greater than the published one.
        """
        current = self.current().generation
        if table.generation == 0:
            table = replace(table, generation=current + 1)
        if table.generation <= current:
            raise Conflict(
                f"Route table {table.generation} is not newer than {current}, which is published. "
                "Read the current table and try again.",
                generation=table.generation,
                current=current,
            )
        check(table)
        self._check_folders(table)
        write_atomically(self.paths.routes, encode(table), durable=True)
        return table

    def workers(self) -> list[WorkerStatus]:
        """Return the status of every worker that runs, by number."""
        found = []
        for path in sorted(self.paths.workers.glob("*.json")):
            try:
                status = decode_status(path.read_bytes())
            except (FileNotFoundError, Invalid):
                continue
            if self._alive(status):
                found.append(status)
        return sorted(found, key=lambda status: status.worker)

    def await_loaded(self, generation: int, *, timeout_s: float = 30.0, workers: int = 1) -> list[WorkerStatus]:
        """Wait until every live worker serves this generation or a later one.

        Args:
            generation: What ``publish`` returned.
            timeout_s: How long to wait.
            workers: How many workers there must be at least.

        Returns:
            The workers' status.

        Raises:
            LoadRefused: If a worker serves the generation without one of its variants.
            Unavailable: If the time is over; says which workers are behind.
        """
        deadline = self._monotonic() + timeout_s
        while True:
            found = self.workers()
            behind = [status.worker for status in found if status.generation < generation]
            if len(found) >= workers and not behind:
                failures = [(status.worker, failure) for status in found for failure in status.failed]
                if failures:
                    raise LoadRefused(generation, failures)
                return found
            if self._monotonic() >= deadline:
                raise Unavailable(
                    f"Route table {generation} is not in force after {timeout_s:g} s: {len(found)} of "
                    f"{workers} workers are up, behind are {behind or 'none'}.",
                    generation=generation,
                    behind=behind,
                    workers=len(found),
                )
            self._sleep(POLL_S)

    def _holds_its_lock(self, status: WorkerStatus) -> bool:
        return is_locked(self.paths.tallies(status.worker))

    def _check_folders(self, table: RouteTable) -> None:
        for endpoint in table.endpoints:
            for variant in endpoint.variants:
                folder = self.paths.models / variant.digest
                if not variant.digest.isalnum() or not folder.is_dir():
                    raise Invalid(
                        f"Endpoint {endpoint.name!r}, variant {variant.name!r}: the folder of version "
                        f"{variant.version} is not in serving/models. Materialise it before naming it.",
                        endpoint=endpoint.name,
                        digest=variant.digest,
                    )


def write_atomically(path: Path, content: bytes, *, durable: bool) -> None:
    """Replace a file by a rename, so that a reader sees the old or the new content and nothing between.

    Args:
        path: The file; its folder is created.
        content: All of it.
        durable: Whether it must survive a loss of power when this returns.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    beside.replace(path)
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
