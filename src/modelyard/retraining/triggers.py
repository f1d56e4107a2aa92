"""Whether a trigger starts a training now: pure, on the injected clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from modelyard.criteria import Facts, Missing, Observation
from modelyard.criteria.facts import Answer, Argument
from modelyard.retraining.model import Retrain, TriggerDecision, TriggerSource, duration

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class History:
    """What a model's trainings were lately.

    Attributes:
        started: Times of the starts of the last 24 hours and of the last one before, oldest first.
        concluded: When the last release ended, or None.
        running: Release that trains or moves traffic now, or None; one that waits for approval is none.
    """

    started: tuple[datetime, ...] = ()
    concluded: datetime | None = None
    running: str | None = None


def judge_trigger(policy: Retrain, history: History, *, source: TriggerSource, now: datetime) -> TriggerDecision:
    """Decide on a trigger.

    A person's own request is held up only by a release that runs. Everything else is debounced and kept within
    the daily budget; alerts and conditions also wait for the cool-down after the last release.

    Args:
        policy: What the recipe says.
        history: What was.
        source: Who asks.
        now: By the injected clock.
    """
    if source == "manual":
        if history.running is not None:
            return TriggerDecision("dropped", f"Release {history.running} of this model is running.")
        return TriggerDecision("started", "Asked for by hand.")
    debounce = duration(policy.debounce)
    if history.started and now - history.started[-1] < debounce:
        at = history.started[-1]
        return TriggerDecision(
            "dropped", f"Covered by the training of {at:%Y-%m-%d %H:%M} (debounce {policy.debounce})."
        )
    held_up = _held_up(policy, history, source=source, now=now)
    return held_up or TriggerDecision("started", "Nothing stands against it.")


def _held_up(policy: Retrain, history: History, *, source: TriggerSource, now: datetime) -> TriggerDecision | None:
    if history.running is not None:
        reason = f"Release {history.running} of this model is running."
        return TriggerDecision("deferred", reason, now + duration(policy.debounce))
    if source != "schedule" and history.concluded is not None:
        warm = history.concluded + duration(policy.cooldown)
        if now < warm:
            return TriggerDecision("deferred", f"The last release ended less than {policy.cooldown} ago.", warm)
    today = [at for at in history.started if now - at < _DAY]
    if len(today) >= policy.max_runs_per_day:
        reason = f"{len(today)} trainings were started within 24 hours, as many as are allowed."
        return TriggerDecision("deferred", reason, today[-policy.max_runs_per_day] + _DAY)
    return None


class TriggerFacts:
    """Facts of conditions: the number of new rows, and what monitoring knows.

    Args:
        new_rows: Rows that the last training has not seen; None if there was none or they cannot be counted.
        monitored: What monitoring knows about the endpoint; None without monitoring.
    """

    def __init__(self, *, new_rows: int | None, monitored: Facts | None) -> None:
        self._new_rows = new_rows
        self._monitored = monitored

    def value(self, path: str) -> Answer:
        """Return the number of new rows, or what monitoring says."""
        if path == "new_rows":
            if self._new_rows is None:
                return Missing("there is no earlier training whose rows could be counted")
            return Observation(self._new_rows)
        return Missing(f"nothing watches {path}") if self._monitored is None else self._monitored.value(path)

    def call(self, name: str, args: tuple[Argument, ...], kwargs: Mapping[str, Argument]) -> Answer:
        """Ask monitoring."""
        if self._monitored is None:
            return Missing(f"nothing watches {name}")
        return self._monitored.call(name, args, kwargs)

    def held(self, node: object, seconds: float) -> Answer:
        """Ask monitoring for how long a condition has been true."""
        if self._monitored is None:
            return Missing("nothing watches this model")
        return self._monitored.held(node, seconds)  # type: ignore[arg-type]  # the node of our own condition
