"""Gates decide on what was measured; missing evidence is never a pass."""

import pytest

from modelyard.errors import Invalid
from modelyard.retraining.gates import judge, parse_gates, requested

RESULT = {
    "task": "binary",
    "rows": {"train": 800, "holdout": 200},
    "metrics": {
        "roc_auc": {"value": 0.86, "low": 0.83, "high": 0.89},
        "pr_auc": {"value": None, "reason": "one class only"},
    },
    "latency": {"p50_ms": 0.1, "p95_ms": 0.2, "p99_ms": 4.0, "calls": 1000, "machine": {}},
    "comparisons": {},
}


def _judge(*texts, has_champion=False, comparisons=None):
    return judge(parse_gates(texts), {**RESULT, "comparisons": comparisons or {}}, has_champion=has_champion)


def test_metrics_latency_and_rows_are_facts():
    assert _judge("roc_auc >= 0.85", "latency_p99 <= 20ms", "rows > 500").passed
    report = _judge("roc_auc >= 0.85", "lower(roc_auc) >= 0.85")
    assert not report.passed
    assert "lower(roc_auc)" in report.reason


def test_a_metric_that_could_not_be_measured_does_not_pass():
    report = _judge("pr_auc >= 0.1")
    assert not report.passed
    assert "one class only" in report.reason


def test_no_champion_leaves_the_comparison_out():
    report = _judge("roc_auc >= 0.85", "better_than(champion, roc_auc)")
    assert report.passed
    assert report.gates[1]["outcome"] == "not_applicable"


@pytest.mark.parametrize(("verdict", "passed"), [("promote", True), ("reject", False), ("inconclusive", False)])
def test_better_than_follows_the_paired_test(verdict, passed):
    text = "better_than(champion, roc_auc, min_gain=0.2%)"
    (key,) = requested(parse_gates([text]))
    assert requested(parse_gates([text]))[key]["options"] == {"min_gain": 0.002}
    found = {key: {"verdict": verdict, "reason": "because"}}
    assert _judge(text, has_champion=True, comparisons=found).passed is passed
    assert not _judge(text, has_champion=True).passed


@pytest.mark.parametrize(("verdict", "passed"), [("not_worse", True), ("worse", False), ("inconclusive", False)])
def test_not_worse_needs_every_slice(verdict, passed):
    text = "not_worse(champion, roc_auc, margin=0.01)"
    (key,) = requested(parse_gates([text]))
    good = {"verdict": "not_worse", "reason": ""}
    found = {key: {"slices": {"a": good, "b": {"verdict": verdict, "reason": "because"}}}}
    assert _judge(text, has_champion=True, comparisons=found).passed is passed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("roc_uac >= 0.8", "roc_auc"),
        ("better_tan(champion, roc_auc)", "better_than"),
        ("better_than(champion, roc_auc, mingain=1)", "min_gain"),
        ("better_than(roc_auc)", "takes champion and a metric"),
        ("not_worse(champion, roc_auc)", "margin"),
    ],
)
def test_mistakes_are_named_before_anything_runs(text, message):
    with pytest.raises(Invalid, match=message):
        parse_gates([text])
