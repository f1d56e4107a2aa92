"""What a request asks for, whatever protocol it came by."""

from __future__ import annotations

import msgspec

Scalar = str | int | float | bool | None
"""What a column may hold. Decoders are typed with it, so nested values end at the first bracket: a body of
brackets never gets to recurse."""

Row = dict[str, Scalar] | list[Scalar]


class Ask(msgspec.Struct):
    """Rows to predict.

    Attributes:
        rows: Each a mapping of column names to JSON values, or a list of values in signature order. Owned by
            whoever holds the ask: the endpoint takes columns out of them that are no inputs.
        request_id: The client's own id of the request, or None.
        version: The version asked for, or None to let the route decide.
        outputs: Names of the outputs asked for, or None for all.
    """

    rows: list[Row]
    request_id: str | None = None
    version: int | None = None
    outputs: tuple[str, ...] | None = None


UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not the JSON asked for."""


def reason(error: Exception) -> str:
    """Say in a few words why bytes could not be decoded."""
    return str(error)[:300]
