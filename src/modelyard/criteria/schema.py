"""What a condition may refer to when it is compiled to SQL: columns, relations and functions by name.

A schema is the only way from a name to SQL: what it does not hold cannot be reached by any text.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, FromClause, types

from modelyard.criteria.model import Call
from modelyard.errors import Invalid, nearest


class Kind(StrEnum):
    """What the values of a column are."""

    NUMBER = "a number"
    TEXT = "text"
    TRUTH = "a truth"
    TIME = "a time"


@dataclass(frozen=True, slots=True)
class Field:
    """A column, or any SQL expression, with what its type does not tell.

    Attributes:
        column: The expression.
        unit: Unit that its numbers are stored in (``ms``, ``min``, ``%``); limits are converted to it.
        kind: What its values are; read from the type of the column if None.
        encode: How a time (aware, UTC) is stored, for times in columns of another type, such as milliseconds.
            Order must be kept, and a time finer than the column stores is compared as it is encoded.
    """

    column: ColumnElement[Any]
    unit: str | None = None
    kind: Kind | None = None
    encode: Callable[[datetime], object] | None = None


Resolved: TypeAlias = ColumnElement[Any] | Field
Columns: TypeAlias = Mapping[str, Resolved] | Callable[[str], Resolved | None]


@dataclass(frozen=True, slots=True)
class Relation:
    """The members of a relation.

    Attributes:
        target: Their table, alias or join. A relation that can be reached from itself needs a fresh alias for
            every use: give a function that makes the whole relation instead.
        on: What joins them to the row outside.
        schema: What a condition on a member may refer to.
    """

    target: FromClause
    on: ColumnElement[bool]
    schema: Schema


@dataclass(frozen=True, slots=True)
class Schema:
    """Everything that a condition may refer to.

    Attributes:
        columns: Columns by path, or a function that returns the one for a path, or None if there is none.
        relations: Relations by path.
        functions: Functions with a meaning in SQL, by name; each gets the call and this schema.
        known: Paths that a function ``columns`` answers, for hints in errors.
    """

    columns: Columns
    relations: Mapping[str, Relation | Callable[[], Relation]] = field(default_factory=dict, kw_only=True)
    functions: Mapping[str, Callable[[Call, Schema], Resolved]] = field(default_factory=dict, kw_only=True)
    known: Collection[str] = field(default=(), kw_only=True)

    def field(self, path: str) -> Field:
        """Return the column of a path.

        Raises:
            Invalid: If there is none; names the nearest one.
        """
        found = self.columns(path) if callable(self.columns) else self.columns.get(path)
        if found is None:
            near = self.known if callable(self.columns) else self.columns
            raise _unknown("field", path, near)
        return as_field(found)

    def relation(self, path: str) -> Relation:
        """Return a relation.

        Raises:
            Invalid: If there is none; names the nearest one.
        """
        if path not in self.relations:
            raise _unknown("relation", path, self.relations)
        found = self.relations[path]
        return found if isinstance(found, Relation) else found()

    def function(self, call: Call) -> Field:
        """Return the SQL of a call.

        Raises:
            Invalid: If the function has no meaning in SQL.
        """
        if call.name not in self.functions:
            near = nearest(call.name, self.functions)
            hint = f" Did you mean {near!r}?" if near else ""
            raise Invalid(f"The function {call.name!r} has no meaning in a search.{hint}", function=call.name)
        return as_field(self.functions[call.name](call, self))


def as_field(found: Resolved) -> Field:
    """Make a column a field."""
    return found if isinstance(found, Field) else Field(found)


def kind_of(field: Field, what: str) -> Kind:
    """Return what the values of a field are.

    Raises:
        Invalid: If nothing can be compared with them.
    """
    if field.kind is not None:
        return field.kind
    stored = plain_type(field.column)
    kinds: tuple[tuple[tuple[type, ...], Kind], ...] = (
        ((types.Boolean,), Kind.TRUTH),
        ((types.Integer, types.Numeric, types.Float), Kind.NUMBER),
        ((types.String,), Kind.TEXT),
        ((types.DateTime,), Kind.TIME),
    )
    kind = next((kind for classes, kind in kinds if isinstance(stored, classes)), None)
    if kind is None:
        raise Invalid(f"{what} is neither a number, nor text, truth or time, so it cannot be compared.")
    return kind


def plain_type(column: ColumnElement[Any]) -> types.TypeEngine[Any]:
    """Return the type of a column, without a decorator around it."""
    stored = column.type
    while isinstance(stored, types.TypeDecorator):
        stored = stored.impl_instance
    return stored


def _unknown(kind: str, path: str, known: Collection[str]) -> Invalid:
    near = nearest(path, known)
    hint = f" Did you mean {near!r}?" if near else ""
    return Invalid(f"There is no {kind} {path!r} to search by.{hint}", name=path, near=near)
