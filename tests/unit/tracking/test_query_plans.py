"""Lists read the index that serves their order, whatever their size."""

from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from modelyard.tracking import store

AT = datetime(2013, 4, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("conditions", "index"),
    [
        ([store.runs.c.project == "p", store.runs.c.lifecycle_stage == "active"], "ix_runs_newest"),
        (
            [store.runs.c.experiment_id == "e", store.runs.c.lifecycle_stage == "active"],
            "ix_runs_newest_of_experiment",
        ),
    ],
)
@pytest.mark.parametrize("before", [None, (AT, "r")])
def test_newest_runs_come_off_an_index(sqlite, conditions, before, index):
    plans = []

    @sa.event.listens_for(sqlite.engine, "before_cursor_execute")
    def explain(connection, _cursor, *call):
        statement, parameters, *_ = call
        if statement.startswith("SELECT runs"):
            rows = connection.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
            plans.append(" / ".join(row[3] for row in rows))

    with sqlite.reading() as connection:
        assert store.run_page(connection, conditions=conditions, before=before, limit=10) == []
    (plan,) = plans
    assert index in plan
    assert "TEMP B-TREE" not in plan
