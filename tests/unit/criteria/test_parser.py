from datetime import UTC, datetime

import pytest

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
    parse,
    to_text,
)
from modelyard.errors import Invalid

A, B, C = (Fact(Name(word)) for word in "abc")
AUC = Name("roc_auc")


def at_least(name, value, unit=None):
    return Comparison(Name(name), Operator.GE, Number(value, unit))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("roc_auc >= 0.85", at_least("roc_auc", 0.85)),
        ("run.metrics.roc_auc >= 0.85", at_least("run.metrics.roc_auc", 0.85)),
        ("`weird name`.x >= 1", at_least("weird name.x", 1)),
        ("`a``b` >= 1", at_least("a`b", 1)),
        ("a == 'x'", Comparison(Name("a"), Operator.EQ, Text("x"))),
        ('a = "it\'s"', Comparison(Name("a"), Operator.EQ, Text("it's"))),
        ("a = 'it''s'", Comparison(Name("a"), Operator.EQ, Text("it's"))),
        ("a != true", Comparison(Name("a"), Operator.NE, Truth(True))),
        ("a < b.c", Comparison(Name("a"), Operator.LT, Name("b.c"))),
        ("0.5 <= a", Comparison(Number(0.5), Operator.LE, Name("a"))),
        ("new_rows >= 10_000", at_least("new_rows", 10_000)),
        ("a >= -1.5e-3", at_least("a", -0.0015)),
        ("a >= .5", at_least("a", 0.5)),
        ("latency_p99 >= 20ms", at_least("latency_p99", 20, "ms")),
        ("a >= 5m", at_least("a", 5, "m")),
        ("a >= 5M", at_least("a", 5, "M")),
        ("a >= 5min", at_least("a", 5, "min")),
        ("error_rate >= 1%", at_least("error_rate", 1, "%")),
        ("a and b and c", All((A, B, C))),
        ("a or b and c", AnyOf((A, All((B, C))))),
        ("(a or b) and c", All((AnyOf((A, B)), C))),
        ("(a and b) and c", All((All((A, B)), C))),
        ("NOT a AND b", All((Not(A), B))),
        ("not not a", Not(Not(A))),
        ("not a for 1h", Not(Held(A, Number(1, "h")))),
        ("(not a) for 1h", Held(Not(A), Number(1, "h"))),
        ("a or roc_auc >= 0.85 for 24h", AnyOf((A, Held(at_least("roc_auc", 0.85), Number(24, "h"))))),
        ("lower(roc_auc) >= 1", Comparison(Call("lower", (AUC,)), Operator.GE, Number(1))),
        (
            "better_than(champion, roc_auc, min_gain=0.002)",
            Fact(Call("better_than", (Name("champion"), AUC), (("min_gain", Number(0.002)),))),
        ),
        ("f()", Fact(Call("f"))),
        (
            "f(g(x), 2%, y='z',)",
            Fact(Call("f", (Call("g", (Name("x"),)), Number(2, "%")), (("y", Text("z")),))),
        ),
        ("stage in ('a', 'b')", Membership(Name("stage"), (Text("a"), Text("b")))),
        ("stage not in [1, 2%]", Membership(Name("stage"), (Number(1), Number(2, "%")), negated=True)),
        ("n like 'x-%'", Match(Name("n"), "x-%")),
        ("n not ilike 'x'", Match(Name("n"), "x", any_case=True, negated=True)),
        ("a is missing", Presence(Name("a"), present=False)),
        ("a is not missing", Presence(Name("a"), present=True)),
        ("a is present", Presence(Name("a"), present=True)),
        ("a IS NULL", Presence(Name("a"), present=False)),
        ("a is not null", Presence(Name("a"), present=True)),
        ("a > 2026-07-01", Comparison(Name("a"), Operator.GT, Instant(datetime(2026, 7, 1, tzinfo=UTC)))),
        (
            "a > 2026-07-01T12:30:00.5+02:00",
            Comparison(Name("a"), Operator.GT, Instant(datetime(2026, 7, 1, 10, 30, 0, 500_000, tzinfo=UTC))),
        ),
        (
            "a within [2026-07-01, 2026-10-01)",
            Within(
                Name("a"),
                Instant(datetime(2026, 7, 1, tzinfo=UTC)),
                Instant(datetime(2026, 10, 1, tzinfo=UTC)),
            ),
        ),
        ("a within [, 2026-10-01)", Within(Name("a"), None, Instant(datetime(2026, 10, 1, tzinfo=UTC)))),
        ("a within [2026-07-01,)", Within(Name("a"), Instant(datetime(2026, 7, 1, tzinfo=UTC)), None)),
        ("some(v, a and b)", Some(Name("v"), All((A, B)))),
        ("none(v.w)", NoneOf(Name("v.w"))),
        ("count(v, a) > 2", Comparison(Count(Name("v"), A), Operator.GT, Number(2))),
        ("count > 2 or some", AnyOf((Comparison(Name("count"), Operator.GT, Number(2)), Fact(Name("some"))))),
        ("a.in >= 1 and `not` >= 1", All((at_least("a.in", 1), at_least("not", 1)))),
        ("größe >= 1", at_least("größe", 1)),
    ],
)
def test_text_means_this_tree(text, expected):
    assert parse(text) == expected
    assert parse(to_text(expected)) == expected


@pytest.mark.parametrize(
    ("text", "column", "expected", "near"),
    [
        ("roc auc >= 1", 5, "a comparison such as >=", "roc_auc"),
        ("a >= 1 adn b", 8, "`and`", "and"),
        ("a >= 20mss", 8, "one of the units %, ms, s, m, min, h, d, k, M", "ms"),
        ("a >= 20MIN", 8, "one of the units %, ms, s, m, min, h, d, k, M", "min"),
        ("a is mising", 6, "`missing`", "missing"),
        ("a lke 'x'", 3, "`like`", "like"),
        ("a <> 1", 3, None, "!="),
        ("a && b", 3, None, "and"),
        ("a ≥ 1", 3, None, ">="),
        ("a => 1", 3, None, ">="),
        ("a or !b", 6, None, "not"),
        ("", 1, "a condition", None),
        ("a >=", 5, "a value", None),
        ("(a", 3, "`)`", None),
        ("a)", 2, "`and`", None),
        ("a in b", 6, "a list such as ('a', 'b')", None),
        ("a in (b)", 7, "a value", None),
        ("a for ever", 7, "a duration such as 24h", None),
        ("a within [2026-07-01]", 21, "`,`", None),
        ("a within (2026-07-01, 2026-08-01)", 10, "`[`", None),
        ("a within [2026-07-01, 2026-08-01]", 33, "`)`", None),
        ("a within [x, )", 11, "a time such as 2026-07-01", None),
        ("a > 2026-13-01", 5, "an ISO date such as 2026-07-01", None),
        ("a > 0001-01-01T00:00+10:00", 5, "an ISO date such as 2026-07-01", None),
        ("a like b", 8, "a quoted pattern such as 'churn-%'", None),
        ("f(x=1, 2)", 8, "`name=value`", None),
        ("some(1)", 6, "the name of a relation", None),
        ("true", 5, "a comparison such as >=", None),
        ("count(v)", 9, "a comparison such as >=", None),
    ],
)
def test_an_error_says_where_what_was_expected_and_what_may_be_meant(text, column, expected, near):
    with pytest.raises(ParseError) as caught:
        parse(text, known=["roc_auc", "accuracy"])
    error = caught.value
    assert (error.column, error.near) == (column, near)
    assert expected is None or expected in error.expected
    shown, caret = error.message.splitlines()[-2:]
    assert shown == f"  {text}"
    assert caret.index("^") == 2 + column - 1
    assert error.code == "invalid_condition"
    assert error.facts["column"] == column


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0.1 < a < 0.5", "two comparisons joined by `and`"),
        ("1 = 2", "one side must be a name"),
        ("a for 3", "a duration above zero"),
        ("a for 0h", "a duration above zero"),
        ("a within [,)", "needs a start or an end"),
        ("a within [2026-07-01, 2026-07-01)", "is empty"),
        ("f(x=1, x=2)", "given twice"),
        ("a > 1__0", "between digits only"),
        ("a > 1_", "between digits only"),
        ("a = 'x", "never closed"),
        ("`a > 1", "never closed"),
        ("val/auc > 1", "between back quotes"),
        ("in > 1", "As a name it is written `in`"),
        ("a = 9223372036854775808", "out of range"),
        ("a = 1e999", "out of range"),
        ("a = 1e307M", "out of range"),
    ],
)
def test_an_error_explains(text, says):
    with pytest.raises(ParseError, match=says):
        parse(text)


@pytest.mark.parametrize(
    "hostile",
    [
        "(" * 9_000,
        "not " * 2_400 + "a",
        "f(" * 4_000,
        "some(a, " * 1_200,
        "a for 1h" + " or a" * 1_900,
        "x" * 10_001,
        "9" * 9_999,
        "0" * 9_000 + "1",
        "a = " + "'" * 9_995,
        "`" * 9_999,
        "a like '" + "%" * 9_000,
        "\0" * 100,
        "((a or b) and c or " * 500,
    ],
)
def test_hostile_text_is_refused_quickly(hostile):
    with pytest.raises(ParseError) as caught:
        parse(hostile)
    assert len(caught.value.message) < 600


def test_the_limits_themselves_are_accepted():
    deep = "(" * 32 + "a" + ")" * 32
    wide = " or ".join(["a"] * 200)
    long = "a = '" + "x" * 9_994 + "'"
    assert (parse(deep), len(parse(wide).parts), len(parse(long).right.value)) == (A, 200, 9_994)


def test_an_error_in_a_long_text_shows_only_what_is_around_it():
    text = "a and\n" * 50 + "?" + " and a" * 50
    with pytest.raises(ParseError) as caught:
        parse(text)
    shown, caret = caught.value.message.splitlines()[-2:]
    assert len(shown) < 140
    assert shown[caret.index("^")] == "?"


@pytest.mark.parametrize(
    "build",
    [
        lambda: Number(True),
        lambda: Number(float("nan")),
        lambda: Number(2**63),
        lambda: Number(1, "parsec"),
        lambda: Text("x" * 10_001),
        lambda: Call("not"),
        lambda: Call("count", (Name("x"),)),
        lambda: Call("f", (), (("a b", Number(1)),)),
        lambda: All((A,)),
        lambda: Membership(Name("a"), ()),
        lambda: Held(A, Number(1)),
    ],
)
def test_a_node_that_no_text_could_say_cannot_be_built(build):
    with pytest.raises(Invalid):
        build()


def test_options_have_no_order():
    assert parse("f(b=1, a=2)") == parse("f(a=2, b=1)")


@pytest.mark.parametrize(
    ("text", "magnitude"),
    [
        ("1.1%", 0.011),
        ("20ms", 0.02),
        ("3min", 180),
        ("3m", 180),
        ("1.5h", 5_400),
        ("2d", 172_800),
        ("1.1k", 1_100),
    ],
)
def test_units_convert_without_rounding(text, magnitude):
    assert parse(f"a = {text}").right.magnitude == magnitude
