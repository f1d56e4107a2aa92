"""A backup is consistent, complete and checked on its way back."""

import tarfile
import threading
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from modelyard.errors import Conflict, Invalid, NotFound
from modelyard.events import Event, EventLog
from modelyard.events.audit import verify
from modelyard.storage import Database
from modelyard.storage.backup import backup, restore
from modelyard.storage.objects import ObjectStore
from modelyard.storage.schema import open_schema

AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def home(tmp_path):
    home = tmp_path / "home"
    database = Database.at(home / "modelyard.db")
    open_schema(database)
    log = EventLog(database)
    for number in range(5):
        with database.transaction() as tx:
            log.record(tx, Event("thing.made", f"thing:{number}", "ada", AT))
    ObjectStore.at(home / "objects").put(b"model bytes")
    (home / "logs").mkdir()
    (home / "logs" / "control.log").write_text("not part of the state")
    database.close()
    return home


def test_what_was_backed_up_comes_back(home, tmp_path):
    report = backup(home, tmp_path / "b.tar")
    assert restore(tmp_path / "b.tar", tmp_path / "new") == report
    database = Database.at(tmp_path / "new" / "modelyard.db")
    assert verify(database).rows == 5
    assert list(ObjectStore.at(tmp_path / "new" / "objects").digests())
    assert not (tmp_path / "new" / "logs").exists()
    database.close()


def test_a_backup_under_writes_is_one_moment(home, tmp_path):
    database = Database.at(home / "modelyard.db")
    log, objects = EventLog(database), ObjectStore.at(home / "objects")
    stop, written = threading.Event(), threading.Event()

    def write():
        number = 0
        while not stop.is_set():
            number += 1
            digest = objects.put(f"content {number}".encode())
            with database.transaction() as tx:
                log.record(tx, Event("object.put", f"object:{digest}", "ada", AT))
            written.set()

    thread = threading.Thread(target=write)
    thread.start()
    assert written.wait(20)
    backup(home, tmp_path / "b.tar")
    stop.set()
    thread.join()
    database.close()
    restore(tmp_path / "b.tar", tmp_path / "new")
    copied = Database.at(tmp_path / "new" / "modelyard.db")
    assert verify(copied).intact
    store = ObjectStore.at(tmp_path / "new" / "objects")
    named = [row.event.subject for row in EventLog(copied).read(kinds=["object.put"], limit=100_000)]
    assert named
    for subject in named:
        assert store.exists(subject.removeprefix("object:"))
    copied.close()


def test_a_damaged_backup_is_refused_and_leaves_nothing(home, tmp_path):
    backup(home, tmp_path / "b.tar")
    content = bytearray((tmp_path / "b.tar").read_bytes())
    place = content.index(b"model bytes")
    content[place] ^= 1
    (tmp_path / "flipped.tar").write_bytes(bytes(content))
    (tmp_path / "cut.tar").write_bytes(bytes(content[: len(content) // 2]))
    for name in ("flipped.tar", "cut.tar"):
        with pytest.raises(Invalid):
            restore(tmp_path / name, tmp_path / "new")
        assert not (tmp_path / "new").exists()


def test_a_backup_cannot_write_outside(tmp_path):
    with tarfile.open(tmp_path / "evil.tar", "w"):
        pass
    with pytest.raises(Invalid, match="not a complete backup"):
        restore(tmp_path / "evil.tar", tmp_path / "new")


def test_nothing_is_overwritten(home, tmp_path):
    backup(home, tmp_path / "b.tar")
    with pytest.raises(Conflict):
        backup(home, tmp_path / "b.tar")
    with pytest.raises(Conflict, match="not empty"):
        restore(tmp_path / "b.tar", home)
    with pytest.raises(NotFound):
        backup(tmp_path / "nothing", tmp_path / "c.tar")
    with pytest.raises(NotFound):
        restore(tmp_path / "nothing.tar", tmp_path / "new")


def test_the_database_opens_without_its_journal(home, tmp_path):
    backup(home, tmp_path / "b.tar")
    restore(tmp_path / "b.tar", tmp_path / "new")
    assert not list((tmp_path / "new").glob("*-wal"))
    database = Database.at(tmp_path / "new" / "modelyard.db")
    with database.reading() as connection:
        assert connection.execute(sa.text("PRAGMA integrity_check")).scalar() == "ok"
    database.close()
