"""A condition as plain JSON values, and back.

Each node is an object told apart by its keys::

    {"all": [...]}   {"any": [...]}   {"not": C}   {"fact": T}
    {"for": {"number": 24, "unit": "h"}, "condition": C}
    {"some": "versions", "where": C}   {"none": "deployments"}   {"count": "versions", "where": C}
    {"op": "ge", "left": T, "right": T}        op: eq ne gt ge lt le
    {"op": "in", "left": T, "values": [...]}   op: in, not_in
    {"op": "like", "left": T, "pattern": "churn-%"}   op: like, not_like, ilike, not_ilike
    {"op": "missing", "left": T}               op: missing, present
    {"op": "within", "left": T, "start": "2026-07-01T00:00:00Z", "end": null}
    {"name": "run.metrics.roc_auc"}   {"call": "better_than", "args": [...], "options": {...}}
    0.85   "text"   true   {"number": 20, "unit": "ms"}   {"time": "2026-07-01T00:00:00Z"}
"""

from __future__ import annotations

from typing import TypeAlias

from modelyard.criteria.model import (
    All,
    AnyOf,
    Call,
    Comparison,
    Condition,
    Count,
    Fact,
    Held,
    Instant,
    Match,
    Membership,
    Name,
    NoneOf,
    Not,
    Number,
    Presence,
    Some,
    Term,
    Text,
    Truth,
    Within,
)

Json: TypeAlias = "dict[str, object] | list[object] | str | int | float | bool"

_MATCHES = {
    (False, False): "like",
    (False, True): "not_like",
    (True, False): "ilike",
    (True, True): "not_ilike",
}


def to_json(node: Condition) -> dict[str, object]:
    """Write a condition as JSON values.

    Returns:
        An object such that ``from_json(to_json(condition)) == condition``, also through ``json.dumps`` and a
        store that reorders keys.
    """
    match node:
        case All() | AnyOf() | Not() | Held():
            return _joined_to_json(node)
        case Some(relation, where):
            return _quantified("some", relation, where)
        case NoneOf(relation, where):
            return _quantified("none", relation, where)
        case Fact(subject):
            return {"fact": _term_to_json(subject)}
        case Comparison(left, operator, right):
            return {"op": operator.name.lower(), "left": _term_to_json(left), "right": _term_to_json(right)}
        case _:
            return {**_test_to_json(node), "left": _term_to_json(node.subject)}


def _joined_to_json(node: All | AnyOf | Not | Held) -> dict[str, object]:
    match node:
        case All(parts):
            return {"all": [to_json(part) for part in parts]}
        case AnyOf(parts):
            return {"any": [to_json(part) for part in parts]}
        case Not(part):
            return {"not": to_json(part)}
        case Held(condition, duration):
            return {"for": _term_to_json(duration), "condition": to_json(condition)}


def _test_to_json(node: Membership | Match | Presence | Within) -> dict[str, object]:
    match node:
        case Membership(_, values, negated):
            return {"op": "not_in" if negated else "in", "values": [_term_to_json(value) for value in values]}
        case Match(_, pattern, any_case, negated):
            return {"op": _MATCHES[any_case, negated], "pattern": pattern}
        case Presence(_, present):
            return {"op": "present" if present else "missing"}
        case Within(_, start, end):
            return {"op": "within", "start": start and _iso(start), "end": end and _iso(end)}


def _term_to_json(term: Term) -> Json:
    match term:
        case Number(value, None) | Text(value) | Truth(value):
            return value
        case Number(value, unit):
            return {"number": value, "unit": unit}
        case Instant():
            return {"time": _iso(term)}
        case Name(path):
            return {"name": path}
        case Call(name, args, options):
            written: dict[str, object] = {"call": name, "args": [_term_to_json(arg) for arg in args]}
            return {**written, "options": {key: _term_to_json(value) for key, value in options}} if options else written
        case Count(relation, where):
            return _quantified("count", relation, where)


def _quantified(word: str, relation: Name, where: Condition | None) -> dict[str, object]:
    return {word: relation.path} if where is None else {word: relation.path, "where": to_json(where)}


def _iso(moment: Instant) -> str:
    return f"{moment.at.replace(tzinfo=None).isoformat()}Z"
