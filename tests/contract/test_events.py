"""The event log keeps its promises on both databases."""

import threading
from datetime import UTC, datetime

import pytest

from modelyard.events import Event, EventLog
from modelyard.events.log import GENESIS

AT = datetime(2013, 4, 1, 12, tzinfo=UTC)


def _event(number, **changes):
    return Event(kind="thing.made", subject=f"thing:{number}", actor="ada", at=AT, **changes)


def test_event_commits_with_its_change_or_not_at_all(database):
    log = EventLog(database)
    with pytest.raises(RuntimeError), database.transaction() as tx:
        log.record(tx, _event(1))
        raise RuntimeError
    assert log.read() == []
    with database.transaction() as tx:
        log.record(tx, _event(1, after={"rate": 0.1}, data={"why": "ü"}))
    (row,) = log.read()
    assert row.seq == 1
    assert row.previous_hash == GENESIS
    assert row.event.after == {"rate": "0.1"}
    assert row.event.at == AT


def test_concurrent_writers_leave_no_gap_and_link_every_row(database):
    log = EventLog(database)
    with database.transaction() as tx:
        log.record(tx, _event(0))

    def work(base):
        for number in range(10):
            with database.transaction() as tx:
                log.record(tx, _event(base + number))

    threads = [threading.Thread(target=work, args=(100 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = log.read()
    assert [row.seq for row in rows] == list(range(1, 42))
    for before, after in zip(rows, rows[1:], strict=False):
        assert after.previous_hash == before.hash


def test_cursor_moves_with_the_subscribers_own_transaction(database):
    log = EventLog(database)
    assert log.cursor("webhooks") == 0
    with database.transaction() as tx:
        log.advance(tx, "webhooks", seq=3)
    with database.transaction() as tx:
        log.advance(tx, "webhooks", seq=7)
    assert log.cursor("webhooks") == 7
