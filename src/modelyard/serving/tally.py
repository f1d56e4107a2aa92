"""Counters that outlive their process: answers, errors, how much of a lease is used, and who was computing.

They lie in a memory-mapped file, which the kernel keeps when the worker is killed. So a canary that crashes
the worker cannot win a fresh allowance by crashing it, and the next process knows whom to blame.
"""

from __future__ import annotations

import fcntl
import mmap
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

from modelyard.errors import Conflict, StorageFull

SLOTS = 4096
"""Variants that one worker can count at once; a slot is 128 bytes."""
_KEY_BYTES = 16
_SLOT_BYTES = 128
_WORDS = _SLOT_BYTES // 8
_LEASE, _USED, _BUSY, _CRASHES, _ANSWERS, _ERRORS, _LATENCY = range(2, 9)
_EMPTY = bytes(_KEY_BYTES)


class Tally:
    """The counters of one variant in one worker, cumulative over the worker's processes.

    Args:
        words: The file as unsigned 64-bit words.
        slot: Number of the slot.
        lease: Id of the lease in force, or None for no limit; another id than before starts at zero used.
        share: Answers that this worker may give under that lease.
    """

    __slots__ = ("_base", "_words", "lease", "share")

    def __init__(self, words: memoryview, slot: int, *, lease: str | None, share: int) -> None:
        self._words = words
        self._base = slot * _WORDS
        self.lease = lease
        self.share = share
        mark = 0 if lease is None else int.from_bytes(blake2b(lease.encode(), digest_size=8).digest())
        if words[self._base + _LEASE] != mark:
            words[self._base + _LEASE] = mark
            words[self._base + _USED] = 0

    def take(self) -> bool:
        """Use one answer of the lease; False if none is left."""
        if self.lease is None:
            return True
        place = self._base + _USED
        used = self._words[place]
        if used >= self.share:
            return False
        self._words[place] = used + 1
        return True

    def enter(self) -> None:
        """Note that the variant is computing now."""
        self._words[self._base + _BUSY] = 1

    def leave(self) -> None:
        """Note that it has finished."""
        self._words[self._base + _BUSY] = 0

    def answered(self, rows: int, *, latency_us: int) -> None:
        """Count rows answered, with the time that each of them took in the worker."""
        words, base = self._words, self._base
        words[base + _ANSWERS] += rows
        words[base + _LATENCY] += rows * latency_us

    def failed(self, rows: int) -> None:
        """Count rows that the variant failed on."""
        self._words[self._base + _ERRORS] += rows

    @property
    def used(self) -> int:
        """Answers used of the lease by this worker."""
        return self._words[self._base + _USED]

    @property
    def crashes(self) -> int:
        """Times that a process of this worker died while this variant was computing."""
        return self._words[self._base + _CRASHES]

    @property
    def answers(self) -> int:
        """Rows answered."""
        return self._words[self._base + _ANSWERS]

    @property
    def errors(self) -> int:
        """Rows that the variant failed on."""
        return self._words[self._base + _ERRORS]

    @property
    def latency_us(self) -> int:
        """Sum over answered rows of their request's time in the worker."""
        return self._words[self._base + _LATENCY]


class TallyBook:
    """All counters of one worker.

    Args:
        path: The file; created if absent, and locked while this book is open: that is how others know that
            the worker lives.

    Raises:
        Conflict: If another process of this worker runs.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise Conflict(
                f"Worker {path.stem} runs already on this home. Give each worker a number of its own.",
                worker=path.stem,
            ) from error
        self._file.truncate(SLOTS * _SLOT_BYTES)
        self._map = mmap.mmap(self._file.fileno(), SLOTS * _SLOT_BYTES)
        self._bytes = memoryview(self._map)
        self._words = self._bytes.cast("Q")
        self._slots: dict[bytes, int] = {}
        self._free: list[int] = []
        for slot in range(SLOTS - 1, -1, -1):
            start = slot * _SLOT_BYTES
            key = bytes(self._bytes[start : start + _KEY_BYTES])
            if key == _EMPTY:
                self._free.append(slot)
            else:
                self._slots[key] = slot
                self._blame(slot)

    def tally(self, *name: str, lease: str | None = None, share: int = 0) -> Tally:
        """Return the counters with this name, from zero if they are new.

        Args:
            name: Endpoint, variant and digest: a change of any starts new counters.
            lease: Id of the lease in force, or None for no limit.
            share: Answers that this worker may give under it.

        Raises:
            StorageFull: If 4,096 variants are counted already.
        """
        key = _key(name)
        slot = self._slots.get(key)
        if slot is None:
            if not self._free:
                raise StorageFull(f"A worker counts at most {SLOTS:,} variants. Remove endpoints.", limit=SLOTS)
            slot = self._slots[key] = self._free.pop()
            self._write(slot, key)
        return Tally(self._words, slot, lease=lease, share=share)

    def keep_only(self, names: Iterable[tuple[str, ...]]) -> None:
        """Forget all counters but these."""
        kept = {_key(name) for name in names}
        for key in [key for key in self._slots if key not in kept]:
            slot = self._slots.pop(key)
            self._write(slot, _EMPTY)
            self._free.append(slot)

    def close(self) -> None:
        """Let go of the lock; the counters stay on disk."""
        fcntl.flock(self._file, fcntl.LOCK_UN)  # closing is not enough: the map holds the file too
        self._file.close()

    def _write(self, slot: int, key: bytes) -> None:
        start = slot * _SLOT_BYTES
        self._bytes[start : start + _SLOT_BYTES] = key + bytes(_SLOT_BYTES - _KEY_BYTES)

    def _blame(self, slot: int) -> None:
        base = slot * _WORDS
        if self._words[base + _BUSY]:
            self._words[base + _BUSY] = 0
            self._words[base + _CRASHES] += 1


def is_locked(path: Path) -> bool:
    """Tell whether a process has the book at this path open."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def share_of(answers: int, *, worker: int, workers: int) -> int:
    """Return one worker's part of a lease; the parts of all workers sum to the lease.

    >>> [share_of(10, worker=i, workers=3) for i in range(3)]
    [4, 3, 3]
    """
    return answers // workers + (1 if worker < answers % workers else 0)


def _key(name: Iterable[str]) -> bytes:
    return blake2b("\0".join(name).encode(), digest_size=_KEY_BYTES).digest()
