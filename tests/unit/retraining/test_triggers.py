"""Decisions on triggers, and the policy that they follow."""

from datetime import UTC, datetime, timedelta

import pytest

from modelyard.criteria import ParseError
from modelyard.errors import Invalid
from modelyard.retraining import ApprovalRule, Recipe, Retrain
from modelyard.retraining.model import duration
from modelyard.retraining.split import unseen_by
from modelyard.retraining.triggers import History, judge_trigger
from modelyard.tracking.sources import Parquet

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def _answer(history, *, source="alert", **policy):
    decision = judge_trigger(Retrain(**policy), history, source=source, now=NOW)
    return decision.answer, decision.due_at


def test_nothing_before_starts():
    assert _answer(History()) == ("started", None)


def test_debounce_drops_what_the_last_start_covers():
    assert _answer(History(started=(NOW - 5 * HOUR,))) == ("dropped", None)
    assert _answer(History(started=(NOW - 6 * HOUR,))) == ("started", None)
    assert _answer(History(started=(NOW - HOUR,)), source="manual") == ("started", None)


def test_cool_down_holds_alerts_up_but_not_the_schedule():
    history = History(started=(NOW - 30 * HOUR,), concluded=NOW - 20 * HOUR)
    assert _answer(history) == ("deferred", NOW + 4 * HOUR)
    assert _answer(history, source="condition") == ("deferred", NOW + 4 * HOUR)
    assert _answer(history, source="schedule") == ("started", None)
    assert _answer(history, source="manual") == ("started", None)
    assert _answer(history, cooldown="20h") == ("started", None)


def test_budget_counts_any_24_hours():
    starts = tuple(NOW - hours * HOUR for hours in (25, 20, 14, 8))
    policy = {"source": "schedule", "debounce": "1h"}
    assert _answer(History(started=starts), max_runs_per_day=4, **policy) == ("started", None)
    assert _answer(History(started=starts), max_runs_per_day=3, **policy) == ("deferred", NOW + 4 * HOUR)
    assert _answer(History(started=starts), max_runs_per_day=1, **policy) == ("deferred", NOW + 16 * HOUR)
    assert _answer(History(started=starts), max_runs_per_day=1, source="manual") == ("started", None)


def test_one_release_at_a_time():
    history = History(started=(NOW - 9 * HOUR,), running="release-1")
    assert _answer(history) == ("deferred", NOW + 6 * HOUR)
    assert _answer(history, source="manual") == ("dropped", None)


def test_alerts_and_conditions_are_told_apart():
    policy = Retrain(when=["drift", "roc_auc<0.82", "drift and new_rows >= 10_000"])
    assert policy.alerts == {"drift"}
    assert [text for text, _ in policy.conditions] == ["roc_auc < 0.82", "drift and new_rows >= 10000"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"when": "drift"},
        {"when": ["drfit"]},
        {"when": ["roc_auc <"]},
        {"every": "sometimes"},
        {"debounce": "soon"},
        {"debounce": "0h"},
        {"window": "90"},
        {"max_runs_per_day": 0},
    ],
)
def test_a_wrong_policy_is_refused(wrong):
    with pytest.raises((Invalid, ParseError)):
        Retrain(**wrong)


def test_recipes_survive_json():
    recipe = Recipe(
        "churn",
        "churn-eu",
        "0" * 64,
        "churn:train",
        Parquet("data/*.parquet", label="left"),
        "ada",
        gates=("roc_auc >= 0.8",),
        approvals=(ApprovalRule("risk", count=2, timeout=None),),
        rollout={"steps": [5, 100]},
        retrain=Retrain(when=["drift", "new_rows >= 10"], every="0 3 * * 1", window="90d"),
        task="binary",
        seed=7,
    )
    assert Recipe.from_json(recipe.to_json()) == recipe
    with pytest.raises(Invalid, match="Did you mean 'debounce'"):
        Recipe.from_json({**recipe.to_json(), "retrain": {"debonce": "6h"}})
    with pytest.raises(Invalid, match="Did you mean 'approvals'"):
        Recipe.from_json({**recipe.to_json(), "aprovals": []})


@pytest.mark.parametrize(("text", "hours"), [("36h", 36), ("90 m", 1.5), ("2d", 48), ("90min", 1.5)])
def test_durations(text, hours):
    assert duration(text) == timedelta(hours=hours)


def test_what_a_champion_has_seen_follows_from_its_lineage():
    by_time = {"by": "time", "column": "at"}
    seen = {"split": by_time, "trained_until": "2026-01-01T00:00:00+00:00"}
    assert unseen_by(seen, by_time) == {"column": "at", "after": seen["trained_until"]}
    assert unseen_by({}, by_time) is None
    assert unseen_by(seen, {"by": "time", "column": "other"}) is None
    by_hash = {"by": "hash", "columns": ["id"], "share": 0.1}
    assert unseen_by({"split": {**by_hash, "share": 0.2}}, by_hash) == {}
    assert unseen_by({"split": {**by_hash, "share": 0.05}}, by_hash) is None
    assert unseen_by({"split": {**by_hash, "columns": ["key"]}}, by_hash) is None
