"""One condition language: text, one small tree, and two modes to read it in.

:func:`parse` reads text such as ``roc_auc >= 0.85 and latency_p99 <= 20ms`` into the nodes of ``model``;
:func:`to_text`, :func:`to_json` and :func:`from_json` write and read them without loss.

:func:`decide` answers a condition on :class:`Facts`, in three values of truth and with the evidence: for
gates, guards, alerts and triggers. :func:`select` compiles it to SQL, in two values: for search. The latter
and :class:`Schema` load SQLAlchemy, and so are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from modelyard.criteria.deciding import decide
from modelyard.criteria.facts import (
    Answer,
    Argument,
    Facts,
    MappingFacts,
    Missing,
    NotApplicable,
    Observation,
    RelatedFacts,
    Scalar,
)
from modelyard.criteria.jsonform import to_json
from modelyard.criteria.jsonreader import from_json
from modelyard.criteria.model import (
    All,
    AnyOf,
    Call,
    Clause,
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
from modelyard.criteria.names import check_names, clauses, functions, names
from modelyard.criteria.parse_error import ParseError
from modelyard.criteria.parser import parse
from modelyard.criteria.text import to_text
from modelyard.criteria.verdict import ClauseVerdict, Outcome, Verdict, conjunction, disjunction

if TYPE_CHECKING:
    from modelyard.criteria.schema import Field, Kind, Relation, Schema
    from modelyard.criteria.selecting import select

__all__ = [
    "All",
    "Answer",
    "AnyOf",
    "Argument",
    "Call",
    "Clause",
    "ClauseVerdict",
    "Comparison",
    "Condition",
    "Count",
    "Fact",
    "Facts",
    "Field",
    "Held",
    "Instant",
    "Kind",
    "Literal",
    "MappingFacts",
    "Match",
    "Membership",
    "Missing",
    "Name",
    "NoneOf",
    "Not",
    "NotApplicable",
    "Number",
    "Observation",
    "Operator",
    "Outcome",
    "ParseError",
    "Presence",
    "RelatedFacts",
    "Relation",
    "Scalar",
    "Schema",
    "Some",
    "Subject",
    "Term",
    "Text",
    "Truth",
    "Verdict",
    "Within",
    "check_names",
    "clauses",
    "conjunction",
    "decide",
    "disjunction",
    "from_json",
    "functions",
    "names",
    "parse",
    "select",
    "to_json",
    "to_text",
]

_ON_USE = {
    "Field": "schema",
    "Kind": "schema",
    "Relation": "schema",
    "Schema": "schema",
    "select": "selecting",
}


def __getattr__(name: str) -> object:
    if name not in _ON_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ON_USE[name]}"), name)
