"""Append records to memory-mapped segments: a few microseconds each, no thread, no system call.

The kernel holds a mapped page as soon as it is written, so what ``append`` has accepted survives the death
of the process; ``AppendReader.sync``, called from another process, bounds what a loss of power can take.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from zlib import crc32

from modelyard.errors import Conflict, Invalid
from modelyard.storage.predictions.segment import (
    HEADER_BYTES,
    LOCK_NAME,
    RECORD,
    RECORD_BYTES,
    header,
    new_mark,
    segment_numbers,
    segment_path,
)

SEGMENT_BYTES = 16 << 20
MAX_BYTES = 1 << 30
_SPARE_NAME = "spare.new"
_RETRY_S = 0.05  # how long a full buffer answers "no" before it looks at the disk again
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class AppendWriter:
    """The one writer of a folder of segments. Not safe to share between threads.

    A segment is allocated in full before it is used, so a full disk is found then and answered with
    ``False``, never as a signal in the middle of a write. A restarted writer begins a new segment and leaves
    the old ones to the reader.

    Args:
        folder: Folder of this writer alone; created if needed.
        segment_bytes: Size of one segment.
        max_bytes: Most bytes of all segments together; beyond it, records are refused and counted.
        clock: Monotonic seconds, to pace the retries of a full buffer.
        first_number: Number for the first segment of an empty folder. The default, milliseconds since 1970,
            stays ahead of every position that was stored for a deleted folder of the same name.

    Attributes:
        appended: Records accepted since this writer was opened.
        dropped: Records refused since this writer was opened.
        refusal: Why no new segment could be had last time (``buffer_full``, ``disk_full``, ``disk_error``,
            ``too_large``), or None if it could.

    Raises:
        Conflict: If another process writes to this folder.
        Invalid: If the sizes leave no room for two segments.
    """

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
        first_number: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        if segment_bytes < 4096 or max_bytes < 2 * segment_bytes:
            raise Invalid("An append buffer needs room for two segments of at least 4,096 bytes.")
        self.folder = folder
        self.appended = 0
        self.dropped = 0
        self.refusal: str | None = None
        self._segment_bytes = segment_bytes
        self._max_bytes = max_bytes
        self._clock = clock
        self._retry_at = float("-inf")
        self._map: mmap.mmap | None = None
        self._at = 0
        self._limit = 0
        self._mark = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(folder)
        (folder / _SPARE_NAME).unlink(missing_ok=True)
        numbers = segment_numbers(folder)
        self._number = numbers[-1] if numbers else first_number() - 1

    def append(self, payload: bytes) -> bool:
        """Store one record; it survives the death of this process once True is returned.

        Returns:
            False if there is no room (or the record exceeds a segment): the record is dropped and counted.
        """
        at = self._at
        start = at + RECORD_BYTES
        end = start + len(payload)
        if end > self._limit:
            if not self._rotate(len(payload)):
                self.dropped += 1
                return False
            at = self._at
            start = at + RECORD_BYTES
            end = start + len(payload)
        target = self._map
        target[start:end] = payload  # type: ignore[index]  # _limit > 0 only while a map is open
        RECORD.pack_into(target, at, self._mark, len(payload), crc32(payload, self._mark))  # type: ignore[arg-type]
        self._at = end
        self.appended += 1
        return True

    def prepare(self) -> bool:
        """Allocate the next segment ahead of need; call it when idle, so that no request pays for it.

        Returns:
            Whether a spare segment is ready.
        """
        spare = self.folder / _SPARE_NAME
        if spare.exists():
            return True
        if self._used_bytes() + self._segment_bytes > self._max_bytes:
            self.refusal = "buffer_full"
            return False
        try:
            _allocate(spare, self._segment_bytes)
        except OSError as error:
            self.refusal = _reason(error)
            with suppress(OSError):
                spare.unlink(missing_ok=True)
            return False
        return True

    def close(self) -> None:
        """Give the unused space of the current segment back and let another writer in."""
        self._finish_segment()
        (self.folder / _SPARE_NAME).unlink(missing_ok=True)
        os.close(self._lock)

    def _rotate(self, length: int) -> bool:
        if HEADER_BYTES + RECORD_BYTES + length > self._segment_bytes:
            self.refusal = "too_large"
            return False
        now = self._clock()
        if now < self._retry_at:
            return False
        if not self.prepare():
            self._retry_at = now + _RETRY_S
            return False
        try:
            self._finish_segment()
            self._open_segment(self._number + 1)
        except OSError as error:  # a failing disk must not take the answer down with the record
            self.refusal = _reason(error)
            self._retry_at = now + _RETRY_S
            return False
        self.refusal = None
        return True

    def _open_segment(self, number: int) -> None:
        spare = self.folder / _SPARE_NAME
        descriptor = os.open(spare, os.O_RDWR)
        try:
            mapped = mmap.mmap(descriptor, self._segment_bytes)
        finally:
            os.close(descriptor)
        self._mark = new_mark()
        mapped[:HEADER_BYTES] = header(number, self._mark)
        # The name appears last: a reader that sees segment n + 1 knows that segment n is complete.
        spare.rename(segment_path(self.folder, number))
        self._map, self._number = mapped, number
        self._at, self._limit = HEADER_BYTES, self._segment_bytes

    def _finish_segment(self) -> None:
        if self._map is None:
            return
        self._map.close()
        self._map, self._limit = None, 0
        os.truncate(segment_path(self.folder, self._number), self._at)

    def _used_bytes(self) -> int:
        total = 0
        for number in segment_numbers(self.folder):
            try:
                total += segment_path(self.folder, number).stat().st_size
            except FileNotFoundError:  # the reader released it in between
                continue
        return total


def _lock(folder: Path) -> int:
    descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise Conflict(f"Another process already writes to {folder}. Give every worker a folder of its own.") from error
    return descriptor


def _reason(error: OSError) -> str:
    return "disk_full" if error.errno in _FULL else "disk_error"


def _allocate(path: Path, size: int) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
            return
        block = bytes(1 << 20)  # macOS has no such call: write the zeros
        left = size
        while left:
            left -= os.write(descriptor, block[:left])
    finally:
        os.close(descriptor)
