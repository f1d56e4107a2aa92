"""Schedules: a few words, or the five fields of cron, in UTC.

A day matches as in POSIX cron: when both day fields are restricted, either one is enough. Nothing here waits;
a schedule only says which minutes belong to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from modelyard.errors import Invalid

_WORDS = {"hourly": "0 * * * *", "daily": "0 0 * * *", "weekly": "0 0 * * 1", "monthly": "0 0 1 * *"}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
# Every pattern that has a day at all has one in the 8 years around a century's missing 29 February.
_LOOK_BACK_DAYS = 8 * 366 + 1


@dataclass(frozen=True, slots=True)
class Schedule:
    """The minutes at which something happens.

    Attributes:
        text: As it was written.
        either_day: Whether the day of the month or the weekday is enough.
    """

    text: str
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Read ``hourly``, ``daily``, ``weekly`` (Monday), ``monthly`` (the 1st), or minute, hour, day, month, weekday.

        Fields take ``*``, numbers, ranges, lists and steps; months and weekdays also English names of three
        letters; Sunday is 0 or 7.

        Raises:
            Invalid: If it is neither, or no day fits it.
        """
        fields = _WORDS.get(text.strip().lower(), text).lower().split()
        if len(fields) != 5:
            raise Invalid(
                f"{text!r} is no schedule; expected {', '.join(_WORDS)}, or five cron fields such as '0 3 * * 1'."
            )
        minute, hour, day, month, weekday = fields
        weekdays = frozenset(value % 7 for value in _values(weekday, 0, 7, names=_DAYS))
        schedule = cls(
            text=text,
            minutes=_values(minute, 0, 59),
            hours=_values(hour, 0, 23),
            days=_values(day, 1, 31),
            months=_values(month, 1, 12, names=_MONTHS, first=1),
            weekdays=weekdays,
            either_day=not day.startswith("*") and not weekday.startswith("*"),
        )
        start = datetime(2000, 1, 1, tzinfo=UTC)
        if schedule.latest(start, start + timedelta(days=_LOOK_BACK_DAYS)) is None:
            raise Invalid(f"The schedule {text!r} has no day in any year.")
        return schedule

    def latest(self, after: datetime, until: datetime) -> datetime | None:
        """Return the last moment of the schedule in ``(after, until]``, or None.

        Args:
            after: Aware; excluded.
            until: Aware; included.
        """
        end = until.astimezone(UTC)
        day = end.date()
        first = max(after.astimezone(UTC).date(), day - timedelta(days=_LOOK_BACK_DAYS))
        while day >= first:
            if self._on(day):
                for hour in sorted(self.hours, reverse=True):
                    for minute in sorted(self.minutes, reverse=True):
                        moment = datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC)
                        if moment <= end:
                            return moment if moment > after else None
            day -= timedelta(days=1)
        return None

    def _on(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        of_month, of_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return of_month or of_week if self.either_day else of_month and of_week


def _values(field: str, low: int, high: int, *, names: tuple[str, ...] = (), first: int = 0) -> frozenset[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        start, dash, stop = span.partition("-")
        if span == "*":
            lowest, highest = low, high
        else:
            lowest = _number(start, names, first)
            highest = _number(stop, names, first) if dash else high if step else lowest
        width = _number(step, (), 0) if "/" in part else 1
        if not low <= lowest <= highest <= high or width < 1:
            raise Invalid(f"{part!r} does not fit in a schedule: expected {low} to {high}.")
        found.update(range(lowest, highest + 1, width))
    return frozenset(found)


def _number(text: str, names: tuple[str, ...], first: int) -> int:
    if text in names:
        return names.index(text) + first
    if not text.isascii() or not text.isdigit():
        raise Invalid(f"{text!r} in a schedule is neither a number nor a known name.")
    return int(text)
