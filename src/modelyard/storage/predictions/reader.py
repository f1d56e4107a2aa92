"""Read what a writer appended, while it writes, from any process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from modelyard.errors import Corrupted
from modelyard.storage.predictions.segment import (
    HEADER_BYTES,
    LOCK_NAME,
    RECORD,
    RECORD_BYTES,
    START,
    Position,
    Stop,
    mark_of,
    next_record,
    parse,
    segment_numbers,
    segment_path,
)

_WINDOW_BYTES = 1 << 20


class AppendReader:
    """Reads the segments of one writer. The caller keeps the position, so a batch is read again until stored.

    Args:
        folder: The writer's folder; need not exist yet.

    Attributes:
        damaged: Stretches of unreadable bytes that were skipped (torn by a loss of power, or altered).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damaged = 0
        self._synced = 0

    def read(self, position: Position = START, limit: int = 10_000) -> tuple[list[bytes], Position]:
        """Read committed records in the order in which they were appended.

        Args:
            position: Where to begin; ``START`` for the oldest record there is.
            limit: Most records to return.

        Returns:
            The payloads, and the position behind the last of them.
        """
        records: list[bytes] = []
        while len(records) < limit:
            # List first: a segment that has a successor here was complete before this look at it.
            ahead = [number for number in segment_numbers(self.folder) if number >= position.segment]
            if not ahead:
                break
            if ahead[0] != position.segment or position.offset < HEADER_BYTES:
                position = Position(ahead[0], HEADER_BYTES)
            closed = len(ahead) > 1
            found, offset = self._read_segment(position, limit - len(records), closed=closed)
            records += found
            position = Position(position.segment, offset)
            if len(records) >= limit or not closed:
                break
            position = Position(ahead[1], HEADER_BYTES)
        return records, position

    def release(self, position: Position) -> int:
        """Delete the segments wholly before a position; never the one that the writer is in.

        Returns:
            How many were deleted.
        """
        done = [number for number in segment_numbers(self.folder)[:-1] if number < position.segment]
        for number in done:
            segment_path(self.folder, number).unlink(missing_ok=True)
        return len(done)

    def sync(self) -> None:
        """Force what has been appended to the disk; the writer does not wait for it.

        Called every second by the process that reads, it bounds what a loss of power can take.
        """
        for number in segment_numbers(self.folder):
            if number < self._synced:
                continue
            _fsync(segment_path(self.folder, number))
            self._synced = number
        _fsync(self.folder)

    def retire(self, position: Position) -> bool:
        """Delete the folder of a writer that is gone for good, if everything in it was read.

        Returns:
            False, and nothing is deleted, while the writer lives or unread records remain.
        """
        try:
            lock = os.open(self.folder / LOCK_NAME, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self.read(position, 1)[0]:
                return False
            for entry in self.folder.iterdir():
                entry.unlink()
            self.folder.rmdir()
        except BlockingIOError:
            return False
        finally:
            os.close(lock)
        return True

    def _read_segment(self, position: Position, limit: int, *, closed: bool) -> tuple[list[bytes], int]:
        try:
            descriptor = os.open(segment_path(self.folder, position.segment), os.O_RDONLY)
        except FileNotFoundError:  # another reader released it
            return [], position.offset
        try:
            mark = mark_of(os.pread(descriptor, HEADER_BYTES, 0), position.segment)
            if mark is None:
                self.damaged += closed
                return [], position.offset
            return self._records(descriptor, mark, position.offset, limit, closed)
        except OSError as error:
            raise Corrupted(f"Segment {position.segment} in {self.folder} cannot be read: {error.strerror}.") from error
        finally:
            os.close(descriptor)

    def _records(self, descriptor: int, mark: int, offset: int, limit: int, closed: bool) -> tuple[list[bytes], int]:
        records: list[bytes] = []
        size = os.fstat(descriptor).st_size
        window = _WINDOW_BYTES
        while len(records) < limit:
            data = os.pread(descriptor, window, offset)
            found, taken, stop = parse(data, mark, limit - len(records))
            records += found
            offset += taken
            if stop is Stop.LIMIT:
                break
            if stop is Stop.MORE and offset + _needed(data, taken) <= size:
                window = max(_WINDOW_BYTES, _needed(data, taken))
                continue
            # Unwritten space is the end of a live segment; anything else may be damage, or being written.
            nothing_there = stop is Stop.END or len(data) - taken < RECORD_BYTES
            behind = None if nothing_there and not closed else _resume(descriptor, mark, offset, size)
            if behind is None:
                break
            self.damaged += behind > offset
            offset = behind
        return records, offset


def _needed(data: bytes, at: int) -> int:
    """Return the bytes of the record at ``at``, or of its own header if that is not here in full."""
    if at + RECORD_BYTES > len(data):
        return RECORD_BYTES
    return RECORD_BYTES + int(RECORD.unpack_from(data, at)[1])


def _resume(descriptor: int, mark: int, offset: int, size: int) -> int | None:
    """Return where reading goes on at or behind ``offset``, or None.

    The writer commits in order, so a whole record behind this place means that this one will not become
    whole any more - unless it did since it was looked at, which the second look from ``offset`` on finds.
    """
    rest = os.pread(descriptor, max(size - offset, 0), offset)
    if next_record(rest, mark, 1) is None:
        return None
    found = next_record(os.pread(descriptor, max(size - offset, 0), offset), mark, 0)
    return None if found is None else offset + found


def _fsync(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
