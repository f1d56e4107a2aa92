"""Compiling a condition to SQL of two values: true or false, never NULL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Double,
    Enum,
    Select,
    String,
    TypeDecorator,
    and_,
    bindparam,
    cast,
    false,
    func,
    literal_column,
    not_,
    or_,
    true,
)
from sqlalchemy import select as sql_select
from sqlalchemy.types import TypeEngine

from modelyard.criteria.dialects import by_code_point, ilike, like, present, without_nan
from modelyard.criteria.model import (
    LITERALS,
    All,
    AnyOf,
    Comparison,
    Condition,
    Count,
    Fact,
    Held,
    Instant,
    Literal,
    Match,
    Membership,
    Name,
    NoneOf,
    Not,
    Number,
    Operator,
    Presence,
    Some,
    Subject,
    Text,
    Truth,
    Within,
)
from modelyard.criteria.names import relation_depth
from modelyard.criteria.schema import Columns, Field, Kind, Schema, kind_of, plain_type
from modelyard.criteria.text import to_text
from modelyard.criteria.units import Dimension, convert, dimension_of, implied_unit
from modelyard.errors import Invalid

Truthy: TypeAlias = ColumnElement[bool]

MAX_RELATIONS = 5
"""Deepest nesting of relations: each level multiplies the rows that a statement may look at."""

_ORDER = frozenset({Operator.GT, Operator.GE, Operator.LT, Operator.LE})
_OPERATIONS: Mapping[Operator, Callable[[ColumnElement[Any], ColumnElement[Any]], Truthy]] = {
    Operator.EQ: lambda left, right: left == right,
    Operator.NE: lambda left, right: left != right,
    Operator.GT: lambda left, right: left > right,
    Operator.GE: lambda left, right: left >= right,
    Operator.LT: lambda left, right: left < right,
    Operator.LE: lambda left, right: left <= right,
}


def select(node: Condition, schema: Schema | Columns) -> Truthy:
    """Compile a condition to an SQL expression for ``where``, on SQLite and PostgreSQL alike.

    A comparison on a missing value (NULL or NaN) is false, whatever its operator, and its ``not`` is true.
    Every value is a bound parameter, and every identifier comes from the schema. ``some``, ``none`` and
    ``count`` are one subquery each, with the whole condition inside.

    Args:
        node: The condition.
        schema: What it may refer to; a mapping or function of columns alone will do.

    Raises:
        Invalid: If it refers to something else, nests relations deeper than 5, compares a column with a
            value of another kind or unit, or says what a table cannot tell: ``for``, or a function without
            a meaning in SQL.
    """
    if relation_depth(node) > MAX_RELATIONS:
        raise Invalid(f"A search nests at most {MAX_RELATIONS} relations.", limit=MAX_RELATIONS)
    return _condition(node, schema if isinstance(schema, Schema) else Schema(schema))


def _condition(node: Condition, schema: Schema) -> Truthy:
    match node:
        case All(parts):
            return and_(*(_condition(part, schema) for part in parts))
        case AnyOf(parts):
            return or_(*(_condition(part, schema) for part in parts))
        case Not(part):
            return not_(_condition(part, schema))
        case Some(relation, where):
            return _members(relation, where, schema, literal_column("1")).exists()
        case NoneOf(relation, where):
            return not_(_members(relation, where, schema, literal_column("1")).exists())
        case Held():
            raise Invalid(f"A search looks at one moment, so {to_text(node)!r} has no meaning in it: leave `for` out.")
        case _:
            return _test(node, schema)


def _test(node: Comparison | Membership | Match | Presence | Within | Fact, schema: Schema) -> Truthy:
    match node:
        case Comparison():
            return _comparison(node, schema)
        case Membership():
            return _membership(node, schema)
        case Match():
            return _match(node, schema)
        case Within():
            return _within(node, schema)
        case Presence(subject, wanted):
            found = present(_field(subject, schema).column)
            return found if wanted else not_(found)
        case Fact(subject):
            return _of_kind(subject, schema, Kind.TRUTH).column.is_(true())


def _members(relation: Name, where: Condition | None, schema: Schema, what: ColumnElement[Any]) -> Select[Any]:
    found = schema.relation(relation.path)
    conditions = [found.on] if where is None else [found.on, _condition(where, found.schema)]
    # Everything but the members themselves belongs to the statements outside.
    return sql_select(what).select_from(found.target).where(*conditions).correlate_except(found.target)


def _field(subject: Subject, schema: Schema) -> Field:
    match subject:
        case Name(path):
            found = schema.field(path)
            unit = found.unit or implied_unit(path)
            return Field(found.column, unit, found.kind, found.encode)
        case Count(relation, where):
            return Field(_members(relation, where, schema, func.count()).scalar_subquery())
        case _:
            return schema.function(subject)


def _of_kind(subject: Subject, schema: Schema, kind: Kind) -> Field:
    found, what = _field(subject, schema), to_text(subject)
    actual = kind_of(found, what)
    if actual is not kind:
        raise Invalid(f"{what} is {actual.value}, and {kind.value} is needed here.")
    return found


# -- tests ---------------------------------------------------------------------------------------------


def _comparison(node: Comparison, schema: Schema) -> Truthy:
    left, operator, right = node.left, node.operator, node.right
    if isinstance(left, LITERALS):
        left, operator, right = right, operator.mirrored, left
    if isinstance(left, LITERALS):
        raise TypeError("a comparison without a subject cannot be built")
    field = _field(left, schema)
    kind = kind_of(field, to_text(left))
    if kind is Kind.TRUTH and operator in _ORDER:
        raise Invalid(f"{to_text(left)} is a truth, which has no order; use = or !=.")
    columns = [field.column]
    if isinstance(right, LITERALS):
        values = [_operand(field), _bound(right, field, to_text(left))]
    else:
        other = _of_kind(right, schema, kind)
        if other.unit != field.unit or other.encode is not field.encode:
            raise Invalid(f"{to_text(left)} and {to_text(right)} are stored in different units.")
        columns.append(other.column)
        values = [_operand(field), _operand(other)]
    if kind is Kind.TEXT and operator in _ORDER:
        values = [by_code_point(value) for value in values]
    return _two_valued(_OPERATIONS[operator](*values), *columns)


def _membership(node: Membership, schema: Schema) -> Truthy:
    field = _field(node.subject, schema)
    values = [_bound(value, field, to_text(node.subject)) for value in node.values]
    operand = _operand(field)
    return _two_valued(operand.not_in(values) if node.negated else operand.in_(values), field.column)


def _match(node: Match, schema: Schema) -> Truthy:
    field = _of_kind(node.subject, schema, Kind.TEXT)
    _check_text(node.pattern)
    found = (ilike if node.any_case else like)(_operand(field), node.pattern)
    return _two_valued(not_(found) if node.negated else found, field.column)


def _within(node: Within, schema: Schema) -> Truthy:
    field = _of_kind(node.subject, schema, Kind.TIME)
    what, operand = to_text(node.subject), _operand(field)
    ends = []
    if node.start is not None:
        ends.append(operand >= _bound(node.start, field, what))
    if node.end is not None:
        ends.append(operand < _bound(node.end, field, what))
    return _two_valued(and_(*ends), field.column)


def _two_valued(predicate: Truthy, *columns: ColumnElement[Any]) -> Truthy:
    """Make a predicate false where a column has no value.

    ``x IS NOT NULL AND x > 5`` is false for NULL, as ``COALESCE(x > 5, FALSE)`` is, and lets an index on
    ``x`` serve. The latter evaluates an expression once, and so is right for subqueries.
    """
    if all(isinstance(column, Column) for column in columns):
        return and_(*(present(column) for column in columns), predicate)
    return func.coalesce(predicate, false(), type_=Boolean())


def _operand(field: Field) -> ColumnElement[Any]:
    """Return the expression to compare, NaN made NULL where ``_two_valued`` does not look for it."""
    if isinstance(plain_type(field.column), Enum):
        return cast(field.column, String())
    return field.column if isinstance(field.column, Column) else without_nan(field.column)


# -- values --------------------------------------------------------------------------------------------


def _bound(literal: Literal, field: Field, what: str) -> ColumnElement[Any]:
    """Bind a value for comparison with a field.

    Raises:
        Invalid: If it is of another kind or unit.
    """
    kinds = {Number: Kind.NUMBER, Text: Kind.TEXT, Truth: Kind.TRUTH, Instant: Kind.TIME}
    kind = kind_of(field, what)
    if kinds[type(literal)] is not kind:
        raise Invalid(f"{what} is {kind.value}, so it cannot be compared with {to_text(literal)}.")
    match literal:
        case Number():
            value = _in_unit(literal, field.unit, what)
            # The type of the value, not that of the column: an INTEGER would round 0.5, and cut 2**40 off.
            return bindparam(None, value, type_=BigInteger() if isinstance(value, int) else Double())
        case Text(value):
            return bindparam(None, _check_text(value), type_=_own_type(field, String()))
        case Truth(value):
            return bindparam(None, value, type_=_own_type(field, Boolean()))
        case Instant(at):
            return _bound_time(at, field)


def _bound_time(at: datetime, field: Field) -> ColumnElement[Any]:
    if field.encode is not None:
        return bindparam(None, field.encode(at), type_=field.column.type)
    if isinstance(field.column.type, DateTime) and not field.column.type.timezone:
        # PostgreSQL would convert an aware time to the zone of the session.
        at = at.astimezone(UTC).replace(tzinfo=None)
    return bindparam(None, at, type_=_own_type(field, DateTime(timezone=True)))


def _own_type(field: Field, otherwise: TypeEngine[Any]) -> TypeEngine[Any]:
    """Return the type that values of a field are bound with: a decorator must see them."""
    stored = field.column.type
    return stored if isinstance(stored, TypeDecorator | DateTime) else otherwise


def _in_unit(number: Number, unit: str | None, what: str) -> int | float:
    """Convert a number to the unit that a column is stored in; a plain number is in that unit already."""
    if number.unit is None or number.dimension is Dimension.NUMBER:
        return number.magnitude
    if number.dimension is Dimension.FRACTION and dimension_of(unit) is Dimension.NUMBER:
        return number.magnitude
    if unit is None or dimension_of(unit) is not number.dimension:
        stored = "has no unit" if unit is None else f"is stored in {unit}"
        raise Invalid(f"{what} {stored}, so it cannot be compared with {to_text(number)}.")
    return convert(number.value, number.unit, unit)


def _check_text(value: str) -> str:
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise Invalid("A database holds no text with NUL characters or halves of surrogate pairs.")
    return value
