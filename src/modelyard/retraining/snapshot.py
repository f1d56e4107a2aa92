"""The data of one training, frozen: read, joined with what was served, cut to a window, split, written once.

``run`` works in a child process, since a source may be larger than the server's memory allows.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.errors import Invalid
from modelyard.retraining.split import split
from modelyard.tracking.capture import content_digest
from modelyard.tracking.sources import Source, source_from_json

if TYPE_CHECKING:
    import pyarrow as pa

_PLACE = "__place"


def run(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Read the rows of a recipe and write those to learn from and those to judge by.

    Args:
        payload: ``source`` (JSON), ``root`` (or None), ``served`` (Parquet file of labelled served rows, or
            None), ``since`` (ISO time of the oldest row wanted, or None), ``output`` (existing folder).

    Returns:
        ``content`` (digest of the rows to learn from), ``features``, ``split``, ``trained_until``,
        ``source_rows`` and ``served_rows``.

    Raises:
        Invalid, NotFound: As ``Source.read`` and ``split`` say.
    """
    import pyarrow.parquet as pq

    source = source_from_json(payload["source"])
    table = source.read(None if payload["root"] is None else Path(payload["root"]))
    found = table.num_rows
    features = source.features(table)
    table = _micros(table.select(list(dict.fromkeys([*_named(source), *features]))))
    served = 0
    if payload["served"] is not None:
        added = new_rows(source, table, pq.read_table(payload["served"]))
        served = added.num_rows
        table = _joined(table, added)
    if payload["since"] is not None:
        table = _recent(table, source, datetime.fromisoformat(payload["since"]))
    parts = split(table, label=source.label, key=source.key, time=source.time)
    output = Path(payload["output"])
    pq.write_table(parts.train, output / "train.parquet", compression="zstd")
    pq.write_table(parts.holdout, output / "holdout.parquet", compression="zstd")
    return {
        "content": content_digest(parts.train),
        "features": features,
        "split": parts.rule,
        "trained_until": parts.trained_until,
        "source_rows": found,
        "served_rows": served,
    }


def new_rows(source: Source, table: pa.Table, served: pa.Table) -> pa.Table:
    """Return the served rows that the source does not hold yet, with the source's columns and types.

    Rows are the same if key and time are; without both columns every served row is new. A column that serving
    did not see is null.

    Raises:
        Invalid: If a served column cannot be read as the source's type.
    """
    import pyarrow as pa

    columns = []
    for field in table.schema:
        if field.name not in served.column_names:
            columns.append(pa.nulls(served.num_rows, field.type))
            continue
        try:
            columns.append(served[field.name].cast(field.type, safe=False))
        except pa.ArrowException as error:
            raise Invalid(f"Served values of {field.name!r} do not fit its type {field.type}: {error}") from error
    rows = pa.table(columns, schema=table.schema)
    if source.key is None or source.time is None:
        return rows
    names = [source.key, source.time]
    keys = rows.select(names).append_column(_PLACE, pa.array(range(rows.num_rows)))
    unseen = keys.join(table.select(names), keys=names, join_type="left anti")
    return rows.take(unseen[_PLACE].sort())


def count_rows(source: Source, root: Path | None) -> int:
    """Return the rows that a source has now, from the files' own counts where they keep one."""
    return sum(_rows_of(file, source) for file in source.files(root))


def _rows_of(file: Path, source: Source) -> int:
    if source.kind == "parquet":
        import pyarrow.parquet as pq

        return int(pq.read_metadata(file).num_rows)
    from pyarrow import csv

    options = csv.ConvertOptions(include_columns=[source.label])
    with csv.open_csv(file, convert_options=options) as batches:
        return sum(batch.num_rows for batch in batches)


def window_start(window: timedelta | None, now: datetime) -> str | None:
    """Return the time of the oldest row that a window takes, as ISO text."""
    return None if window is None else (now - window).isoformat()


def _named(source: Source) -> list[str]:
    return [name for name in (source.key, source.time, source.label) if name is not None]


def _joined(table: pa.Table, added: pa.Table) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables([table, added])


def _micros(table: pa.Table) -> pa.Table:
    """Keep times in microseconds: nothing here tells apart what is closer, and JSON cannot carry it."""
    import pyarrow as pa

    for place, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type) and field.type.unit == "ns":
            kind = pa.timestamp("us", field.type.tz)
            table = table.set_column(place, field.name, table[field.name].cast(kind, safe=False))
    return table


def _recent(table: pa.Table, source: Source, since: datetime) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    if source.time is None:
        raise Invalid("A window needs the data source to name its time column.")
    column = table[source.time]
    if not (pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)):
        raise Invalid(f"A window needs times in {source.time!r}, not {column.type}.")
    return table.filter(pc.greater_equal(column, edge(since.isoformat(), column.type)))


def edge(value: str | int | float, kind: pa.DataType) -> pa.Scalar:
    """Return a boundary, as JSON carries it, in the type of a time column; a time without zone is in UTC."""
    import pyarrow as pa

    if not isinstance(value, str) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pa.scalar(value, kind)
    if pa.types.is_date(kind):
        return pa.scalar(date.fromisoformat(value[:10]), kind)
    moment = datetime.fromisoformat(value)
    aware = pa.scalar(moment, pa.timestamp("us", "UTC"))
    return aware.cast(pa.timestamp("us", kind.tz)).cast(kind, safe=False)
