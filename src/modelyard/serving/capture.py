"""The prediction record: what a worker keeps of a request, cheap to write and decoded elsewhere.

The raw body is copied as it came; the collector parses it again. What is the same for all records of an
endpoint (names, versions, column types) stands once in a *descriptor* file that is named by its digest and is
on disk before the first record that refers to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import msgspec

from modelyard.errors import Invalid
from modelyard.serving.outcome import Outcome
from modelyard.serving.protocols.ask import Row
from modelyard.serving.publisher import write_atomically

NATIVE = 0
OIP = 1


class VariantDescription(msgspec.Struct, frozen=True):
    """One variant in a descriptor."""

    name: str
    role: str
    model: str
    version: int


class Descriptor(msgspec.Struct, frozen=True):
    """What the collector needs to read an endpoint's records.

    Attributes:
        endpoint: Name of the endpoint.
        project: Its project.
        entity_key: Column of the entity key, or None.
        time_column: Column of the event time, or None.
        redact: Columns whose values are never stored.
        variants: In the order that records refer to.
        columns: Name and type (of ``models.Signature``) of every input of any variant; the control's first.
        order: Names in the control's signature order, for rows that are lists.
    """

    endpoint: str
    project: str
    entity_key: str | None
    time_column: str | None
    redact: tuple[str, ...]
    variants: tuple[VariantDescription, ...]
    columns: tuple[tuple[str, str], ...]
    order: tuple[str, ...]


class Record(msgspec.Struct, array_like=True, gc=False):
    """One request, or a shadow's answer to a copy of it. Lists have one entry a row.

    Attributes:
        descriptor: Digest of the descriptor, 16 bytes.
        protocol: How to parse the body: ``NATIVE`` or ``OIP``.
        request_id: The client's id, or one made for it.
        time_us: Wall clock at the answer, microseconds since 1970.
        latency_us: Time from the whole request to its answer.
        body: The request's body, without redacted columns.
        ids: Prediction ids. A shadow's answer has the id of the answer that it shadows.
        variants: Index of the variant in the descriptor.
        scores: Scores, None where there is none.
        labels: Labels, or None if no row has one.
        outputs: All outputs where there are several, or None.
        statuses: ``ok`` or an error code, or None if all are ok.
        warnings: Warnings, or None.
        rows: Which rows of the body this is about, or None for all.
        pinned: Whether the client chose the version.
    """

    descriptor: bytes
    protocol: int
    request_id: str
    time_us: int
    latency_us: int
    body: bytes
    ids: list[str]
    variants: list[int]
    scores: list[float | None]
    labels: list[Any] | None = None
    outputs: list[list[float] | None] | None = None
    statuses: list[str] | None = None
    warnings: list[list[dict[str, Any]]] | None = None
    rows: list[int] | None = None
    pinned: bool = False


_encode = msgspec.msgpack.Encoder(enc_hook=str).encode
_decoder = msgspec.msgpack.Decoder(Record)


class Appends(Protocol):
    """Takes records: ``storage.predictions.AppendWriter``, or a list in a benchmark."""

    def append(self, payload: bytes, /) -> bool:
        """Keep a record; False if there is no room."""
        ...


class Capture:
    """Writes records of all endpoints of one worker.

    Args:
        writer: Where records go.
        chance: Returns a number from 0 to 1, for sampling.

    Attributes:
        written: Records accepted.
        dropped: Records refused for lack of room.
    """

    __slots__ = ("_append", "_chance", "dropped", "written")

    def __init__(self, writer: Appends, *, chance: Callable[[], float]) -> None:
        self._append = writer.append
        self._chance = chance
        self.written = 0
        self.dropped = 0

    def keep(
        self,
        outcome: Outcome,
        *,
        descriptor: bytes,
        sample: float,
        protocol: int,
        body: bytes,
        time_us: int,
        latency_us: int,
        rows: list[int] | None = None,
    ) -> bool:
        """Write one record.

        Returns:
            Whether it was written: False if it was not in the sample, or there is no room.
        """
        if sample < 1.0 and self._chance() >= sample:
            return False
        errors = outcome.errors
        labels = outcome.labels
        # The fields of ``Record``, in its order; a tuple encodes alike and is made faster.
        record = (
            descriptor,
            protocol,
            outcome.request_id,
            time_us,
            latency_us,
            body,
            outcome.ids,
            [variant.index for variant in outcome.variants],
            outcome.scores,
            labels if labels[0] is not None or any(label is not None for label in labels) else None,
            outcome.outputs,
            None if errors is None else ["ok" if error is None else error.code for error in errors],
            outcome.warnings,
            rows,
            outcome.pinned,
        )
        if self._append(_encode(record)):
            self.written += 1
            return True
        self.dropped += 1
        return False


def decode_record(payload: bytes) -> Record:
    """Read a record.

    Raises:
        Invalid: If it is not one.
    """
    try:
        return _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"This is not a prediction record: {error}.") from error


def redacted(rows: Sequence[Row], columns: frozenset[str], *, order: Sequence[str]) -> bytes:
    """Return a native body of the rows in which these columns are null.

    Args:
        rows: The request's rows.
        columns: Columns to blank.
        order: Column names of rows that are lists.
    """
    places = [i for i, name in enumerate(order) if name in columns]
    kept: list[Row] = []
    for row in rows:
        if isinstance(row, dict):
            kept.append({name: None if name in columns else value for name, value in row.items()})
        else:
            copy = list(row)
            for place in places:
                if place < len(copy):
                    copy[place] = None
            kept.append(copy)
    return msgspec.json.encode({"rows": kept})


def write_descriptor(folder: Path, descriptor: Descriptor) -> bytes:
    """Put a descriptor on disk, durably, unless it is there; return its digest, 16 bytes."""
    text = msgspec.json.encode(descriptor)
    digest = blake2b(text, digest_size=16).digest()
    path = folder / f"{digest.hex()}.json"
    if not path.exists():
        write_atomically(path, text, durable=True)
    return digest


def read_descriptor(folder: Path, digest: bytes) -> Descriptor:
    """Read a descriptor.

    Raises:
        Invalid: If it is absent or cannot be read.
    """
    try:
        return msgspec.json.decode((folder / f"{digest.hex()}.json").read_bytes(), type=Descriptor)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"The descriptor {digest.hex()} of prediction records cannot be read: {error}.") from error
