"""The bytes of an append segment: a header, then records that commit one by one.

    header   magic (8) | segment number (u64) | mark (u32) | crc32 of the 20 bytes before (u32) | 8 spare
    record   mark (u32) | length (u32) | crc32 of the payload begun with the mark (u32) | payload

All integers are little-endian; the file is allocated in full and zero beyond its last record. A writer
copies the payload first and the record's 12 bytes last, so a record without its mark was never committed;
the checksum catches what a loss of power or another memory order may have torn, and is never zero for an
empty payload, whose half-written header would look whole otherwise. The mark is drawn at
random for each segment: a client that knows the format cannot hide a forged record inside its payload for
a reader that looks for the next whole record behind damage.
"""

from __future__ import annotations

import os
import struct
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

MAGIC = b"MYAPPND1"
HEADER_BYTES = 32
RECORD_BYTES = 12
SUFFIX = ".seg"
LOCK_NAME = "writer.lock"

_HEADER = struct.Struct("<8sQI")
_CRC = struct.Struct("<I")
RECORD = struct.Struct("<III")


class Position(NamedTuple):
    """Where a reader stands. JSON turns it into a list; ``Position(*loaded)`` restores it.

    Attributes:
        segment: Number of the segment.
        offset: Byte in that segment of the next record to read.
    """

    segment: int
    offset: int


START = Position(0, 0)


class Stop(Enum):
    """Why ``parse`` stopped."""

    LIMIT = auto()
    MORE = auto()
    END = auto()
    DAMAGED = auto()


def header(number: int, mark: int) -> bytes:
    """Encode a segment's header, ``HEADER_BYTES`` long."""
    packed = _HEADER.pack(MAGIC, number, mark)
    return (packed + _CRC.pack(crc32(packed))).ljust(HEADER_BYTES, b"\0")


def mark_of(data: bytes, number: int) -> int | None:
    """Return the record mark from a header, or None if these bytes are not the header of this segment."""
    if len(data) < HEADER_BYTES:
        return None
    magic, found, mark = _HEADER.unpack_from(data)
    (checksum,) = _CRC.unpack_from(data, _HEADER.size)
    if magic != MAGIC or found != number or checksum != crc32(data[: _HEADER.size]):
        return None
    return int(mark)


def new_mark() -> int:
    """Draw a record mark whose four bytes are all non-zero, so that it never looks like unwritten space."""
    return int.from_bytes(byte or 0xA5 for byte in os.urandom(4))


def parse(data: bytes, mark: int, limit: int) -> tuple[list[bytes], int, Stop]:
    """Read whole records from the start of ``data``.

    Args:
        data: Bytes of a segment from a record's first byte on.
        mark: The segment's mark.
        limit: Most records to return.

    Returns:
        The payloads, the bytes that they took, and why it stopped: at the limit, because the next record
        goes on behind ``data``, at unwritten space, or at bytes that are no whole record.
    """
    records: list[bytes] = []
    at, size = 0, len(data)
    while len(records) < limit:
        start = at + RECORD_BYTES
        if start > size:
            return records, at, Stop.MORE
        found, length, checksum = RECORD.unpack_from(data, at)
        if found != mark:
            return records, at, Stop.DAMAGED if found else Stop.END
        end = start + length
        if end > size:
            return records, at, Stop.MORE
        payload = data[start:end]
        if crc32(payload, mark) != checksum:
            return records, at, Stop.DAMAGED
        records.append(payload)
        at = end
    return records, at, Stop.LIMIT


def next_record(data: bytes, mark: int, start: int) -> int | None:
    """Find the first whole record at or after ``start``, or None."""
    needle = mark.to_bytes(4, "little")
    at = data.find(needle, start)
    while at != -1:
        if parse(data[at : at + RECORD_BYTES + _length_at(data, at)], mark, 1)[0]:
            return at
        at = data.find(needle, at + 1)
    return None


def segment_path(folder: Path, number: int) -> Path:
    """Return the path of a segment; names sort by number."""
    return folder / f"{number:020d}{SUFFIX}"


def segment_numbers(folder: Path) -> list[int]:
    """Return the numbers of the segments in a folder, ascending; empty if there is no folder."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - a Path per entry would triple the cost of a poll
    except FileNotFoundError:
        return []
    stems = (name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX))
    return sorted(int(stem) for stem in stems if stem.isascii() and stem.isdigit())


def _length_at(data: bytes, at: int) -> int:
    if at + RECORD_BYTES > len(data):
        return 0
    return int(RECORD.unpack_from(data, at)[1])
