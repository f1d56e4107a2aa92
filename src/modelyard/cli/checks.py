"""What ``modelyard doctor`` looks at."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from modelyard.errors import ModelyardError
from modelyard.events.audit import read_checkpoints, verify
from modelyard.settings import Settings
from modelyard.storage import Database
from modelyard.storage.schema import current_version, latest_version
from modelyard.storage.schema import upgrade as upgrade_schema

_LOW_SPACE_BYTES = 1_000_000_000
Check = Callable[[Settings, Database], tuple[str, str]]


def examine(settings: Settings, *, upgrade: bool) -> list[dict[str, str]]:
    """Examine a home folder.

    Args:
        settings: Names the home and the database.
        upgrade: Migrate the database first.

    Returns:
        One row a check: ``check``, ``state`` (good, bad) and ``detail``.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    database = Database(settings.database)
    if upgrade:
        upgrade_schema(database)
    checks: dict[str, Check] = {"schema": _schema, "event log": _log, "free space": _space}
    rows = []
    for name, check in checks.items():
        try:
            state, detail = check(settings, database)
        except ModelyardError as error:
            state, detail = "bad", error.message
        rows.append({"check": name, "state": state, "detail": detail})
    database.close()
    return rows


def _schema(settings: Settings, database: Database) -> tuple[str, str]:
    found, wanted = current_version(database), latest_version()
    if found == wanted:
        return "good", f"version {found}"
    if found is None:
        return "good", "no database yet; the first command creates it"
    return "bad", f"version {found}, this release needs {wanted}: modelyard doctor --upgrade"


def _log(settings: Settings, database: Database) -> tuple[str, str]:
    if current_version(database) is None:
        return "good", "empty"
    result = verify(database, checkpoints=read_checkpoints(settings.home / "keys" / "checkpoints.jsonl"))
    if result.intact:
        return "good", f"{result.rows:,} events, intact"
    return "bad", f"row {result.first_bad}: {result.reason}"


def _space(settings: Settings, database: Database) -> tuple[str, str]:
    free = shutil.disk_usage(settings.home).free
    text = f"{free / 1e9:,.1f} GB free in {settings.home.absolute()}"
    return ("good" if free >= _LOW_SPACE_BYTES else "bad"), text
