"""Reading runs: one with its steps, or pages of many, without the engine behind."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from modelyard.errors import Invalid, NotFound
from modelyard.storage import Database
from modelyard.workflows import store
from modelyard.workflows.model import Page, Run

PAGE_LIMIT = 500


def read_run(database: Database, workflow_id: str) -> Run:
    """Return a run with its steps and what it waits for.

    Raises:
        NotFound: If there is no such run.
    """
    with database.reading() as connection:
        row = store.run_row(connection, workflow_id)
        if row is None:
            raise NotFound("workflow", workflow_id)
        wait = store.open_wait(connection, workflow_id)
        steps = tuple(store.step_of(step) for step in store.step_rows(connection, workflow_id))
    return store.run_of(row, steps=steps, wait=None if wait is None else store.wait_of(wait))


def read_page(database: Database, *, project: str, wanted: Mapping[str, Any], limit: int, cursor: str | None) -> Page:
    """Return a project's runs, newest first, whose columns equal those wanted values that are not None.

    Raises:
        Invalid: If the cursor or the limit has a wrong form.
    """
    if not 1 <= limit <= PAGE_LIMIT:
        raise Invalid(f"A page holds 1 to {PAGE_LIMIT} runs, not {limit}.")
    equal = {column: value for column, value in wanted.items() if value is not None}
    before = None if cursor is None else _decode(cursor)
    with database.reading() as connection:
        rows = store.list_runs(connection, project=project, equal=equal, before=before, limit=limit + 1)
    runs = tuple(store.run_of(row) for row in rows[:limit])
    return Page(runs, _encode(runs[-1]) if len(rows) > limit else None)


def _encode(run: Run) -> str:
    return f"{run.started_at.isoformat()}|{run.id}"


def _decode(cursor: str) -> tuple[datetime, str]:
    time_text, _, run_id = cursor.partition("|")
    try:
        time = datetime.fromisoformat(time_text)
    except ValueError as error:
        raise Invalid(f"{cursor!r} is not a cursor of a list of workflows.") from error
    if time.tzinfo is None:
        raise Invalid(f"{cursor!r} is not a cursor of a list of workflows.")
    return time, run_id
