"""Conditions select the same rows on SQLite, on PostgreSQL and in plain Python."""

import math
import operator
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.criteria import (
    All,
    AnyOf,
    Comparison,
    Count,
    Fact,
    Field,
    Instant,
    Kind,
    Match,
    Membership,
    Name,
    NoneOf,
    Not,
    Number,
    Operator,
    ParseError,
    Presence,
    Relation,
    Schema,
    Some,
    Text,
    Truth,
    Within,
    parse,
    select,
    to_text,
)
from modelyard.criteria.patterns import matches
from modelyard.errors import Invalid


class UtcTime(sa.TypeDecorator):
    """A time kept without its offset, which a store may use."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value, dialect):
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)


METADATA = sa.MetaData()
MODELS = sa.Table(
    "models",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, index=True),
    sa.Column("stage", sa.Enum("staging", "production", name="stage")),
    sa.Column("rows", sa.BigInteger, index=True),
    sa.Column("auc", sa.Float, index=True),
    sa.Column("latency", sa.Float),
    sa.Column("live", sa.Boolean),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("updated_at", sa.DateTime),
    sa.Column("stored_at", UtcTime),
    sa.Column("seen_ms", sa.BigInteger),
    sa.Column("notes", sa.JSON),
)
VERSIONS = sa.Table(
    "versions",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("model_id", sa.ForeignKey("models.id"), index=True),
    sa.Column("name", sa.Text),
    sa.Column("auc", sa.Float),
    sa.Column("live", sa.Boolean),
)
DEPLOYMENTS = sa.Table(
    "deployments",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("version_id", sa.ForeignKey("versions.id"), index=True),
    sa.Column("live", sa.Boolean),
)
METRICS = sa.Table(
    "metrics",
    METADATA,
    sa.Column("model_id", sa.ForeignKey("models.id"), primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Float),
)

START = datetime(2026, 7, 1, tzinfo=UTC)
NAMES = [
    "churn",
    "Churn-eu",
    "churn-50%",
    "a_b",
    "a*b",
    "[x]",
    "",
    "Zeta",
    "äpfel",
    None,
    "it's",
    "back\\slash",
]
AUCS = [0.5, 0.85, None, math.nan, 0.9, -1.0, 2.0**40]
TIMES = [
    None,
    START,
    START + timedelta(days=40),
    START - timedelta(milliseconds=1),
    START + timedelta(days=92),
]
TRUTHS = [True, None, False]


def model_row(index):
    time = TIMES[index % 5]
    return {
        "id": index,
        "name": NAMES[index % 12],
        "stage": [None, "staging", "production"][index % 3],
        "rows": [None, 0, 10_000, 2**40][index % 4],
        "auc": AUCS[index % 7],
        "latency": [18.0, None, 25.5][index % 3],
        "live": TRUTHS[(index // 2) % 3],
        "created_at": time,
        "updated_at": None if time is None else time.replace(tzinfo=None),
        "stored_at": time,
        "seen_ms": None if time is None else int(time.timestamp() * 1_000),
    }


MODEL_ROWS = [model_row(index) for index in range(24)]
VERSION_ROWS = [
    {"id": i, "model_id": i * 7 % 20, "name": NAMES[i % 12], "auc": AUCS[i % 7], "live": TRUTHS[i % 3]}
    for i in range(50)
]
DEPLOYMENT_ROWS = [{"id": i, "version_id": i * 3 % 50, "live": TRUTHS[i // 3 % 3]} for i in range(30)]
METRIC_ROWS = [
    {"model_id": i, "key": key, "value": AUCS[(i + shift) % 7]}
    for i in range(0, 24, 2)
    for shift, key in enumerate(["f1", "val/f1"])
]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def connection(request):
    url = "sqlite://" if request.param == "sqlite" else request.getfixturevalue("postgres_server")
    engine = sa.create_engine(url)
    with engine.connect() as opened:
        if request.param == "postgresql":
            opened.execute(sa.text("SET TIME ZONE 'Asia/Tokyo'"))
        METADATA.create_all(opened)
        opened.execute(MODELS.insert(), MODEL_ROWS)
        opened.execute(VERSIONS.insert(), VERSION_ROWS)
        opened.execute(DEPLOYMENTS.insert(), DEPLOYMENT_ROWS)
        opened.execute(METRICS.insert(), METRIC_ROWS)
        yield opened
        opened.rollback()
    engine.dispose()


def metric(path):
    """Resolve a column of models, or `metrics.<key>` to a subquery."""
    if path.startswith("metrics."):
        found = sa.select(METRICS.c.value).where(
            METRICS.c.model_id == MODELS.c.id, METRICS.c.key == path.removeprefix("metrics.")
        )
        return found.scalar_subquery()
    if path == "seen":
        return Field(MODELS.c.seen_ms, kind=Kind.TIME, encode=lambda at: int(at.timestamp() * 1_000))
    if path == "latency":
        return Field(MODELS.c.latency, unit="ms")
    return MODELS.c.get(path)


def version_schema(table):
    """Make the schema of a version; every use of the relation to itself gets a fresh alias."""

    def siblings():
        other = VERSIONS.alias()
        return Relation(other, other.c.model_id == table.c.model_id, version_schema(other))

    deployments = Relation(DEPLOYMENTS, DEPLOYMENTS.c.version_id == table.c.id, Schema(dict(DEPLOYMENTS.c)))
    return Schema(dict(table.c), relations={"deployments": deployments, "siblings": siblings})


SCHEMA = Schema(
    metric,
    relations={"versions": Relation(VERSIONS, VERSIONS.c.model_id == MODELS.c.id, version_schema(VERSIONS))},
    functions={"long_name": lambda call, schema: sa.func.length(schema.field("name").column) > 5},
    known=[*MODELS.c.keys(), "seen"],
)


def selected(connection, condition):
    statement = sa.select(MODELS.c.id).where(select(condition, SCHEMA)).order_by(MODELS.c.id)
    return connection.execute(statement).scalars().all()


# -- the oracle ----------------------------------------------------------------------------------------


def wanted(condition):
    return [row["id"] for row in MODEL_ROWS if holds(condition, row, "models")]


def value_of(term, row, table):  # noqa: PLR0911 - one branch for each node
    match term:
        case Number():
            return term.magnitude
        case Text(value) | Truth(value):
            return value
        case Instant(at):
            return at
        case Count(relation, where):
            return sum(1 for each in related(relation.path, row) if where is None or holds(where, *each))
        case Name("updated_at"):
            return None if row["updated_at"] is None else row["updated_at"].replace(tzinfo=UTC)
        case Name("seen"):
            return row["created_at"]
        case Name("latency"):
            return None if row["latency"] is None else row["latency"] / 1_000
        case Name(path) if path.startswith("metrics."):
            key = path.removeprefix("metrics.")
            value = next((m["value"] for m in METRIC_ROWS if (m["model_id"], m["key"]) == (row["id"], key)), None)
        case Name(path):
            value = row[path]
    return None if isinstance(value, float) and math.isnan(value) else value


def related(path, row):
    if path == "versions":
        return [(each, "versions") for each in VERSION_ROWS if each["model_id"] == row["id"]]
    if path == "siblings":
        return [(each, "versions") for each in VERSION_ROWS if each["model_id"] == row["model_id"]]
    return [(each, "deployments") for each in DEPLOYMENT_ROWS if each["version_id"] == row["id"]]


OPERATIONS = {"=": "eq", "!=": "ne", ">": "gt", ">=": "ge", "<": "lt", "<=": "le"}


def holds(condition, row, table):  # noqa: C901, PLR0911 - one branch for each node
    match condition:
        case All(parts):
            return all(holds(part, row, table) for part in parts)
        case AnyOf(parts):
            return any(holds(part, row, table) for part in parts)
        case Not(part):
            return not holds(part, row, table)
        case Some(relation, where):
            return any(where is None or holds(where, *each) for each in related(relation.path, row))
        case NoneOf(relation, where):
            return not any(where is None or holds(where, *each) for each in related(relation.path, row))
        case Fact(subject):
            return value_of(subject, row, table) is True
        case Presence(subject, present):
            return (value_of(subject, row, table) is not None) is present
        case Comparison(left, op, right):
            values = value_of(left, row, table), value_of(right, row, table)
            return None not in values and getattr(operator, OPERATIONS[op.value])(*values)
    value = value_of(condition.subject, row, table)
    if value is None:
        return False
    match condition:
        case Membership(_, values, negated):
            return (value in [value_of(each, row, table) for each in values]) is not negated
        case Match(_, pattern, any_case, negated):
            return matches(pattern, value, any_case=any_case) is not negated
        case Within(_, start, end):
            return (start is None or start.at <= value) and (end is None or value < end.at)


# -- random conditions ---------------------------------------------------------------------------------

operators = st.sampled_from(Operator)
equality = st.sampled_from([Operator.EQ, Operator.NE])
numbers = st.sampled_from([0.85, 0.5, 0.9, 0, 10_000, 2**40, -1]).map(Number) | st.just(Number(85, "%"))
texts = st.sampled_from([name for name in NAMES if name is not None])
instants = st.sampled_from([Instant(at) for at in TIMES if at is not None])
patterns = texts | st.sampled_from(["churn%", "C%", "%u%", "_", "a__", "a\\_b", "%\\%", "[%", "%*%", "%\\", "%"])
# The case of letters beyond ASCII is the database's affair; see `ilike`.
ascii_patterns = patterns.filter(str.isascii)


def clauses_on(number_names, text_names, truth_names):
    nums, words = st.sampled_from(number_names).map(Name), st.sampled_from(text_names).map(Name)
    truths = st.sampled_from(truth_names).map(Name)
    return st.one_of(
        st.builds(Comparison, nums, operators, numbers | nums),
        st.builds(Comparison, numbers, operators, nums),
        st.builds(Comparison, words, operators, texts.map(Text)),
        st.builds(Comparison, truths, equality, st.booleans().map(Truth)),
        st.builds(Fact, truths),
        st.builds(Presence, nums | words | truths, st.booleans()),
        st.builds(Membership, nums, st.lists(numbers, min_size=1, max_size=3).map(tuple), st.booleans()),
        st.builds(Membership, words, st.lists(texts.map(Text), min_size=1, max_size=3).map(tuple), st.booleans()),
        st.builds(Match, words, patterns, st.just(False), st.booleans()),
        st.builds(Match, words, ascii_patterns, st.just(True), st.booleans()),
    )


def joined(inner):
    parts = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return st.builds(All, parts) | st.builds(AnyOf, parts) | st.builds(Not, inner)


def quantified(relation, inner):
    name, where = st.just(Name(relation)), st.none() | inner
    count = st.builds(Count, name, where)
    return (
        st.builds(Some, name, where)
        | st.builds(NoneOf, name, where)
        | st.builds(Comparison, count, operators, st.integers(0, 3).map(Number))
    )


deployment = st.recursive(st.builds(Fact, st.just(Name("live"))), joined, max_leaves=2)
version_tests = clauses_on(["auc", "id"], ["name"], ["live"])
sibling = st.recursive(version_tests, joined, max_leaves=2)
version = st.recursive(
    version_tests | quantified("deployments", deployment) | quantified("siblings", sibling),
    joined,
    max_leaves=3,
)
times = st.sampled_from(["created_at", "updated_at", "stored_at"]).map(Name)
latency = st.sampled_from([Number(18, "ms"), Number(0.02, "s"), Number(1, "h")])
model_tests = st.one_of(
    clauses_on(["rows", "auc", "metrics.f1", "metrics.val/f1"], ["name"], ["live"]),
    st.builds(
        Comparison,
        st.just(Name("stage")),
        equality,
        st.sampled_from(["staging", "production", "x"]).map(Text),
    ),
    st.builds(Comparison, times | st.just(Name("seen")), operators, instants),
    st.builds(Within, times, instants, st.none()) | st.builds(Within, times, st.none(), instants),
    st.builds(Comparison, st.just(Name("latency")), operators, latency),
    quantified("versions", version),
)
conditions = st.recursive(model_tests, joined, max_leaves=5)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(condition=conditions)
def test_random_conditions_select_what_plain_python_does(connection, condition):
    assert selected(connection, condition) == wanted(condition), to_text(condition)


@pytest.mark.parametrize(
    "text",
    [
        "auc > 0.85",
        "not auc > 0.85",
        "auc != 0.85",
        "not (auc > 0.85 or live)",
        "auc is missing",
        "rows < 0.5",
        "rows >= 1_099_511_627_776",
        "name like 'churn%'",
        "name ilike 'CHURN%'",
        "name not like '%-50\\%'",
        "name in ('churn', 'it''s')",
        "not name in ('churn', 'it''s')",
        "name > 'Z' and name < 'b'",
        "live = false",
        "stage != 'production'",
        "created_at within [2026-07-01, 2026-10-01)",
        "updated_at within [2026-07-01, )",
        "seen within [, 2026-07-01)",
        "stored_at within [2026-07-01, 2026-07-02)",
        "latency <= 0.02s",
        "metrics.f1 >= 0.5 and metrics.`val/f1` is missing",
        "some(versions, auc >= 0.85 and live)",
        "none(versions, some(deployments, live))",
        "count(versions, auc is present) > 1",
        "some(versions, count(siblings, live) >= 1 and not live)",
        "created_at = 2026-07-01",
    ],
)
def test_written_conditions_select_what_plain_python_does(connection, text):
    expected = wanted(parse(text))
    assert selected(connection, parse(text)) == expected
    assert 0 < len(expected) < len(MODEL_ROWS)


def test_conditions_on_one_relation_meet_in_one_member(connection):
    together = selected(connection, parse("some(versions, auc >= 0.85 and not live)"))
    apart = selected(connection, parse("some(versions, auc >= 0.85) and some(versions, not live)"))
    assert set(together) < set(apart)


def test_functions_of_the_schema(connection):
    expected = [row["id"] for row in MODEL_ROWS if row["name"] is not None and len(row["name"]) > 5]
    assert selected(connection, parse("long_name()")) == expected
    assert selected(connection, parse("not long_name()")) == [
        row["id"] for row in MODEL_ROWS if row["id"] not in expected
    ]


def test_a_plain_number_is_in_the_unit_of_the_column(connection):
    assert selected(connection, parse("latency <= 20")) == selected(connection, parse("latency <= 20ms"))


def test_the_result_is_never_null(connection):
    for text in (
        "auc > 1",
        "metrics.f1 > 1",
        "live",
        "name like 'x'",
        "auc > rows",
        "not auc > 1",
        "long_name()",
    ):
        found = connection.execute(sa.select(select(parse(text), SCHEMA)).select_from(MODELS)).scalars().all()
        assert {bool(value) for value in found} <= {True, False}
        assert None not in found, text


@pytest.mark.parametrize("layer", ["not {}", "({} and live)", "(live or {})", "not (live and {})"])
def test_the_deepest_conditions_run(connection, layer):
    text = "live"
    while True:
        try:
            parse(layer.format(text))
        except ParseError:
            break
        text = layer.format(text)
    assert len(text) > 15 * len(layer.format(""))
    assert selected(connection, parse(text)) == wanted(parse(text))


def test_relations_nest_five_deep_and_no_deeper(connection):
    deepest = "some(versions, some(siblings, none(siblings, some(siblings, count(siblings, live) > 0))))"
    assert selected(connection, parse(deepest)) == wanted(parse(deepest))
    with pytest.raises(Invalid, match="at most 5 relations"):
        select(parse(deepest.replace("live", "some(deployments)")), SCHEMA)


def test_the_widest_conditions_run(connection):
    wide = parse(" or ".join(f"auc > {index}" for index in range(200)))
    assert selected(connection, wide) == wanted(wide)
    listed = parse(f"rows in ({','.join(map(str, range(1_900)))})")
    assert selected(connection, listed) == wanted(listed)


def test_values_are_bound_and_never_written_into_the_statement(connection):
    evil = "'; DROP TABLE models; --"
    condition = AnyOf(
        (
            Comparison(Name("name"), Operator.EQ, Text(evil)),
            Match(Name("name"), evil),
            Match(Name("name"), evil, any_case=True),
            Membership(Name("name"), (Text(evil),)),
            Comparison(Name("auc"), Operator.GT, Number(123.5)),
            Within(Name("created_at"), Instant(START), None),
        )
    )
    compiled = select(condition, SCHEMA).compile(connection)
    for value in ("DROP", "123.5", "2026"):
        assert value not in str(compiled)
    assert evil in compiled.params.values()
    assert selected(connection, condition) == wanted(condition)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nmae = 'x'", "no field 'nmae' to search by. Did you mean 'name'"),
        ("some(version, live)", "no relation 'version' to search by. Did you mean 'versions'"),
        ("some(versions, acu > 1)", "no field 'acu' to search by. Did you mean 'auc'"),
        ("better_than(champion, auc)", "'better_than' has no meaning in a search"),
        ("lower(auc) > 1", "'lower' has no meaning in a search"),
        ("auc > 1 for 24h", "looks at one moment"),
        ("auc > 'x'", "auc is a number, so it cannot be compared with 'x'"),
        ("name = 5", "name is text"),
        ("name in ('a', 5)", "name is text"),
        ("live = 1", "live is a truth"),
        ("live > false", "has no order"),
        ("created_at > '2026-07-01'", "created_at is a time"),
        ("auc like 'x'", "auc is a number, and text is needed here"),
        ("auc within [2026-07-01,)", "auc is a number, and a time is needed here"),
        ("name", "name is text, and a truth is needed here"),
        ("auc = name", "name is text, and a number is needed here"),
        ("auc > latency", "different units"),
        ("auc > 20ms", "auc has no unit"),
        ("latency > 5%", "latency is stored in ms"),
        ("notes = 'x'", "notes is neither"),
        ("count(versions) > 1h", "has no unit"),
    ],
)
def test_what_has_no_meaning_is_refused(text, says):
    with pytest.raises(Invalid, match=says):
        select(parse(text), SCHEMA)


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_text_that_no_database_holds_is_refused(text):
    with pytest.raises(Invalid, match="NUL"):
        select(Comparison(Name("name"), Operator.EQ, Text(text)), SCHEMA)
    with pytest.raises(Invalid, match="NUL"):
        select(Match(Name("name"), text), SCHEMA)


@pytest.mark.parametrize("text", ["rows > 5", "auc >= 0.85", "name = 'churn'", "name > 'b'", "auc in (0.5, 0.9)"])
def test_an_index_serves_a_comparison(text):
    engine = sa.create_engine("sqlite://")
    with engine.connect() as opened:
        METADATA.create_all(opened)
        compiled = sa.select(MODELS.c.id).where(select(parse(text), SCHEMA)).compile(opened)
        values = tuple(compiled.params[name] for name in compiled.positiontup)
        plan = opened.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", values).all()
    engine.dispose()
    assert any("USING INDEX" in row[-1] or "USING COVERING INDEX" in row[-1] for row in plan), plan


def test_importing_the_language_does_not_load_sqlalchemy():
    import subprocess
    import sys

    script = "import sys, modelyard.criteria as c; c.parse('a > 1'); sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": "src"}, check=False).returncode == 0
