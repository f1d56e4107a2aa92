"""Profiles as bytes, for storage.

The bytes hold counts, not bins: a specification is stored once (``TableSpec.to_json``), its profiles many
times. A numeric column of 20,000 rows takes about 420 bytes (``benchmarks/profiles.py``), of which 256 are
the distinct sketch.
"""

from __future__ import annotations

import msgspec

from modelyard.errors import Invalid
from modelyard.profiles import distinct
from modelyard.profiles.exact import ExactSum
from modelyard.profiles.model import ColumnProfile, TableProfile, Unseen
from modelyard.profiles.spec import ColumnSpec, EdgesDiffer, TableSpec

VERSION = 1


class _Sum(msgspec.Struct, array_like=True, frozen=True):
    mantissa: bytes
    exponent: int


class _Column(msgspec.Struct, array_like=True, frozen=True):
    counts: tuple[int, ...]
    under: int
    over: int
    null: int
    other: int
    extreme: int
    fractional: int
    total: _Sum
    squares: _Sum
    minimum: float | None
    maximum: float | None
    sketch: tuple[int, bytes, bytes]
    unseen: tuple[tuple[int, str, int], ...]


class _Table(msgspec.Struct, array_like=True, frozen=True):
    version: int
    digest: str
    rows: int
    extra_columns: tuple[str, ...]
    columns: tuple[_Column, ...]


class _Head(msgspec.Struct, array_like=True, frozen=True):
    version: int


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Table)
_HEAD = msgspec.msgpack.Decoder(_Head)


def to_bytes(profile: TableProfile) -> bytes:
    """Encode a profile compactly; equal profiles give equal bytes."""
    columns = tuple(map(_encode_column, profile.columns.values()))
    return _ENCODER.encode(_Table(VERSION, profile.spec.digest, profile.rows, profile.extra_columns, columns))


def from_bytes(data: bytes, spec: TableSpec) -> TableProfile:
    """Decode what ``to_bytes`` made.

    Args:
        data: The bytes.
        spec: The specification that the profile was counted with.

    Raises:
        EdgesDiffer: If it was counted with another specification.
        Invalid: If the bytes are no profile, or of a version that this Modelyard does not know.
    """
    try:
        version = _HEAD.decode(data).version
        if version != VERSION:
            raise Invalid(f"The profile has format version {version}; this Modelyard reads {VERSION}.")
        table = _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Invalid(f"The bytes are no profile: {error}.") from error
    if table.digest != spec.digest:
        raise EdgesDiffer("stored bytes and specification", left=table.digest[:12], right=spec.digest[:12])
    if len(table.columns) != len(spec.columns):
        raise Invalid("The bytes are no profile: their number of columns is not that of the specification.")
    columns = {}
    for column, stored in zip(spec, table.columns, strict=True):
        if len(stored.counts) != column.bins:
            raise Invalid(f"The bytes are no profile: column {column.name!r} does not have {column.bins} counts.")
        columns[column.name] = _decode_column(stored, column)
    return TableProfile(spec, table.rows, columns, table.extra_columns)


def _encode_column(profile: ColumnProfile) -> _Column:
    return _Column(
        counts=profile.counts,
        under=profile.under,
        over=profile.over,
        null=profile.null,
        other=profile.other,
        extreme=profile.extreme,
        fractional=profile.fractional,
        total=_encode_sum(profile.total),
        squares=_encode_sum(profile.squares),
        minimum=profile.minimum,
        maximum=profile.maximum,
        sketch=distinct.pack(profile.registers) if profile.registers else (0, b"", b""),
        unseen=tuple((level.hash, level.label, level.count) for level in profile.unseen),
    )


def _decode_column(stored: _Column, spec: ColumnSpec) -> ColumnProfile:
    try:
        registers = b"" if spec.kind == "boolean" else distinct.unpack(*stored.sketch)
    except ValueError as error:
        raise Invalid(f"The bytes are no profile: {error}.") from error
    return ColumnProfile(
        spec,
        stored.counts,
        under=stored.under,
        over=stored.over,
        null=stored.null,
        other=stored.other,
        extreme=stored.extreme,
        fractional=stored.fractional,
        total=_decode_sum(stored.total),
        squares=_decode_sum(stored.squares),
        minimum=stored.minimum,
        maximum=stored.maximum,
        registers=registers,
        unseen=tuple(Unseen(*level) for level in stored.unseen),
    )


def _encode_sum(total: ExactSum) -> _Sum:
    size = total.mantissa.bit_length() // 8 + 1  # one bit more than the magnitude, for the sign
    return _Sum(total.mantissa.to_bytes(size, "little", signed=True), total.exponent)


def _decode_sum(stored: _Sum) -> ExactSum:
    return ExactSum(int.from_bytes(stored.mantissa, "little", signed=True), stored.exponent)
