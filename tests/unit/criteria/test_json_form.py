import pytest

from modelyard.criteria import Not, from_json, parse, to_json
from modelyard.errors import Invalid


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b >= 0.85", {"op": "ge", "left": {"name": "a.b"}, "right": 0.85}),
        ("a = 20ms", {"op": "eq", "left": {"name": "a"}, "right": {"number": 20, "unit": "ms"}}),
        ("not drift", {"not": {"fact": {"name": "drift"}}}),
        ("a or b", {"any": [{"fact": {"name": "a"}}, {"fact": {"name": "b"}}]}),
        ("a for 24h", {"for": {"number": 24, "unit": "h"}, "condition": {"fact": {"name": "a"}}}),
        ("f(x, k=true)", {"fact": {"call": "f", "args": [{"name": "x"}], "options": {"k": True}}}),
        ("a not in ('x')", {"op": "not_in", "left": {"name": "a"}, "values": ["x"]}),
        ("a ilike 'x%'", {"op": "ilike", "left": {"name": "a"}, "pattern": "x%"}),
        ("a is null", {"op": "missing", "left": {"name": "a"}}),
        ("none(v, a)", {"none": "v", "where": {"fact": {"name": "a"}}}),
        ("count(v) > 2", {"op": "gt", "left": {"count": "v"}, "right": 2}),
        ("a > 2026-07-01", {"op": "gt", "left": {"name": "a"}, "right": {"time": "2026-07-01T00:00:00Z"}}),
        (
            "a within [2026-07-01,)",
            {"op": "within", "left": {"name": "a"}, "start": "2026-07-01T00:00:00Z", "end": None},
        ),
    ],
)
def test_json_form(text, expected):
    assert to_json(parse(text)) == expected
    assert from_json(expected) == parse(text)


FACT = {"fact": {"name": "a"}}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "expected an object"),
        ([], "expected an object"),
        ({}, "one of the keys all, any"),
        ({"al": [FACT, FACT]}, "one of the keys all, any"),
        ({"all": FACT}, "at all: expected a list"),
        ({"all": [FACT]}, "at least two"),
        ({"all": [FACT, {"fact": 3}]}, r"at all\[1\].fact: expected a name or a call"),
        ({"not": FACT, "then": 1}, "nothing unknown"),
        ({"op": "gee", "left": {"name": "a"}, "right": 1}, "Did you mean 'ge'"),
        ({"op": "ge", "left": 2, "right": 1}, "one side must be a name"),
        ({"op": "ge", "left": {"name": "a"}, "right": {"number": 1, "unit": "x"}}, "no unit 'x'"),
        ({"op": "ge", "left": {"name": "a"}, "right": {"number": "1"}}, "A number was expected"),
        ({"op": "ge", "left": {"name": 1}, "right": 1}, "at left.name: expected a string"),
        (
            {"op": "ge", "left": {"name": "a"}, "right": {"time": "soon"}},
            "at right.time: expected an ISO time",
        ),
        (
            {"op": "in", "left": {"name": "a"}, "values": [{"name": "b"}]},
            r"values\[0\]: expected a written value",
        ),
        ({"op": "like", "left": "a", "pattern": "b"}, "expected a name, a call or a count"),
        ({"for": 24, "condition": FACT}, "a duration above zero"),
        ({"for": "24h", "condition": FACT}, "expected a duration"),
        ({"fact": {"call": "f", "args": 1}}, "expected a list"),
        ({"op": "ge", "left": {"name": "a"}, "right": float("nan")}, "out of range"),
    ],
)
def test_what_is_no_condition_is_refused_with_its_place(value, says):
    with pytest.raises(Invalid, match=says):
        from_json(value)


def test_hostile_json_is_refused():
    deep = FACT
    for _ in range(5_000):
        deep = {"not": deep}
    with pytest.raises(Invalid, match="at most 32 deep"):
        from_json(deep)
    with pytest.raises(Invalid, match="at most 200 clauses"):
        from_json({"any": [FACT] * 201})
    with pytest.raises(Invalid, match="at most 5,000 names and values"):
        from_json({"op": "in", "left": {"name": "a"}, "values": [1] * 5_001})
    call = {"name": "x"}
    for _ in range(5_000):
        call = {"call": "f", "args": [call]}
    with pytest.raises(Invalid, match="at most 32 deep"):
        from_json({"fact": call})


@pytest.mark.parametrize("text", ["f(" * 32 + "x" + ")" * 32, "some(v, " * 32 + "a" + ")" * 32, "not " * 32 + "a"])
def test_the_deepest_text_is_also_accepted_as_json_and_nothing_deeper(text):
    node = parse(text)
    assert from_json(to_json(node)) == node
    with pytest.raises(Invalid, match="at most 32 deep"):
        from_json(to_json(Not(node)))
    with pytest.raises(Invalid, match="at most 32 deep"):
        parse(f"not {text}")
