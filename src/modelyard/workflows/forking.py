"""Retry from a step: a new run that takes over what the old one had done before it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from modelyard.errors import Conflict, NotFound
from modelyard.storage import Transaction
from modelyard.workflows import store
from modelyard.workflows.model import Start, Status
from modelyard.workflows.transitions import Transitions


def fork(tx: Transaction, transitions: Transitions, run: sa.Row[Any], *, step: str, new_id: str, actor: str) -> None:
    """Begin a new run at the last visit of a finished run to a step, with the state that the step had.

    Raises:
        NotFound: If the run never came to the step.
        Conflict: If the run is not over, or the new id is taken.
    """
    if not Status(run.status).final:
        raise Conflict(f"Workflow {run.id} is {run.status}; cancel it before you retry it.")
    if store.run_row(tx.connection, new_id) is not None:
        raise Conflict(f"There is a workflow {new_id!r} already.", workflow_id=new_id)
    rows = store.step_rows(tx.connection, run.id)
    positions = [row.position for row in rows if row.name == step]
    if not positions:
        raise NotFound(f"step in run {run.id}", step, known=[row.name for row in rows])
    position = positions[-1]
    # A run comes to a step only after those before it succeeded.
    for row in rows[:position]:
        store.insert_step(tx, {**row._mapping, "run_id": new_id, "copied": True})
    request = Start(run.name, run.input, new_id, run.queue_key, run.project, run.subject)
    transitions.begin(tx, request, workflow_id=new_id, step=step, actor=actor, forked_from=run.id, position=position)
    store.update_step(tx, new_id, position, wake=rows[position].wake)
