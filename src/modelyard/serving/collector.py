"""The collector: one process per home that turns the workers' records into prediction rows.

Rows are stored exactly once: the files of a batch, what the sinks make of it and the new reading positions
commit in one transaction. A batch that fails is read again, so a sink that always fails stops the collection,
the buffers fill, and workers answer ``captured: false``; it never loses or doubles anything silently.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from types import FrameType
from typing import TYPE_CHECKING

from modelyard.errors import Conflict, Unavailable
from modelyard.serving.capture import Descriptor, read_descriptor
from modelyard.serving.decoding import Decoded
from modelyard.serving.publisher import ServingPaths
from modelyard.storage import Database, Transaction
from modelyard.storage.predictions import START, Advance, AppendReader, Position

if TYPE_CHECKING:
    import pyarrow as pa

    from modelyard.storage.predictions import PredictionStore

log = logging.getLogger(__name__)

Sink = Callable[[Transaction, "pa.Table"], None]
"""Takes the rows of one endpoint inside the batch's transaction; raising undoes the whole batch."""

POLL_S = 0.05
SYNC_S = 1.0
RETRY_S = 1.0
BATCH_RECORDS = 10_000


class Collector:
    """Reads all append folders of a home.

    Args:
        paths: The home's files.
        database: Holds manifest and positions.
        store: Where rows are kept.
        sinks: What else takes them (monitoring windows), in the same transaction.
        batch_records: Most records of one writer in one transaction.

    Attributes:
        rows: Rows stored since it was opened.
        unreadable: Records that could not be decoded.
    """

    def __init__(
        self,
        paths: ServingPaths,
        *,
        database: Database,
        store: PredictionStore,
        sinks: Sequence[Sink] = (),
        batch_records: int = BATCH_RECORDS,
    ) -> None:
        self._paths = paths
        self._database = database
        self._store = store
        self._sinks = tuple(sinks)
        self._batch_records = batch_records
        self._readers: dict[str, AppendReader] = {}
        self._positions: dict[str, Position] = store.positions()
        self._descriptor = lru_cache(maxsize=1024)(self._read_descriptor)
        self.rows = 0
        self.unreadable = 0

    def collect(self) -> int:
        """Store what has been appended since the last call, at most one batch per writer.

        Returns:
            Records taken; 0 if there was nothing.

        Raises:
            Unavailable: If the database or disk does not take it; nothing was stored then.
            Conflict: If another collector stored these records; the positions are read afresh.
        """
        payloads: list[bytes] = []
        advances: list[Advance] = []
        for writer, reader in self._found().items():
            before = self._positions.get(writer, START)
            records, after = reader.read(before, self._batch_records)
            if records:
                payloads += records
                advances.append(Advance(writer, before, after))
        if not payloads:
            return 0
        try:
            self._store_batch(payloads, advances)
        except Conflict:
            self._positions = self._store.positions()
            raise
        for step in advances:
            self._positions[step.writer] = step.after
            self._readers[step.writer].release(step.after)
        return len(payloads)

    def sync(self) -> None:
        """Force what workers have appended to the disk."""
        for reader in self._found().values():
            reader.sync()

    def _store_batch(self, payloads: list[bytes], advances: list[Advance]) -> None:
        decoded = Decoded(payloads, self._descriptor)
        # Files are written before the transaction opens: they do not count until it commits.
        staged = [file for table in decoded.tables for file in self._store.stage(table)]
        with self._database.transaction() as tx:
            self._store.commit(tx, staged, advances=advances)
            for table in decoded.tables:
                for sink in self._sinks:
                    sink(tx, table)
        self.rows += sum(table.num_rows for table in decoded.tables)
        self.unreadable += decoded.unreadable

    def _found(self) -> dict[str, AppendReader]:
        """Return the readers of all folders, with those of new workers."""
        root = self._paths.home / "predictions" / "append"
        if root.is_dir():
            for folder in root.iterdir():
                if folder.name not in self._readers and folder.is_dir():
                    self._readers[folder.name] = AppendReader(folder)
        return self._readers

    def _read_descriptor(self, digest: bytes) -> Descriptor:
        return read_descriptor(self._paths.descriptors, digest)


def run(
    collector: Collector,
    *,
    stopping: threading.Event,
    poll_s: float = POLL_S,
    retry_s: float = RETRY_S,
    monotonic: Callable[[], float] = time.monotonic,
) -> None:
    """Collect until asked to stop, then until nothing is left.

    Args:
        collector: Does the work.
        stopping: Set to stop.
        poll_s: Pause after a pass that found nothing.
        retry_s: Pause after a failure.
        monotonic: Clock for the sync each second.

    Raises:
        Unavailable: If the database does not take the last records; they stay in their append files.
    """
    next_sync = monotonic()
    while True:
        last = stopping.is_set()
        try:
            taken = collector.collect()
            if monotonic() >= next_sync or last:
                collector.sync()
                next_sync = monotonic() + SYNC_S
        except Conflict as error:
            log.warning("another collector was faster: %s", error.message)
            continue
        except Unavailable as error:
            if last:
                raise
            log.error("the predictions were not stored, trying again: %s", error.message)
            stopping.wait(retry_s)
            continue
        if taken == 0:
            if last:
                return
            stopping.wait(poll_s)


def run_until_signalled(collector: Collector) -> None:
    """Collect until SIGTERM or SIGINT, then until nothing is left. For the main thread of a process."""
    stopping = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    run(collector, stopping=stopping)
