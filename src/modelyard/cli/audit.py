"""``modelyard history`` and ``modelyard audit``."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard.cli.session import Session, command
from modelyard.errors import Refused

_COLUMNS = {"seq": "NO", "at": "WHEN", "actor": "WHO", "kind": "WHAT", "subject": "OBJECT"}


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    command(app, "history")(history)
    group = typer.Typer(help="The tamper-evident event log.", no_args_is_help=True)
    command(group, "verify")(verify)
    command(group, "checkpoint")(checkpoint)
    app.add_typer(group, name="audit")


def history(
    session: Session,
    subject: Annotated[str | None, typer.Argument(help="Object, such as version:churn/3; all by default.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 20,
) -> None:
    """Show what happened, newest first."""
    found = session.client.get("/events", subject=subject, limit=limit, newest_first=True)["events"]
    session.table(found, _COLUMNS, empty="Nothing has happened yet.", next_command="modelyard audit verify")


def verify(session: Session) -> None:
    """Check that no event was changed, removed or added behind the log's back."""
    result = session.client.post("/audit/verify")
    if not result["intact"]:
        raise Refused(f"The log was tampered with at row {result['first_bad']}: {result['reason']}.", **result)
    session.answer(
        result,
        f"Intact: {result['rows']:,} events, {result['checkpoints']} signed checkpoints agree.",
        next_command="modelyard audit checkpoint",
    )


def checkpoint(session: Session) -> None:
    """Sign the log as it is now; keep the printed line outside this machine."""
    made = session.client.post("/audit/checkpoint")
    session.answer(made, f"Signed {made['size']:,} events, root {made['root']}.", next_command="modelyard audit verify")
