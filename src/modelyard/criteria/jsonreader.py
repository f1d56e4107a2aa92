"""Reading a condition from the JSON values that :mod:`modelyard.criteria.jsonform` describes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from modelyard.criteria.model import (
    LITERALS,
    MAX_CLAUSES,
    MAX_DEPTH,
    MAX_TERMS,
    SUBJECTS,
    All,
    AnyOf,
    Call,
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
    Term,
    Text,
    Truth,
    Within,
)
from modelyard.errors import Invalid, nearest

T = TypeVar("T")

_OPERATORS = {operator.name.lower(): operator for operator in Operator}
_MATCHES = {
    "like": (False, False),
    "not_like": (False, True),
    "ilike": (True, False),
    "not_ilike": (True, True),
}
_TESTS = (*_OPERATORS, *_MATCHES, "in", "not_in", "missing", "present", "within")
_HEADS = ("all", "any", "not", "fact", "for", "some", "none", "op")
_TERM_HEADS = ("name", "call", "count", "number", "time")


def from_json(value: object) -> Condition:
    """Read a condition from JSON values.

    Raises:
        Invalid: If the value is no condition, nests deeper than 32, or has more than 200 clauses or
            5,000 names and values; the message names the place, such as ``all[1].left``.
    """
    return _Reader().condition(value, "", 0)


class _Reader:
    """One reading, which counts its clauses and terms."""

    def __init__(self) -> None:
        self._clauses = 0
        self._terms = 0

    def condition(self, value: object, at: str, depth: int) -> Condition:
        _check_depth(at, depth)
        form = _object(value, at)
        head = next((key for key in _HEADS if key in form), None)
        match head:
            case "all" | "any":
                (parts,) = _fields(form, at, head)
                listed = enumerate(_list(parts, f"{at}.{head}"))
                read = tuple(self.condition(part, f"{at}.{head}[{index}]", depth + 1) for index, part in listed)
                return _placed(at, All, read) if head == "all" else _placed(at, AnyOf, read)
            case "not":
                (part,) = _fields(form, at, "not")
                return Not(self.condition(part, f"{at}.not", depth + 1))
            case "for":
                duration, condition = _fields(form, at, "for", "condition")
                length = self._literal(duration, f"{at}.for")
                if not isinstance(length, Number):
                    raise _unexpected(f"{at}.for", 'a duration such as {"number": 24, "unit": "h"}', duration)
                return _placed(at, Held, self.condition(condition, f"{at}.condition", depth + 1), length)
            case None:
                raise _unexpected(at, f"an object with one of the keys {', '.join(_HEADS)}", value)
        self._clauses += 1
        if self._clauses > MAX_CLAUSES:
            raise Invalid(f"A condition has at most {MAX_CLAUSES} clauses.", limit=MAX_CLAUSES)
        return self._clause(head, form, at, depth)

    def _clause(self, head: str, form: Mapping[str, object], at: str, depth: int) -> Condition:
        if head == "op":
            return self._test(form, at, depth)
        if head == "fact":
            (fact,) = _fields(form, at, "fact")
            subject = self._term(fact, f"{at}.fact", depth)
            if not isinstance(subject, Name | Call):
                raise _unexpected(f"{at}.fact", "a name or a call", fact)
            return Fact(subject)
        relation, where = self._relation(head, form, at, depth)
        return Some(relation, where) if head == "some" else NoneOf(relation, where)

    def _relation(self, word: str, form: Mapping[str, object], at: str, depth: int) -> tuple[Name, Condition | None]:
        _check_depth(at, depth + 1)
        relation, where = _fields(form, at, word, optional=("where",))
        name = _placed(at, Name, _string(relation, f"{at}.{word}"))
        return name, None if where is None else self.condition(where, f"{at}.where", depth + 1)

    def _test(self, form: Mapping[str, object], at: str, depth: int) -> Condition:
        op = _string(form["op"], f"{at}.op")
        if op in _OPERATORS:
            _, left, right = _fields(form, at, "op", "left", "right")
            terms = self._term(left, f"{at}.left", depth), self._term(right, f"{at}.right", depth)
            return _placed(at, Comparison, terms[0], _OPERATORS[op], terms[1])
        if op in _MATCHES:
            _, left, pattern = _fields(form, at, "op", "left", "pattern")
            subject = self._subject(left, f"{at}.left", depth)
            return _placed(at, Match, subject, _string(pattern, f"{at}.pattern"), *_MATCHES[op])
        if op in {"in", "not_in"}:
            _, left, values = _fields(form, at, "op", "left", "values")
            listed = enumerate(_list(values, f"{at}.values"))
            literals = tuple(self._literal(each, f"{at}.values[{index}]") for index, each in listed)
            return _placed(at, Membership, self._subject(left, f"{at}.left", depth), literals, op == "not_in")
        if op in {"missing", "present"}:
            _, left = _fields(form, at, "op", "left")
            return Presence(self._subject(left, f"{at}.left", depth), op == "present")
        if op == "within":
            _, left, start, end = _fields(form, at, "op", "left", optional=("start", "end"))
            ends = (None if each is None else _instant(each, at) for each in (start, end))
            return _placed(at, Within, self._subject(left, f"{at}.left", depth), *ends)
        near = nearest(op, _TESTS)
        hint = f" Did you mean {near!r}?" if near else ""
        raise Invalid(f"{_place(f'{at}.op')}: there is no operator {op!r}.{hint}")

    def _subject(self, value: object, at: str, depth: int) -> Subject:
        term = self._term(value, at, depth)
        if not isinstance(term, SUBJECTS):
            raise _unexpected(at, "a name, a call or a count", value)
        return term

    def _literal(self, value: object, at: str) -> Literal:
        term = self._term(value, at, 0)
        if not isinstance(term, LITERALS):
            raise _unexpected(at, "a written value", value)
        return term

    def _term(self, value: object, at: str, depth: int) -> Term:
        self._terms += 1
        if self._terms > MAX_TERMS:
            raise Invalid(f"A condition has at most {MAX_TERMS:,} names and values.", limit=MAX_TERMS)
        if isinstance(value, bool):
            return Truth(value)
        if isinstance(value, int | float):
            return _placed(at, Number, value)
        if isinstance(value, str):
            return _placed(at, Text, value)
        return self._keyed_term(_object(value, at), at, depth)

    def _keyed_term(self, form: Mapping[str, object], at: str, depth: int) -> Term:
        head = next((key for key in _TERM_HEADS if key in form), None)
        match head:
            case "name":
                (name,) = _fields(form, at, head)
                return _placed(at, Name, _string(name, f"{at}.name"))
            case "time":
                (moment,) = _fields(form, at, head)
                return _instant(moment, f"{at}.time")
            case "number":
                number, unit = _fields(form, at, head, optional=("unit",))
                return _placed(at, Number, number, None if unit is None else _string(unit, f"{at}.unit"))
            case "count":
                return Count(*self._relation(head, form, at, depth))
            case "call":
                return self._call(form, at, depth + 1)
            case _:
                raise _unexpected(at, f"a value or an object with one of the keys {', '.join(_TERM_HEADS)}", form)

    def _call(self, form: Mapping[str, object], at: str, depth: int) -> Call:
        _check_depth(at, depth)
        name, args, options = _fields(form, at, "call", optional=("args", "options"))
        listed = enumerate(_list([] if args is None else args, f"{at}.args"))
        keyed = _object({} if options is None else options, f"{at}.options").items()
        return _placed(
            at,
            Call,
            _string(name, f"{at}.call"),
            tuple(self._term(each, f"{at}.args[{index}]", depth) for index, each in listed),
            tuple((key, self._term(each, f"{at}.options.{key}", depth)) for key, each in keyed),
        )


def _placed(at: str, build: Callable[..., T], *values: object) -> T:
    """Build a node, and name the place where its values are wrong."""
    try:
        return build(*values)
    except Invalid as error:
        raise Invalid(f"{_place(at)}: {error.message}") from error


def _fields(form: Mapping[str, object], at: str, *keys: str, optional: Sequence[str] = ()) -> list[object]:
    """Return the values of ``keys`` and then of ``optional`` (None where absent), and refuse other keys."""
    wrong = [key for key in keys if key not in form] or [key for key in form if key not in {*keys, *optional}]
    if wrong:
        raise _unexpected(at, f"an object with {', '.join(keys)} and nothing unknown", form)
    return [form.get(key) for key in (*keys, *optional)]


def _object(value: object, at: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _unexpected(at, "an object", value)
    return value


def _list(value: object, at: str) -> Sequence[object]:
    if not isinstance(value, list | tuple):
        raise _unexpected(at, "a list", value)
    return value


def _string(value: object, at: str) -> str:
    if not isinstance(value, str):
        raise _unexpected(at, "a string", value)
    return value


def _instant(value: object, at: str) -> Instant:
    try:
        return Instant(datetime.fromisoformat(_string(value, at)))
    except ValueError as error:
        raise _unexpected(at, "an ISO time", value) from error


def _check_depth(at: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise Invalid(f"{_place(at)}: a condition nests at most {MAX_DEPTH} deep.", limit=MAX_DEPTH)


def _unexpected(at: str, expected: str, value: object) -> Invalid:
    shown = repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    shown = f"an object with {', '.join(map(str, value))}" if isinstance(value, Mapping) and value else shown
    return Invalid(f"{_place(at)}: expected {expected}, not {shown[:200]}.")


def _place(at: str) -> str:
    return f"In the condition at {at.removeprefix('.')}" if at else "In the condition"
