"""What a condition mentions: its names, functions and clauses; and whether they are known."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from modelyard.criteria.lexer import Kind, tokenize
from modelyard.criteria.model import (
    All,
    AnyOf,
    Call,
    Clause,
    Comparison,
    Condition,
    Count,
    Held,
    Name,
    NoneOf,
    Not,
    Some,
    Term,
)
from modelyard.criteria.parse_error import ParseError
from modelyard.criteria.text import to_text
from modelyard.errors import nearest

BUILT_IN = frozenset({"lower", "upper"})
"""Functions that :func:`~modelyard.criteria.deciding.decide` knows itself: the bounds of an interval."""


def clauses(node: Condition) -> tuple[Clause, ...]:
    """Return the clauses that ``and``, ``or`` and ``not`` join, in the order of the text."""
    match node:
        case All(parts) | AnyOf(parts):
            return tuple(clause for part in parts for clause in clauses(part))
        case Not(part):
            return clauses(part)
        case _:
            return (node,)


def names(node: Condition) -> set[str]:
    """Return every path that a condition looks up or passes to a function.

    Names inside a relation are prefixed with it: ``some(versions, stage = 'staging')`` mentions ``versions``
    and ``versions.stage``.
    """
    return {path for path, _ in _mentions(node, "")}


def functions(node: Condition) -> set[str]:
    """Return the name of every function that a condition calls, ``lower`` and ``upper`` among them."""
    return {call.name for call in _calls(node)}


def check_names(node: Condition, known_names: Collection[str], known_functions: Collection[str] = frozenset()) -> None:
    """Refuse a condition that mentions a name or function which does not exist.

    Args:
        node: The condition.
        known_names: Every path that may be mentioned, arguments of functions and relations among them.
        known_functions: Every function besides ``lower`` and ``upper``.

    Raises:
        ParseError: For the first unknown one, with the nearest known one; the column is the one in
            ``to_text(node)``.
    """
    text = to_text(node)
    callable_names = {*known_functions, *BUILT_IN}
    for path, written in _mentions(node, ""):
        if path not in known_names:
            raise _unknown(text, "name", path, written=written, near=nearest(path, known_names))
    for call in _calls(node):
        if call.name not in callable_names:
            near = nearest(call.name, callable_names)
            raise _unknown(text, "function", call.name, written=call.name, near=near)


def depth(node: Condition | Term) -> int:
    """Count how deep a condition nests: 0 for a clause without a call, one more for each node around it."""
    match node:
        case Some(_, where) | NoneOf(_, where) | Count(_, where):
            return 1 + (0 if where is None else depth(where))
        case Call():
            return 1 + max(map(depth, _terms(node)), default=0)
        case All() | AnyOf() | Not() | Held():
            return 1 + max(map(depth, _inside(node)))
        case _:
            return max(map(depth, _terms(node)), default=0)


def relation_depth(node: Condition | Term) -> int:
    """Count how deep relations nest: 0 without one, 2 for ``some(versions, none(deployments))``."""
    if isinstance(node, Some | NoneOf | Count):
        return 1 + (0 if node.where is None else relation_depth(node.where))
    return max(map(relation_depth, (*_terms(node), *_inside(node))), default=0)


def _inside(node: Condition | Term) -> tuple[Condition, ...]:
    """Return the conditions directly inside one that are about the same thing."""
    match node:
        case All(parts) | AnyOf(parts):
            return parts
        case Not(part) | Held(part, _):
            return (part,)
        case _:
            return ()


def _terms(node: Condition | Term) -> tuple[Term, ...]:
    match node:
        case Comparison(left, _, right):
            return (left, right)
        case Call(_, args, options):
            return (*args, *(value for _, value in options))
        case _:
            subject: Term | None = getattr(node, "subject", None)
            return () if subject is None else (subject,)


def _mentions(node: Condition | Term, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield (full path, path as written) in the order of the text."""
    match node:
        case Name(path):
            yield prefix + path, path
        case Some(relation, where) | NoneOf(relation, where) | Count(relation, where):
            yield from _mentions(relation, prefix)
            if where is not None:
                yield from _mentions(where, f"{prefix}{relation.path}.")
        case _:
            for child in (*_terms(node), *_inside(node)):
                yield from _mentions(child, prefix)


def _calls(node: Condition | Term) -> Iterator[Call]:
    if isinstance(node, Call):
        yield node
    where = node.where if isinstance(node, Some | NoneOf | Count) else None
    for child in (*_terms(node), *_inside(node), *(() if where is None else (where,))):
        yield from _calls(child)


def _unknown(text: str, kind: str, path: str, *, written: str, near: str | None) -> ParseError:
    tokens = tokenize(text)
    offset = next(token.offset for token in tokens if token.kind is Kind.NAME and token.value == written)
    return ParseError(text, offset, f"There is no {kind} {path!r}", near=near)
