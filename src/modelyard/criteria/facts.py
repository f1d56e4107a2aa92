"""What a condition is decided on: observations, and the honest ways of having none."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Protocol, TypeAlias, runtime_checkable

from modelyard.criteria.model import Call, Condition, Count, Name
from modelyard.errors import Invalid, nearest

Scalar: TypeAlias = bool | int | float | str | datetime
Argument: TypeAlias = Name | Call | Count | Scalar


@dataclass(frozen=True, slots=True)
class Observation:
    """A value that was observed.

    Attributes:
        value: The point estimate, text, truth or time. Scalars of NumPy become those of Python.
        interval: Confidence interval (low, high) in the same unit as the value; None where none is known.
        unit: Unit of value and interval. ``ms``, ``s``, ``m``, ``min``, ``h``, ``d`` and ``%`` convert to
            that of a limit; ``%`` means that 10 stands for 10 %. Any other (``USD``) is only shown.
        evidence: What backs it (test, sample size, window): JSON-compatible, kept in the verdict.
    """

    value: Scalar
    interval: tuple[float, float] | None = None
    unit: str | None = None
    evidence: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", _scalar(self.value))
        if self.interval is not None:
            low, high = self.interval
            object.__setattr__(self, "interval", (float(low), float(high)))


@dataclass(frozen=True, slots=True)
class Missing:
    """There is no value, though there should be one; the clause is unknown, never a pass."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotApplicable:
    """There cannot be a value, as for a champion before the first promotion; the clause is left out."""

    reason: str


Answer: TypeAlias = Observation | Missing | NotApplicable


class Facts(Protocol):
    """Where :func:`~modelyard.criteria.deciding.decide` looks things up."""

    def value(self, path: str) -> Answer:
        """Look up a name, given as its dotted path."""
        ...

    def call(self, name: str, args: tuple[Argument, ...], kwargs: Mapping[str, Argument]) -> Answer:
        """Call a function.

        Names, nested calls and counts arrive as nodes (a name may be a symbol such as ``champion``), written
        values as values of Python in base units: ``1%`` as 0.01, ``24h`` as 86400.
        """
        ...

    def held(self, node: Condition, seconds: float) -> Answer:
        """Say (as a truth) whether a condition has been true, without a break, for the last ``seconds``."""
        ...


@runtime_checkable
class RelatedFacts(Facts, Protocol):
    """Facts that also know relations, for ``some``, ``none`` and ``count``."""

    def related(self, path: str) -> Sequence[Facts] | Missing | NotApplicable:
        """Return the facts of every member of a relation."""
        ...


@dataclass(frozen=True, slots=True)
class MappingFacts:
    """Facts from mappings.

    >>> MappingFacts({"roc_auc": 0.87}).value("roc_uac")
    Missing(reason="There is no fact 'roc_uac'. Did you mean 'roc_auc'?")

    Attributes:
        values: By path: a scalar, a ``timedelta``, an answer, or None for a value that is not recorded.
        functions: By name: functions that take the arguments of the call and return what ``values`` may hold.
            An argument list that does not fit, or :class:`~modelyard.errors.Invalid`, makes it missing.
        history: Whether a condition has held for some seconds; without it every ``for`` is unknown.
        relations: By path: the facts of every member.
    """

    values: Mapping[str, object]
    functions: Mapping[str, Callable[..., object]] = field(default_factory=dict, kw_only=True)
    history: Callable[[Condition, float], object] | None = field(default=None, kw_only=True)
    relations: Mapping[str, Sequence[Facts]] = field(default_factory=dict, kw_only=True)

    def value(self, path: str) -> Answer:
        """Look up a value."""
        if path not in self.values:
            return _absent("fact", path, self.values)
        return as_answer(self.values[path], path)

    def call(self, name: str, args: tuple[Argument, ...], kwargs: Mapping[str, Argument]) -> Answer:
        """Call one of the functions."""
        if name not in self.functions:
            return _absent("function", name, self.functions)
        function = self.functions[name]
        try:
            inspect.signature(function).bind(*args, **kwargs)
        except TypeError as error:
            return Missing(f"{name}(…) is not called that way: {error}.")
        try:
            return as_answer(function(*args, **kwargs), name)
        except Invalid as error:
            return Missing(f"{name}(…): {error.message}")

    def held(self, node: Condition, seconds: float) -> Answer:
        """Ask the history."""
        if self.history is None:
            return Missing("No history is kept, so nothing is known about the past.")
        return as_answer(self.history(node, seconds), "the history")

    def related(self, path: str) -> Sequence[Facts] | Missing:
        """Look up the members of a relation."""
        return self.relations[path] if path in self.relations else _absent("relation", path, self.relations)


def as_answer(value: object, what: str) -> Answer:
    """Read what a mapping holds as an answer.

    Args:
        value: A scalar, a ``timedelta``, an answer, or None for a value that is not recorded.
        what: Its name, for the reason.

    Raises:
        Invalid: If it is none of these.
    """
    if isinstance(value, Observation | Missing | NotApplicable):
        return value
    if value is None:
        return Missing(f"{what} is not recorded.")
    if isinstance(value, timedelta):
        return Observation(value.total_seconds(), unit="s")
    return Observation(_scalar(value))


def is_nan(value: object) -> bool:
    """Say whether a value is the float that is no number."""
    return isinstance(value, float) and math.isnan(value)


def _absent(kind: str, name: str, known: Mapping[str, object]) -> Missing:
    near = nearest(name, known)
    return Missing(f"There is no {kind} {name!r}." + (f" Did you mean {near!r}?" if near else ""))


def _scalar(value: object) -> Scalar:
    # NumPy's scalars, arrays of one element and pandas' values all convert themselves through `item`; NumPy
    # is not imported for them. A float64 is a float already, and yet prints as no float of Python does.
    item = getattr(value, "item", None)
    plain = item() if callable(item) else value
    if isinstance(plain, Decimal):
        return float(plain)
    if not isinstance(plain, bool | int | float | str | datetime):
        raise Invalid(f"A number, text, truth or time can be observed, not a {type(value).__name__}.")
    return plain
