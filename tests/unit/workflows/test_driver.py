"""The engine's database is durable, deaf to pickles, and loaded only on use."""

import base64
import os
import pickle
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

import modelyard
from modelyard.errors import Invalid
from modelyard.events import SYSTEM, EventLog, EventTimeClock
from modelyard.workflows import Definition, Engine, Status, Step, driver

AT = datetime(2013, 4, 1, 12, tzinfo=UTC)


def test_sqlite_engine_is_durable(tmp_path):
    engine = driver.engine(f"sqlite:///{tmp_path / 'workflows.db'}")
    with engine.connect() as connection:
        raw = connection.connection.dbapi_connection
        assert raw.isolation_level == "IMMEDIATE"
        values = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
        }
    engine.dispose()
    assert values == {"journal_mode": "wal", "synchronous": 2, "busy_timeout": 30_000, "foreign_keys": 1}


def test_rows_that_name_pickle_are_refused(database_url):
    engine = driver.engine(database_url)
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT 'portable_json', 1")).one() == ("portable_json", 1)
        with pytest.raises(Invalid, match="pickled"):
            connection.execute(sa.text("SELECT 'x', 'py_pickle'")).one()
    engine.dispose()


class Planted:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_planted_pickle_is_not_run(sqlite, tmp_path, caplog):
    url = f"sqlite:///{tmp_path / 'workflows.db'}"
    entered = threading.Event()

    def endless(context, state):
        entered.set()
        while True:
            context.check()
            threading.Event().wait(0.01)

    def engine():
        made = Engine(sqlite, EventLog(sqlite), clock=EventTimeClock(AT), executor_id="w1", poll_s=0.02)
        made.register(Definition("demo", (Step("one", endless),)))
        return made

    first = engine()
    first.launch()
    run_id = first.start("demo", actor=SYSTEM)
    assert entered.wait(20)
    first.close()
    poison = base64.b64encode(pickle.dumps({"args": (Planted(tmp_path / "owned"),), "kwargs": {}})).decode()
    plain = sa.create_engine(url)
    with plain.begin() as connection:
        stored = {"serialization": "py_pickle", "inputs": poison}
        changed = connection.execute(
            sa.text("UPDATE workflow_status SET serialization = :serialization, inputs = :inputs"), stored
        ).rowcount
        changed += connection.execute(sa.text("UPDATE workflow_input SET inputs = :inputs"), stored).rowcount
    assert changed >= 1
    second = engine()
    second.launch()
    end = time.monotonic() + 20
    while "pickled value, which is refused" not in caplog.text and not (tmp_path / "owned").exists():
        assert time.monotonic() < end, "the planted row was not read"
        threading.Event().wait(0.02)
    second.close()
    assert second.get(run_id).status == Status.RUNNING
    assert not (tmp_path / "owned").exists()
    plain.dispose()


def test_dbos_cloud_is_refused(sqlite, monkeypatch):
    monkeypatch.setenv("DBOS__CLOUD", "true")
    with pytest.raises(Invalid, match="DBOS__CLOUD"):
        Engine(sqlite, EventLog(sqlite), clock=EventTimeClock(AT), executor_id="w1").launch()


def test_dbos_says_nothing_and_is_not_loaded_before_launch(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from modelyard.events import EventLog, SystemClock\n"
        "from modelyard.storage import Database\n"
        "from modelyard.workflows import Engine\n"
        f"database = Database.at(Path({str(tmp_path / 'modelyard.db')!r})); database.create_all()\n"
        "engine = Engine(database, EventLog(database), clock=SystemClock(), executor_id='w1')\n"
        "assert engine.list().runs == () and 'dbos' not in sys.modules\n"
        "engine.launch(); engine.close()\n"
        "assert 'dbos' in sys.modules\n"
    )
    root = str(Path(modelyard.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_launch_after_close_and_close_twice(sqlite):
    for _ in range(2):
        engine = Engine(sqlite, EventLog(sqlite), clock=EventTimeClock(AT), executor_id="w1", poll_s=0.02)
        engine.register(Definition("demo", (Step("one", lambda c, s: {"at": time.time()}),)))
        engine.launch()
        assert engine.wait_for(engine.start("demo", actor=SYSTEM), 20).status == Status.SUCCEEDED
        engine.close()
        engine.close()
