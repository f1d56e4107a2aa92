"""A condition as text: the one spelling that :func:`~modelyard.criteria.parser.parse` reads back exactly."""

from __future__ import annotations

from datetime import time

from modelyard.criteria.model import (
    IDENTIFIER,
    KEYWORDS,
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
    Presence,
    Some,
    Subject,
    Term,
    Text,
    Truth,
    Within,
)


def to_text(node: Condition | Term) -> str:
    """Write a condition or a term.

    >>> from modelyard.criteria.parser import parse
    >>> to_text(parse("NOT(drift) AND `val/auc`==85%"))
    'not drift and `val/auc` = 85%'

    Returns:
        Text such that ``parse(to_text(condition)) == condition``.
    """
    match node:
        case Number() | Text() | Truth() | Instant():
            return _literal(node)
        case Name() | Call() | Count():
            return _subject(node)
        case All() | AnyOf() | Not() | Held():
            return _joined(node)
        case Some(relation, where):
            return _quantified("some", relation, where)
        case NoneOf(relation, where):
            return _quantified("none", relation, where)
        case _:
            return _test(node)


def _literal(node: Literal) -> str:
    match node:
        case Number(value, unit):
            return f"{value!r}{unit or ''}"
        case Text(value):
            return _quoted(value)
        case Truth(value):
            return "true" if value else "false"
        case Instant():
            return _instant(node)


def _subject(node: Subject) -> str:
    match node:
        case Name(path):
            return _path(path)
        case Count(relation, where):
            return _quantified("count", relation, where)
        case Call(name, args, options):
            written = (f"{key}={to_text(value)}" for key, value in options)
            return f"{name}({', '.join([*map(to_text, args), *written])})"


def _joined(node: All | AnyOf | Not | Held) -> str:
    """Write a condition around others, in parentheses where the text would otherwise group them otherwise."""
    match node:
        case All(parts):
            return " and ".join(_wrapped(part, All, AnyOf) for part in parts)
        case AnyOf(parts):
            return " or ".join(_wrapped(part, AnyOf) for part in parts)
        case Not(part):
            return f"not {_wrapped(part, All, AnyOf)}"
        case Held(condition, duration):
            return f"{_wrapped(condition, All, AnyOf, Not, Held)} for {to_text(duration)}"


def _test(node: Comparison | Membership | Match | Presence | Within | Fact) -> str:
    match node:
        case Comparison(left, operator, right):
            return f"{to_text(left)} {operator.value} {to_text(right)}"
        case Fact(subject):
            return to_text(subject)
        case _:
            return f"{to_text(node.subject)} {_worded(node)}"


def _worded(node: Membership | Match | Presence | Within) -> str:
    match node:
        case Membership(_, values, negated):
            return f"{'not ' * negated}in ({', '.join(to_text(value) for value in values)})"
        case Match(_, pattern, any_case, negated):
            return f"{'not ' * negated}{'ilike' if any_case else 'like'} {_quoted(pattern)}"
        case Presence(_, present):
            return "is present" if present else "is missing"
        case Within(_, start, end):
            ends = ("" if moment is None else to_text(moment) for moment in (start, end))
            return f"within [{', '.join(ends)})"


def _wrapped(node: Condition, *loose: type) -> str:
    """Write a condition, in parentheses if it is one of the ``loose`` types."""
    return f"({to_text(node)})" if isinstance(node, loose) else to_text(node)


def _quantified(word: str, relation: Name, where: Condition | None) -> str:
    return f"{word}({_path(relation.path)})" if where is None else f"{word}({_path(relation.path)}, {to_text(where)})"


def _path(path: str) -> str:
    if path.lower() in KEYWORDS:
        return f"`{path}`"
    return ".".join(part if IDENTIFIER.fullmatch(part) else _back_quoted(part) for part in path.split("."))


def _back_quoted(part: str) -> str:
    return "`" + part.replace("`", "``") + "`"


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _instant(node: Instant) -> str:
    moment = node.at.replace(tzinfo=None)
    return moment.date().isoformat() if moment.time() == time.min else f"{moment.isoformat()}Z"
