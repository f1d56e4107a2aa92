"""Every way of changing the log is found, and named by its first bad row."""

import hashlib
import json
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from modelyard.errors import Invalid
from modelyard.events import Event, EventLog
from modelyard.events.audit import append_checkpoint, make_checkpoint, read_checkpoints, verify
from modelyard.events.log import GENESIS, row_hash
from modelyard.events.store import chains, events

AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def log(database):
    log = EventLog(database)
    for number in range(1, 11):
        with database.transaction() as tx:
            log.record(tx, Event("thing.made", f"thing:{number}", "ada", AT, data={"n": number}))
    return log


def _update(database, seq, **values):
    with database.transaction() as tx:
        tx.execute(sa.update(events).where(events.c.seq == seq).values(**values))


def test_an_untouched_log_is_intact(log, database, tmp_path):
    key, file = tmp_path / "keys" / "audit.pem", tmp_path / "checkpoints.jsonl"
    append_checkpoint(file, make_checkpoint(database, key, at=AT))
    result = verify(database, checkpoints=read_checkpoints(file))
    assert (result.intact, result.rows, result.checkpoints) == (True, 10, 1)
    assert key.stat().st_mode & 0o077 == 0


def test_a_flipped_field_names_its_row(log, database):
    _update(database, 4, actor="eve")
    result = verify(database)
    assert (result.first_bad, result.rows) == (4, 3)
    assert "changed" in result.reason


def test_a_deleted_row_is_named(log, database):
    with database.transaction() as tx:
        tx.execute(sa.delete(events).where(events.c.seq == 6))
    assert verify(database).first_bad == 6


def test_swapped_rows_are_named(log, database):
    with database.transaction() as tx:
        for old, new in ((3, 99), (4, 3), (99, 4)):
            tx.execute(sa.update(events).where(events.c.seq == old).values(seq=new))
    assert verify(database).first_bad == 3


def test_a_truncated_log_is_found_by_its_head(log, database):
    with database.transaction() as tx:
        tx.execute(sa.delete(events).where(events.c.seq > 7))
    assert verify(database).first_bad == 8


def test_a_log_cut_with_its_head_is_found_by_a_checkpoint_only(log, database, tmp_path):
    kept = make_checkpoint(database, tmp_path / "key.pem", at=AT)
    with database.transaction() as tx:
        tx.execute(sa.delete(events).where(events.c.seq > 7))
        last = tx.execute(sa.select(events.c.hash).where(events.c.seq == 7)).scalar_one()
        tx.execute(sa.update(chains).values(seq=7, hash=last))
    assert verify(database).intact
    result = verify(database, checkpoints=(kept,))
    assert not result.intact
    assert "only 7 are left" in result.reason


def test_a_log_written_anew_is_found_by_a_checkpoint_only(log, database, tmp_path):
    kept = make_checkpoint(database, tmp_path / "key.pem", at=AT)
    with database.transaction() as tx:
        head = GENESIS
        for row in tx.execute(sa.select(events).order_by(events.c.seq)).mappings().all():
            forged = {**row, "actor": "eve", "previous_hash": head}
            head = forged["hash"] = row_hash(forged)
            tx.execute(sa.update(events).where(events.c.seq == row["seq"]).values(**forged))
        tx.execute(sa.update(chains).values(hash=head))
    assert verify(database).intact
    assert verify(database, checkpoints=(kept,)).first_bad == 1


def test_a_forged_checkpoint_is_refused(log, database, tmp_path):
    kept = make_checkpoint(database, tmp_path / "key.pem", at=AT)
    other = make_checkpoint(database, tmp_path / "other.pem", at=AT)
    fields = {name: getattr(kept, name) for name in kept.__slots__}
    forged = type(kept)(**{**fields, "size": 9})
    assert "wrong signature" in verify(database, checkpoints=(forged,)).reason
    assert "another key" in verify(database, checkpoints=(other,), trusted_key=kept.public_key).reason


def test_a_damaged_checkpoint_file_is_named(tmp_path):
    file = tmp_path / "checkpoints.jsonl"
    file.write_text(json.dumps({"chain": "main"}) + "\n")
    with pytest.raises(Invalid, match="Line 1"):
        read_checkpoints(file)


def test_hash_of_a_row_is_the_documented_one(log, database):
    with database.reading() as connection:
        row = dict(connection.execute(sa.select(events).where(events.c.seq == 1)).mappings().one())
    body = '{"after":null,"before":null,"data":{"n":1}}'
    text = json.dumps(
        {
            "actor": "ada",
            "at": AT.isoformat(),
            "body": body,
            "chain": "main",
            "kind": "thing.made",
            "previous_hash": GENESIS,
            "project": "default",
            "recorded_at": row["recorded_at"].isoformat(),
            "seq": 1,
            "subject": "thing:1",
        },
        sort_keys=True,
        separators=(",", ":"),
    )
    assert row["hash"] == hashlib.sha256(text.encode()).hexdigest()
