"""Where training data come from: named, portable descriptions of files, read into Arrow tables.

A source says which column is the label, which identifies the entity and which holds the time when the row was
known. A relative path resolves against the project root that was recorded when the source was declared; a
server on another machine, which has no such root, refuses it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from modelyard.errors import Invalid, NotFound, nearest

if TYPE_CHECKING:
    import pyarrow as pa

_REMOTE = ("s3://", "gs://", "az://", "abfs://")


@dataclass(frozen=True, slots=True)
class Source:
    """Files with rows to learn from.

    Attributes:
        path: File, or pattern such as ``customers/*.parquet``; relative to the project root.
        label: Column to predict.
        key: Column that identifies the entity, or None.
        time: Column with the time at which the row's features were known, or None.
        columns: Feature columns; empty means all but label, key and time.
    """

    path: str
    label: str
    key: str | None = None
    time: str | None = None
    columns: tuple[str, ...] = ()

    kind: ClassVar[str] = ""

    def features(self, table: pa.Table) -> list[str]:
        """Return the names of the feature columns of a table of this source."""
        named = {self.label, self.key, self.time}
        return list(self.columns) or [name for name in table.column_names if name not in named]

    def read(self, root: Path | None) -> pa.Table:
        """Read all rows, in the order of file names and rows.

        Args:
            root: Project root for a relative path; None where there is no such folder.

        Raises:
            NotFound: If no file matches, or a named column is not there.
            Invalid: If the path is relative and there is no root, or the files disagree on their columns.
        """
        import pyarrow as pa

        tables = [self._read_file(file) for file in self.files(root)]
        try:
            table = pa.concat_tables(tables, promote_options="permissive")
        except pa.ArrowInvalid as error:
            raise Invalid(f"The files of {self.path!r} do not fit together: {error}") from error
        for column in filter(None, (self.label, self.key, self.time, *self.columns)):
            if column not in table.column_names:
                raise NotFound("column", column, known=table.column_names, hint=f"It should be in {self.path!r}.")
        return table

    def files(self, root: Path | None) -> list[Path]:
        """Return the files that the path stands for, sorted by name."""
        pattern = Path(self.path)
        if self.path.startswith(_REMOTE):
            raise Invalid(f"{self.path!r}: object-store paths are not readable by this release.")
        if pattern.is_absolute():
            anchor = Path(pattern.anchor)
            found = sorted(anchor.glob(str(pattern.relative_to(anchor))))
        elif root is None:
            raise Invalid(f"{self.path!r} is relative, and there is no project folder on this machine.")
        else:
            found = sorted(root.glob(self.path))
        found = [file for file in found if file.is_file()]
        if not found:
            raise NotFound("file", self.path, hint=f"Looked in {root}." if root else "")
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "kind": self.kind,
            "path": self.path,
            "label": self.label,
            "key": self.key,
            "time": self.time,
            "columns": list(self.columns),
        }

    def _read_file(self, file: Path) -> pa.Table:
        raise Invalid(f"A {type(self).__name__} cannot be read; use Parquet or Csv.")


@dataclass(frozen=True, slots=True)
class Parquet(Source):
    """Parquet files: ``Parquet("customers/*.parquet", label="left", key="customer_id", time="as_of")``."""

    kind: ClassVar[str] = "parquet"

    def _read_file(self, file: Path) -> pa.Table:
        import pyarrow.parquet as pq

        return pq.read_table(file)


@dataclass(frozen=True, slots=True)
class Csv(Source):
    """CSV files with a header; ``NA`` and empty fields are missing."""

    kind: ClassVar[str] = "csv"

    def _read_file(self, file: Path) -> pa.Table:
        import pyarrow as pa
        from pyarrow import csv

        options = csv.ConvertOptions(null_values=["", "NA", "NaN", "null"], strings_can_be_null=True)
        try:
            return csv.read_csv(file, convert_options=options)
        except pa.ArrowInvalid as error:
            raise Invalid(f"{file.name} is not a readable CSV file: {error}") from error


def source_from_json(document: Mapping[str, Any]) -> Source:
    """Build a source from its JSON form.

    Raises:
        Invalid: If the kind or a field is unknown; names the nearest right one.
    """
    kinds = {kind.kind: kind for kind in _kinds()}
    kind = kinds.get(str(document.get("kind")))
    if kind is None:
        raise Invalid(f"There is no data source {document.get('kind')!r}; expected {' or '.join(sorted(kinds))}.")
    fields = {name: value for name, value in document.items() if name != "kind"}
    known = ("path", "label", "key", "time", "columns")
    for name in fields:
        if name not in known:
            near = nearest(name, known)
            raise Invalid(f"A data source has no {name!r}." + (f" Did you mean {near!r}?" if near else ""))
    fields["columns"] = tuple(fields.get("columns") or ())
    return kind(**fields)


def _kinds() -> Iterator[type[Source]]:
    yield from (Parquet, Csv)
