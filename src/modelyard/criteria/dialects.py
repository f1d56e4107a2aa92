"""SQL expressions that SQLite and PostgreSQL need in different words to answer alike.

* NaN: SQLite stores it as NULL; PostgreSQL keeps it and sorts it above every number, so that a NaN would pass
  ``> 0.85``. Here it counts as missing in both.
* LIKE: SQLite ignores the case of ASCII letters; its GLOB does not.
* Order of text: PostgreSQL sorts by the collation of the database, SQLite by code point. Here by code point.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Boolean, ColumnElement, Double, String, and_, bindparam, types
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from modelyard.criteria.patterns import to_glob, to_like
from modelyard.criteria.schema import plain_type


class _NotNan(FunctionElement[Any]):
    """A floating number, NULL if it is NaN."""

    inherit_cache = True
    name = "not_nan"
    type = Double()


class _IsNotNan(FunctionElement[bool]):
    """Whether a floating number is not NaN; unknown if it is NULL."""

    inherit_cache = True
    name = "is_not_nan"
    type = Boolean()


class _Matches(FunctionElement[bool]):
    """Whether a text matches, heeding case: (text, GLOB pattern, LIKE pattern)."""

    inherit_cache = True
    name = "matches"
    type = Boolean()


class _CodePoints(FunctionElement[str]):
    """A text that sorts by code point."""

    inherit_cache = True
    name = "code_points"
    type = String()


def present(column: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether there is a value: neither NULL nor NaN. Never NULL itself."""
    exists = column.is_not(None)
    return and_(exists, _IsNotNan(column)) if _may_be_nan(column) else exists


def without_nan(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Make NaN NULL."""
    if not _may_be_nan(column):
        return column
    return _NotNan(column)


def by_code_point(column: ColumnElement[str]) -> ColumnElement[str]:
    """Make a text sort by code point."""
    return _CodePoints(column)


def like(column: ColumnElement[str], pattern: str) -> ColumnElement[bool]:
    """Match a pattern, heeding case."""
    return _Matches(column, _text(to_glob(pattern)), _text(to_like(pattern)))


def ilike(column: ColumnElement[str], pattern: str) -> ColumnElement[bool]:
    """Match a pattern in any case. Beyond ASCII letters, case is what the database takes it to be."""
    return column.ilike(_text(to_like(pattern)), escape="\\")


def _text(value: str) -> ColumnElement[str]:
    return bindparam(None, value, type_=String())


def _may_be_nan(column: ColumnElement[Any]) -> bool:
    return isinstance(plain_type(column), types.Float | types.Numeric)


def _arguments(element: FunctionElement[Any], compiler: SQLCompiler, **kw: Any) -> Iterator[str]:
    """Render the arguments one by one, so that those a database does not need are not bound."""
    return (f"({compiler.process(each, **kw)})" for each in element.clauses)


@compiles(_NotNan)
@compiles(_CodePoints)
def _unchanged(element: FunctionElement[Any], compiler: SQLCompiler, **kw: Any) -> str:
    return next(_arguments(element, compiler, **kw))


@compiles(_NotNan, "postgresql")
def _not_nan(element: _NotNan, compiler: SQLCompiler, **kw: Any) -> str:
    return f"NULLIF({next(_arguments(element, compiler, **kw))}, 'NaN')"


@compiles(_CodePoints, "postgresql")
def _collated(element: _CodePoints, compiler: SQLCompiler, **kw: Any) -> str:
    return f'({next(_arguments(element, compiler, **kw))} COLLATE "C")'


@compiles(_IsNotNan)
def _is_not_null(element: _IsNotNan, compiler: SQLCompiler, **kw: Any) -> str:
    return f"({next(_arguments(element, compiler, **kw))} IS NOT NULL)"


@compiles(_IsNotNan, "postgresql")
def _is_not_nan(element: _IsNotNan, compiler: SQLCompiler, **kw: Any) -> str:
    return f"({next(_arguments(element, compiler, **kw))} <> 'NaN')"


@compiles(_Matches)
def _matches_like(element: _Matches, compiler: SQLCompiler, **kw: Any) -> str:
    text, _, pattern = element.clauses
    return f"(({compiler.process(text, **kw)}) LIKE {compiler.process(pattern, **kw)} ESCAPE '\\')"


@compiles(_Matches, "sqlite")
def _matches_glob(element: _Matches, compiler: SQLCompiler, **kw: Any) -> str:
    text, pattern, _ = element.clauses
    return f"(({compiler.process(text, **kw)}) GLOB {compiler.process(pattern, **kw)})"
