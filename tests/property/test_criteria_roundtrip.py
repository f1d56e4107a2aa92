"""Every condition survives the trip to text and back, and to JSON and back."""

import json
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.criteria import (
    All,
    AnyOf,
    Call,
    Comparison,
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
    Operator,
    ParseError,
    Presence,
    Some,
    Text,
    Truth,
    Within,
    from_json,
    names,
    parse,
    to_json,
    to_text,
)
from modelyard.criteria.units import UNITS

WORDS = ["and", "OR", "not", "in", "for", "within", "true", "some", "count", "missing", "null", "is", "like"]
DURATIONS = ["ms", "s", "m", "min", "h", "d"]

words = st.sampled_from(WORDS)
identifiers = st.from_regex(r"[^\W\d]\w{0,6}", fullmatch=True) | words
paths = identifiers | st.text(max_size=6) | st.lists(identifiers | st.text(max_size=4), max_size=3).map(".".join)
path_names = paths.map(Name)
plain_numbers = st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
scaled_numbers = st.integers(-(10**9), 10**9) | st.floats(-1e300, 1e300)
numbers = st.builds(Number, plain_numbers) | st.builds(Number, scaled_numbers, st.sampled_from(sorted(UNITS)))
moments = st.datetimes(timezones=st.just(UTC))
days = st.dates().map(lambda day: datetime(day.year, day.month, day.day, tzinfo=UTC))
instants = st.builds(Instant, moments | days)
literals = numbers | st.builds(Text, st.text(max_size=8)) | st.builds(Truth, st.booleans()) | instants
durations = st.builds(Number, st.integers(1, 10**6) | st.floats(1e-3, 1e6), st.sampled_from(DURATIONS))
function_names = identifiers.filter(
    lambda word: (
        word.lower()
        not in {"and", "or", "not", "in", "like", "ilike", "is", "for", "within", "true", "false"}
        | {"some", "none", "count"}
    )
)


def calls(terms):
    options = st.dictionaries(function_names, terms, max_size=2).map(lambda found: tuple(found.items()))
    return st.builds(Call, function_names, st.lists(terms, max_size=3).map(tuple), options)


call_terms = calls(literals | path_names)
plain_subjects = path_names | call_terms | calls(literals | path_names | call_terms)


@st.composite
def ranges(draw, subjects):
    start, end = sorted(draw(st.lists(instants, min_size=2, max_size=2, unique=True)), key=lambda each: each.at)
    keep = draw(st.sampled_from(["both", "start", "end"]))
    return Within(draw(subjects), None if keep == "end" else start, None if keep == "start" else end)


def clauses_on(subjects):
    return st.one_of(
        st.builds(Comparison, subjects, st.sampled_from(Operator), subjects | literals),
        st.builds(Comparison, literals, st.sampled_from(Operator), subjects),
        st.builds(Membership, subjects, st.lists(literals, min_size=1, max_size=3).map(tuple), st.booleans()),
        st.builds(Match, subjects, st.text(max_size=8), st.booleans(), st.booleans()),
        st.builds(Presence, subjects, st.booleans()),
        ranges(subjects),
    )


def around(inner):
    parts = st.lists(inner, min_size=2, max_size=3).map(tuple)
    counted = st.builds(Count, path_names, st.none() | inner)
    return st.one_of(
        st.builds(All, parts),
        st.builds(AnyOf, parts),
        st.builds(Not, inner),
        st.builds(Held, inner, durations),
        st.builds(Some, path_names, st.none() | inner),
        st.builds(NoneOf, path_names, st.none() | inner),
        clauses_on(counted),
    )


facts = st.builds(Fact, path_names | call_terms)
conditions = st.recursive(clauses_on(plain_subjects) | facts, around, max_leaves=10)


@settings(max_examples=250, deadline=None)
@given(conditions)
def test_a_condition_survives_text_and_json(condition):
    text, written = to_text(condition), to_json(condition)
    returned = [
        parse(text),
        from_json(written),
        from_json(json.loads(json.dumps(written))),
        from_json(json.loads(json.dumps(written, sort_keys=True))),
    ]
    assert returned == [condition] * 4
    assert [to_text(each) for each in returned] == [text] * 4
    # Equality takes 1 for 1.0, and true for 1; the way a node prints does not.
    assert [repr(each) for each in returned] == [repr(condition)] * 4
    assert [names(each) for each in returned] == [names(condition)] * 4


PIECES = ["and", "or", "not", "(", ")", "[", "]", ",", "=", ">=", "a", "b.c", "`d e`", "1", "2h", "5%", "'x'"]
PIECES += [
    "in",
    "like",
    "is",
    "missing",
    "for",
    "within",
    "some",
    "count(",
    "2026-07-01",
    "f(",
    "true",
    "-",
    ".",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=20).map(" ".join) | st.text(max_size=40))
def test_any_text_is_a_condition_or_a_parse_error(text):
    try:
        condition = parse(text)
    except ParseError as error:
        assert 1 <= error.column <= len(text) + 1
        assert error.message.endswith("^")
    else:
        assert parse(to_text(condition)) == condition
