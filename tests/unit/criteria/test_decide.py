import json
import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest

from modelyard.criteria import (
    MappingFacts,
    Missing,
    Name,
    NotApplicable,
    Observation,
    Outcome,
    conjunction,
    decide,
    disjunction,
    parse,
)
from modelyard.errors import Invalid

T, F, U, NA = "true", "false", "unknown", "not_applicable"
NO_CHAMPION = NotApplicable("There is no champion yet.")


def members(*rows):
    return [MappingFacts(row) for row in rows]


FACTS = MappingFacts(
    {
        "t": True,
        "f": False,
        "u": None,
        "na": NO_CHAMPION,
        "roc_auc": Observation(0.86, interval=(0.84, 0.88), evidence={"n": 500}),
        "plain_auc": 0.86,
        "champion.roc_auc": NO_CHAMPION,
        "nan": math.nan,
        "text": "churn-eu",
        "number": 5,
        "error_rate": 0.02,
        "latency_p99": Observation(18, unit="ms"),
        "latency_s": Observation(0.018, unit="s"),
        "wait_ms": 18,
        "no_unit": 18,
        "traffic_pct": 10,
        "share": Observation(10, unit="%"),
        "cost": Observation(3, unit="USD"),
        "age": timedelta(hours=2),
        "started_at": datetime(2026, 7, 1, tzinfo=UTC),
        "naive": datetime(2026, 7, 1),  # noqa: DTZ001
    },
    functions={
        "better_than": lambda who, metric, min_gain=0.0: Observation(
            min_gain < 0.01, evidence={"who": who.path, "metric": metric.path, "min_gain": min_gain}
        ),
        "worse_than": lambda who, metric: NO_CHAMPION,
        "impact_ratio": lambda column: Observation(0.9, interval=(0.7, 1.1)),
        "refuse": lambda: (_ for _ in ()).throw(Invalid("no such column")),
        "score": lambda: 0.4,
    },
    history=lambda node, seconds: seconds <= 3_600,
    relations={
        "versions": members({"auc": 0.9, "live": True}, {"auc": 0.7, "live": False}, {"auc": None, "live": True}),
        "none_yet": [],
        "elsewhere": members({"auc": NO_CHAMPION}),
    },
)


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("t", T), ("f", F), ("u", U), ("na", NA), ("nowhere", U), ("number", U), ("nan", U),
        ("not t", F), ("not f", T), ("not u", U), ("not na", NA), ("not not t", T),
        ("t and u", U), ("f and u", F), ("t or u", T), ("f or u", U),
        ("t and na", T), ("f or na", F), ("u and na", U), ("na and na", NA), ("na or na", NA),
        ("not (t and u)", U), ("not (f and u)", T), ("not (t or u)", F), ("not (t and na)", F),
        ("not (na or f)", T), ("not (not f and not u)", U),
        ("roc_auc >= 0.85", T), ("roc_auc >= 86%", T), ("roc_auc > 0.86", F), ("roc_auc != 0.86", F),
        ("0.85 <= roc_auc", T), ("0.85 > roc_auc", F),
        ("lower(roc_auc) >= 0.85", F), ("upper(roc_auc) >= 0.85", T), ("lower(plain_auc) >= 0.1", U),
        ("lower(impact_ratio(sex)) >= 0.8", F), ("lower(roc_auc, plain_auc) > 0", U), ("lower(u) > 0", U),
        ("lower(na) > 0", NA), ("lower('x') > 0", U), ("upper() > 0", U),
        ("roc_auc >= champion.roc_auc", NA), ("champion.roc_auc < roc_auc", NA),
        ("u >= champion.roc_auc", NA),
        ("roc_auc >= plain_auc", T), ("roc_auc >= u", U), ("u >= roc_auc", U), ("roc_auc > nan", U),
        ("nan >= 0", U), ("nan != 0", U), ("not nan < 0", U), ("u != 0", U), ("not u > 0", U),
        ("text = 'churn-eu'", T), ("text > 'a'", T), ("text = 5", U), ("text != 5", U), ("number != 'x'", U),
        ("t = true", T), ("t != true", F), ("t >= false", U), ("t = 1", U), ("number = true", U),
        ("better_than(champion, roc_auc)", T), ("better_than(champion, roc_auc, min_gain=2%)", F),
        ("worse_than(champion, roc_auc)", NA), ("not worse_than(champion, roc_auc)", NA),
        ("better_than(champion)", U), ("better_then(champion, roc_auc)", U), ("refuse()", U), ("score()", U),
        ("score() < 0.5", T), ("t for 1h", T), ("t for 24h", F), ("not t for 24h", T),
        ("text like 'churn-%'", T), ("text like 'CHURN-%'", F), ("text ilike 'CHURN-%'", T),
        ("text not like 'x%'", T), ("number like '5'", U), ("u not like 'x'", U),
        ("text in ('a', 'churn-eu')", T), ("text not in ('a', 'b')", T), ("text in ('a', 5)", U),
        ("text in ('churn-eu', 5)", T), ("text not in ('a', 5)", U), ("u not in (1)", U), ("na in (1)", NA),
        ("number in (4, 5)", T), ("latency_p99 in (18ms, 0.5s)", T),
        ("u is missing", T), ("u is present", F), ("nan is missing", T), ("roc_auc is present", T),
        ("na is missing", NA), ("not u is missing", F), ("nowhere is missing", T),
        ("started_at within [2026-07-01, 2026-10-01)", T), ("started_at within [2026-06-01, 2026-07-01)", F),
        ("started_at within [, 2026-07-02)", T), ("number within [2026-07-01,)", U),
        ("naive > 2026-01-01", U), ("naive within [2026-01-01,)", U), ("started_at >= 2026-07-01", T),
    ],
)  # fmt: skip
def test_outcome(text, outcome):
    assert decide(parse(text), FACTS).outcome.value == outcome


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("latency_p99 <= 20ms", T), ("latency_p99 <= 0.02s", T), ("latency_p99 <= 17ms", F),
        ("latency_p99 = 18ms", T), ("latency_p99 <= 20", U), ("latency_s <= 20ms", T),
        ("latency_s <= 0.02", T),
        ("wait_ms <= 20", T), ("wait_ms <= 20ms", T), ("wait_ms <= 0.01s", F),
        ("no_unit <= 20ms", U), ("no_unit <= 20", T), ("latency_p99 <= 20%", U), ("latency_p99 <= 1k", U),
        ("latency_p99 >= latency_s", T), ("latency_p99 > latency_s", F), ("latency_p99 > no_unit", U),
        ("error_rate > 1%", T), ("error_rate > 0.01", T), ("error_rate <= 2%", T),
        ("traffic_pct <= 10%", T), ("traffic_pct > 9", T), ("share <= 10%", T), ("share <= 10", U),
        ("share = error_rate", F), ("error_rate < share", T), ("traffic_pct = share", T),
        ("cost < 5", T), ("cost < 5%", U), ("cost < 5s", U), ("cost < 1k", T), ("cost < number", U),
        ("age > 1h", T), ("age > 3h", F), ("age < 1d", T), ("age = 7200s", T),
    ],
)  # fmt: skip
def test_units(text, outcome):
    assert decide(parse(text), FACTS).outcome.value == outcome


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("some(versions, auc > 0.8)", T),
        ("some(versions, auc > 0.95)", U),
        ("some(versions, auc > 0.8 and live)", T),
        ("some(versions, auc < 0.8 and live)", U),
        ("some(versions, live and not live)", F),
        ("none(versions, auc > 0.8)", F),
        ("none(versions, auc > 0.95)", U),
        ("none(none_yet)", T),
        ("some(none_yet, auc > 0)", F),
        ("some(versions)", T),
        ("count(versions) = 3", T),
        ("count(versions, live) = 2", T),
        ("count(versions, auc > 0.8) = 1", U),
        ("count(none_yet) < 1", T),
        ("some(elsewhere, auc > 1)", NA),
        ("none(nowhere)", U),
        ("count(nowhere) < 1", U),
    ],
)
def test_relations(text, outcome):
    assert decide(parse(text), FACTS).outcome.value == outcome


def test_facts_without_relations_leave_them_unknown():
    class Few:
        def value(self, path):
            return Observation(1)

        def call(self, name, args, kwargs):
            return Missing("no functions")

        def held(self, node, seconds):
            return Missing("no history")

    assert decide(parse("some(versions)"), Few()).outcome is Outcome.UNKNOWN
    assert decide(parse("x = 1"), Few()).outcome is Outcome.TRUE


def test_a_clause_reports_value_limit_interval_evidence_and_reason():
    (clause,) = decide(parse("roc_auc >= 87%"), FACTS).clauses
    assert clause.to_json() == {
        "text": "roc_auc >= 87%",
        "outcome": "false",
        "reason": "roc_auc is 0.86 (interval 0.84 to 0.88); not >= 0.87.",
        "observed": 0.86,
        "limit": 0.87,
        "interval": [0.84, 0.88],
        "unit": None,
        "evidence": {"n": 500},
    }


def test_a_limit_is_reported_in_the_unit_of_the_observation():
    (clause,) = decide(parse("latency_p99 <= 0.02s"), FACTS).clauses
    assert (clause.observed, clause.limit, clause.unit) == (18, 20, "ms")
    assert clause.reason == "latency_p99 is 18 ms; <= 20 ms."


def test_a_clause_under_a_negation_is_reported_as_it_counts():
    verdict = decide(parse("not (f or number > 9)"), FACTS)
    assert [(clause.text, clause.outcome.value) for clause in verdict.clauses] == [
        ("not f", T),
        ("not number > 9", T),
    ]
    assert verdict.holds


def test_what_does_not_apply_is_left_out_and_said_so():
    verdict = decide(parse("roc_auc >= 0.85 and worse_than(champion, roc_auc)"), FACTS)
    assert verdict.outcome is Outcome.TRUE
    assert [(clause.outcome.value, clause.reason) for clause in verdict.clauses][1] == (
        NA,
        "There is no champion yet.",
    )


def test_missing_data_never_passes_and_names_the_likely_fact():
    verdict = decide(parse("roc_uac >= 0"), FACTS)
    assert (verdict.passed, verdict.holds) == (False, False)
    assert verdict.clauses[0].reason == "There is no fact 'roc_uac'. Did you mean 'roc_auc'?"
    assert verdict.clauses[0].limit == 0


def test_a_gate_passes_and_a_trigger_does_not_when_nothing_applies():
    verdict = decide(parse("better_than_nothing or na and na"), MappingFacts({"na": NO_CHAMPION}, functions={}))
    assert verdict.outcome is Outcome.UNKNOWN
    verdict = decide(parse("na"), FACTS)
    assert (verdict.passed, verdict.holds) == (True, False)


def test_a_verdict_has_no_truth_of_its_own():
    with pytest.raises(TypeError, match="holds"):
        bool(decide(parse("t"), FACTS))


def test_every_clause_is_decided_even_when_the_outcome_is_settled():
    assert len(decide(parse("f and t and u"), FACTS).clauses) == 3


def test_a_verdict_is_json_even_where_numbers_are_not_finite():
    facts = MappingFacts({"x": Observation(math.inf, interval=(0, math.inf)), "at": datetime(2026, 7, 1, tzinfo=UTC)})
    verdict = decide(parse("x > 1 and at > 2026-01-01 and x in (1, 2) and nan > 1"), facts)
    written = json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    assert written["clauses"][0]["observed"] is None
    assert written["clauses"][1]["limit"] == "2026-01-01T00:00:00+00:00"
    assert written["clauses"][2]["limit"] == [1, 2]


def test_functions_get_names_as_names_and_values_in_base_units():
    seen = []

    def record(*args, **kwargs):
        seen.append((args, kwargs))
        return True

    decide(
        parse("record(champion, 20ms, 'x', true, within_last=24h, gain=1%)"),
        MappingFacts({}, functions={"record": record}),
    )
    assert seen == [((Name("champion"), 0.02, "x", True), {"gain": 0.01, "within_last": 86_400})]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.float64(0.5), 0.5),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (Decimal("0.5"), 0.5),
        (np.str_("x"), "x"),
    ],
)
def test_foreign_scalars_become_plain_ones(given, expected):
    value = Observation(given).value
    assert value == expected
    assert type(value) is type(expected)


def test_what_cannot_be_observed_is_refused():
    with pytest.raises(Invalid, match="not a list"):
        Observation([1])


def test_combining_outcomes_of_nothing_is_not_applicable():
    assert conjunction([]) is disjunction([]) is Outcome.NOT_APPLICABLE
