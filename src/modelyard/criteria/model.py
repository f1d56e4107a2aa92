"""The nodes of a condition: one small tree that every front end builds and every mode reads.

A *condition* is true or false of something; a *term* is what a condition compares. Terms are *subjects*,
which are looked up (:class:`Name`, :class:`Call`, :class:`Count`), or *literals*, which are written down.
Nodes are immutable, hashable and compare by value. A node that could not be written as text cannot be built:
constructors raise :class:`~modelyard.errors.Invalid`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeAlias

from modelyard.criteria.units import INTEGER_LIMIT, UNITS, Dimension, dimension_of, to_base
from modelyard.errors import Invalid, TooLarge

MAX_CHARACTERS = 10_000
"""Longest text of a condition, and of one string or name in it."""

MAX_DEPTH = 32
"""Deepest nesting of a condition. Parsing, compiling to SQL and the stack of Python all stand it."""

MAX_CLAUSES = 200
"""Most clauses of a condition: SQLite refuses expression trees deeper than 1,000 (its default limit)."""

MAX_TERMS = 5_000
"""Most terms of a condition read from JSON, about what fits a text. SQLite binds 32,766 values at most."""

KEYWORDS = frozenset(
    {"and", "or", "not", "in", "like", "ilike", "is", "for", "within", "true", "false"},
)
"""Words that a name can only be between back quotes; in any case of letters."""

QUANTIFIERS = frozenset({"some", "none", "count"})
"""Words that quantify over a relation when a parenthesis follows; ordinary names otherwise."""

IDENTIFIER = re.compile(r"[^\W\d]\w*")
"""A name, or a part of one, that needs no back quotes."""


class Operator(StrEnum):
    """How a comparison compares."""

    EQ = "="
    NE = "!="
    GT = ">"
    GE = ">="
    LT = "<"
    LE = "<="

    @property
    def mirrored(self) -> Operator:
        """The operator that says the same with the two sides exchanged."""
        return _MIRRORED.get(self, self)


_MIRRORED = {
    Operator.GT: Operator.LT,
    Operator.LT: Operator.GT,
    Operator.GE: Operator.LE,
    Operator.LE: Operator.GE,
}


@dataclass(frozen=True, slots=True)
class Number:
    """A number with the unit that it was written with: ``0.85``, ``10_000``, ``1%``, ``20ms``."""

    value: int | float
    unit: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise Invalid(f"A number was expected, not {self.value!r}.")
        if self.unit is not None and self.unit not in UNITS:
            raise Invalid(f"There is no unit {self.unit!r}; the units are {', '.join(UNITS)}.")
        too_large = isinstance(self.value, int) and abs(self.value) >= INTEGER_LIMIT
        if too_large or not math.isfinite(self.magnitude):
            raise Invalid("The number is out of range; integers stay below 2**63 and numbers are finite.")

    @property
    def magnitude(self) -> int | float:
        """The number in base units: a fraction for percent, seconds for durations."""
        return to_base(self.value, self.unit)

    @property
    def dimension(self) -> Dimension:
        """What the number measures."""
        return dimension_of(self.unit)


@dataclass(frozen=True, slots=True)
class Text:
    """A quoted string."""

    value: str

    def __post_init__(self) -> None:
        _check_length("A string of a condition", self.value)


@dataclass(frozen=True, slots=True)
class Truth:
    """``true`` or ``false``."""

    value: bool


@dataclass(frozen=True, slots=True)
class Instant:
    """A point in time, kept in UTC. A date is its first moment, and a time without offset is UTC."""

    at: datetime

    def __post_init__(self) -> None:
        try:
            moment = self.at if self.at.tzinfo is not None else self.at.replace(tzinfo=UTC)
            object.__setattr__(self, "at", moment.astimezone(UTC).replace(fold=0))
        except OverflowError as error:
            raise Invalid("The time is outside the years 1 to 9999 in UTC.") from error


@dataclass(frozen=True, slots=True)
class Name:
    """Something looked up by a dotted path, such as ``run.metrics.roc_auc``."""

    path: str

    def __post_init__(self) -> None:
        _check_length("A name of a condition", self.path)


@dataclass(frozen=True, slots=True)
class Call:
    """A function of the facts: ``better_than(champion, roc_auc, min_gain=0.002)``.

    Options are sorted by name, so that a store that reorders the keys of JSON returns an equal node.
    """

    name: str
    args: tuple[Term, ...] = ()
    options: tuple[tuple[str, Term], ...] = ()

    def __post_init__(self) -> None:
        for word in (self.name, *(key for key, _ in self.options)):
            _check_length("A function or option name", word)
            if not IDENTIFIER.fullmatch(word) or word.lower() in KEYWORDS:
                raise Invalid(f"{word!r} cannot name a function or an option.")
        if self.name.lower() in QUANTIFIERS:
            raise Invalid(f"{self.name!r} is no function: it quantifies over a relation.")
        keys = [key for key, _ in self.options]
        repeated = next((key for key in keys if keys.count(key) > 1), None)
        if repeated is not None:
            raise Invalid(f"The option {repeated!r} of {self.name!r} is given twice.")
        object.__setattr__(self, "options", tuple(sorted(self.options, key=lambda option: option[0])))


@dataclass(frozen=True, slots=True)
class Count:
    """How many members of a relation meet a condition: ``count(versions, stage = 'production')``."""

    relation: Name
    where: Condition | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two terms, at least one of them looked up: ``roc_auc >= 0.85``."""

    left: Term
    operator: Operator
    right: Term

    def __post_init__(self) -> None:
        if isinstance(self.left, LITERALS) and isinstance(self.right, LITERALS):
            raise Invalid("A comparison of two written values never changes; one side must be a name.")


@dataclass(frozen=True, slots=True)
class Membership:
    """``stage in ('staging', 'production')``, or ``not in``."""

    subject: Subject
    values: tuple[Literal, ...]
    negated: bool = False

    def __post_init__(self) -> None:
        if not self.values:
            raise Invalid("A list after `in` holds at least one value.")


@dataclass(frozen=True, slots=True)
class Match:
    r"""``name like 'churn-%'``: ``%`` is any text, ``_`` one character; after ``\`` both are themselves.

    Attributes:
        subject: What must be text.
        pattern: The pattern.
        any_case: Whether ``A`` and ``a`` are the same (``ilike``).
        negated: Whether the text must not match.
    """

    subject: Subject
    pattern: str
    any_case: bool = False
    negated: bool = False

    def __post_init__(self) -> None:
        _check_length("A pattern", self.pattern)


@dataclass(frozen=True, slots=True)
class Presence:
    """``roc_auc is present`` or ``roc_auc is missing``."""

    subject: Subject
    present: bool


@dataclass(frozen=True, slots=True)
class Within:
    """A half-open range of time, ``started_at within [2026-07-01, 2026-10-01)``; one end may be open."""

    subject: Subject
    start: Instant | None
    end: Instant | None

    def __post_init__(self) -> None:
        if self.start is None and self.end is None:
            raise Invalid("A range needs a start or an end.")
        if self.start is not None and self.end is not None and self.start.at >= self.end.at:
            raise Invalid("The range is empty: its start must lie before its end.")


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that is true or false by itself: ``drift``, ``better_than(champion, roc_auc)``."""

    subject: Name | Call


@dataclass(frozen=True, slots=True)
class Held:
    """A condition that has been true without a break for a time: ``roc_auc < 0.85 for 24h``."""

    condition: Condition
    duration: Number

    def __post_init__(self) -> None:
        if self.duration.dimension is not Dimension.DURATION or self.duration.value <= 0:
            raise Invalid("`for` needs a duration above zero, such as 24h.")

    @property
    def seconds(self) -> float:
        """The duration in seconds, > 0."""
        return float(self.duration.magnitude)


@dataclass(frozen=True, slots=True)
class Some:
    """At least one member of a relation meets the whole condition: ``some(versions, stage = 'staging')``."""

    relation: Name
    where: Condition | None = None


@dataclass(frozen=True, slots=True)
class NoneOf:
    """No member of a relation meets the whole condition: ``none(deployments)``."""

    relation: Name
    where: Condition | None = None


@dataclass(frozen=True, slots=True)
class All:
    """Every part is true: ``a and b``."""

    parts: tuple[Condition, ...]

    def __post_init__(self) -> None:
        _check_parts(self.parts)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part is true: ``a or b``."""

    parts: tuple[Condition, ...]

    def __post_init__(self) -> None:
        _check_parts(self.parts)


@dataclass(frozen=True, slots=True)
class Not:
    """The part is false."""

    part: Condition


Literal: TypeAlias = Number | Text | Truth | Instant
Subject: TypeAlias = Name | Call | Count
Term: TypeAlias = Subject | Literal
Clause: TypeAlias = Comparison | Membership | Match | Presence | Within | Fact | Held | Some | NoneOf
Condition: TypeAlias = Clause | All | AnyOf | Not

LITERALS = (Number, Text, Truth, Instant)
SUBJECTS = (Name, Call, Count)


def _check_parts(parts: tuple[Condition, ...]) -> None:
    if len(parts) < 2:
        raise Invalid("`and` and `or` join at least two conditions.")


def _check_length(what: str, text: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise TooLarge(what, size=len(text), limit=MAX_CHARACTERS, unit="characters")
