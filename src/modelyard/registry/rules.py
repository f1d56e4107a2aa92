"""Promotion rules: a condition of the criteria language on the metrics of a version."""

from __future__ import annotations

from modelyard import criteria
from modelyard.errors import Invalid
from modelyard.registry.model import PromotionCheck, Version

CHAMPION = "champion."
_BOUNDS = {"lower", "upper"}


def checked_rule(text: str) -> criteria.Condition:
    """Parse a rule.

    Raises:
        ParseError: If the text is not a condition.
        Invalid: If it calls a function: tests on data are gates, which evaluation decides.
    """
    condition = criteria.parse(text)
    called = sorted(criteria.functions(condition) - _BOUNDS)
    if called:
        raise Invalid(
            f"A promotion rule compares recorded metrics and calls no {called[0]}(…). Use it as a gate.",
            function=called[0],
        )
    return condition


def check_rule(text: str, version: Version, champion: Version | None) -> PromotionCheck:
    """Decide a rule for a version.

    The rule sees each metric by its name, tags as ``tags.<key>``, and each metric of the version in production
    as ``champion.<name>``; without one, or for the champion itself, such clauses are not applicable.
    """
    condition = checked_rule(text)
    values: dict[str, object] = dict(version.metrics)
    values |= {f"tags.{key}": value for key, value in version.tags.items()}
    rival = None if champion is None or champion.number == version.number else champion
    if rival is not None:
        values |= {CHAMPION + key: value for key, value in rival.metrics.items()}
    else:
        absent = criteria.NotApplicable("No other version is in production.")
        values |= {name: absent for name in criteria.names(condition) if name.startswith(CHAMPION)}
    verdict = criteria.decide(condition, criteria.MappingFacts(values))
    return PromotionCheck(text, verdict.passed, verdict.to_json())
