"""``modelyard backup`` and ``modelyard restore``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelyard.cli.session import Session, command
from modelyard.errors import Conflict, Invalid, Refused


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    command(app, "backup")(backup)
    command(app, "restore")(restore)


def backup(session: Session, file: Annotated[Path, typer.Argument(help="File to create.")]) -> None:
    """Copy the home folder into one file, consistently, also while Modelyard runs."""
    from modelyard.storage.backup import backup as make_backup

    if session.settings.database_url:
        raise Invalid("The metadata are in PostgreSQL: back it up with pg_dump, and copy the home folder after it.")
    report = make_backup(session.settings.home, file)
    session.answer(
        {"file": str(file), "files": report.files, "size_bytes": report.size_bytes},
        f"Wrote {report.files:,} files, {report.size_bytes / 1e6:,.1f} MB, to {file}.",
        next_command=f"modelyard restore {file} --home NEW_FOLDER",
    )


def restore(session: Session, file: Annotated[Path, typer.Argument(help="What `modelyard backup` wrote.")]) -> None:
    """Unpack a backup into a new home folder; digests and the event log are verified."""
    from modelyard.events.audit import read_checkpoints, verify
    from modelyard.server.control import read_control
    from modelyard.storage import Database
    from modelyard.storage.backup import restore as unpack

    home = session.settings.home
    if read_control(home) is not None:
        raise Conflict("Modelyard is running in this home; restore into a new folder.")
    report = unpack(file, home)
    database = Database.at(home / "modelyard.db")
    audit = verify(database, checkpoints=read_checkpoints(home / "keys" / "checkpoints.jsonl"))
    database.close()
    if not audit.intact:
        raise Refused(f"Restored, but its event log was tampered with at row {audit.first_bad}: {audit.reason}.")
    session.answer(
        {"home": str(home), "files": report.files, "size_bytes": report.size_bytes, "events": audit.rows},
        f"Restored {report.files:,} files into {home}; {audit.rows:,} events, intact.",
        next_command=f"modelyard up --home {home}",
    )
