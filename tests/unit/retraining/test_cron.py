"""Schedules mean what cron means by them."""

from datetime import UTC, datetime, timedelta

import pytest

from modelyard.errors import Invalid
from modelyard.retraining.cron import Schedule

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)  # a Thursday


def moments(text, *, days=40):
    """Every moment of a schedule after the new year, by asking backwards."""
    schedule, until, found = Schedule.parse(text), NEW_YEAR + timedelta(days=days), []
    while (moment := schedule.latest(NEW_YEAR, until)) is not None:
        found.append(moment)
        until = moment - timedelta(microseconds=1)
    return [f"{moment:%m-%d %H:%M}" for moment in reversed(found)]


@pytest.mark.parametrize(
    ("text", "days", "expected"),
    [
        ("monthly", 40, ["02-01 00:00"]),
        ("weekly", 14, ["01-05 00:00", "01-12 00:00"]),
        ("daily", 2, ["01-02 00:00", "01-03 00:00"]),
        ("0 3 * * 1", 14, ["01-05 03:00", "01-12 03:00"]),
        ("30 6 2 * *", 10, ["01-02 06:30"]),
        ("0 0 * * sun", 14, ["01-04 00:00", "01-11 00:00"]),
        ("0 0 * * 7", 7, ["01-04 00:00"]),
        ("0 0 * * fri-sat", 7, ["01-02 00:00", "01-03 00:00"]),
        ("0 */8 * * *", 1, ["01-01 08:00", "01-01 16:00", "01-02 00:00"]),
        ("15,45 9 2-3 jan *", 9, ["01-02 09:15", "01-02 09:45", "01-03 09:15", "01-03 09:45"]),
        ("0 0 1-20/7 * *", 30, ["01-08 00:00", "01-15 00:00"]),
        # Both day fields restricted: either one is enough.
        ("0 0 3 * mon", 9, ["01-03 00:00", "01-05 00:00"]),
        # A step over all days is no restriction.
        ("0 0 */2 * mon", 12, ["01-05 00:00"]),
    ],
)
def test_moments(text, days, expected):
    assert moments(text, days=days) == expected


def test_rare_days_are_found():
    leap = Schedule.parse("0 12 29 2 *")
    assert leap.latest(NEW_YEAR, datetime(2029, 1, 1, tzinfo=UTC)) == datetime(2028, 2, 29, 12, tzinfo=UTC)
    assert leap.latest(NEW_YEAR, datetime(2028, 2, 29, 11, tzinfo=UTC)) is None


def test_the_start_is_excluded_and_the_end_included():
    daily = Schedule.parse("daily")
    assert daily.latest(NEW_YEAR, NEW_YEAR) is None
    assert daily.latest(NEW_YEAR - timedelta(microseconds=1), NEW_YEAR) == NEW_YEAR


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sometimes",
        "* * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "5-1 * * * *",
        "*/0 * * * *",
        "0 0 31 2 *",
        "0 0 1 jam *",
    ],
)
def test_nonsense_is_refused(text):
    with pytest.raises(Invalid):
        Schedule.parse(text)
