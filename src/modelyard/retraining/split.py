"""Which rows to learn from, and which to judge by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from modelyard.errors import Invalid

if TYPE_CHECKING:
    import pyarrow as pa

# The newest fifth, at most 10,000 rows: there the paired DeLong test sees an AUC gain of 0.02 in practically
# every run (tests/statistical/test_comparison_rates.py), and more would only make the training data older.
SHARE, MOST = 0.2, 10_000
MIN_ROWS = 20


@dataclass(frozen=True, slots=True)
class Split:
    """Rows to learn from and rows to judge by.

    Attributes:
        train: Rows to learn from.
        holdout: Rows to judge by, all newer than those of ``train`` if there is a time column.
        trained_until: Time of the newest row of ``train`` as JSON carries it (ISO text, or the number that the
            column holds), or None without a time column.
        rule: How it was done, for a later training: ``by`` ``time`` and the ``column``, or ``by`` ``hash``, the
            ``columns`` hashed and the ``share`` held out.
    """

    train: pa.Table
    holdout: pa.Table
    trained_until: str | int | float | None
    rule: Mapping[str, Any]


def unseen_by(champion: Mapping[str, Any], rule: Mapping[str, Any]) -> dict[str, Any] | None:
    """Say which rows of a holdout an earlier version was not trained on.

    Args:
        champion: Lineage of that version.
        rule: How the holdout was split off.

    Returns:
        ``column`` and ``after`` (only later rows), an empty mapping (all of them), or None if nothing is known.
    """
    before = champion.get("split") or {}
    if rule["by"] == "time":
        until = champion.get("trained_until")
        same = before.get("by") == "time" and before.get("column") == rule["column"]
        return {"column": rule["column"], "after": until} if same and until is not None else None
    # A hash below the smaller limit is below the larger one too: what is held out now was held out then.
    same = before.get("by") == "hash" and before.get("columns") == rule["columns"]
    return {} if same and before["share"] >= rule["share"] else None


def split(table: pa.Table, *, label: str, key: str | None, time: str | None) -> Split:
    """Hold out the newest rows by time; without a time column, by a hash of the key, or else of the whole row.

    Rows without a label or, if there is a time column, without a time are left out.

    Args:
        table: All rows.
        label: Column to predict.
        key: Column that identifies the entity: rows of one entity stay on one side.
        time: Column with the time at which the row's features were known.

    Raises:
        Invalid: If fewer than 20 labelled rows are there.
    """
    import pyarrow.compute as pc

    labelled = table.filter(pc.is_valid(table[label]))
    labelled = labelled if time is None else labelled.filter(pc.is_valid(labelled[time]))
    if labelled.num_rows < MIN_ROWS:
        raise Invalid(f"Training needs at least {MIN_ROWS} rows with a value in {label!r}; found {labelled.num_rows}.")
    held = min(int(labelled.num_rows * SHARE), MOST)
    if time is None:
        return _by_hash(labelled, key, share=held / labelled.num_rows)
    ordered = labelled.sort_by(time)
    edge = ordered[time][ordered.num_rows - held]
    # Rows of one moment stay together, so that no time is on both sides.
    older = pc.less(ordered[time], edge)
    until = pc.max(ordered.filter(older)[time]).as_py()
    if until is None:
        raise Invalid(f"All rows have the same {time!r}: there is no older part to learn from.")
    text = until.isoformat() if isinstance(until, date) else until
    rule = {"by": "time", "column": time}
    return Split(ordered.filter(older), ordered.filter(pc.invert(older)), text, rule)


def _by_hash(table: pa.Table, key: str | None, *, share: float) -> Split:
    import hashlib

    import pyarrow as pa
    import pyarrow.compute as pc

    columns = [key] if key else sorted(table.column_names)
    names = zip(*(table[column].to_pylist() for column in columns), strict=True)
    limit = int(share * 2**32)
    held = pa.array(
        [int.from_bytes(hashlib.blake2b(str(name).encode(), digest_size=4).digest()) < limit for name in names]
    )
    rule = {"by": "hash", "columns": columns, "share": share}
    return Split(table.filter(pc.invert(held)), table.filter(held), None, rule)
