"""Every setting and its default.

A setting is read from the environment variable ``MODELYARD_`` + its name in upper case; the command line
overrides it. ``docs/reference/settings.md`` is generated from this module.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from modelyard.errors import Invalid, nearest

PREFIX = "MODELYARD_"
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def _setting(default: Any, doc: str) -> Any:
    return field(default=default, metadata={"doc": doc})


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, immutable once read."""

    home: Path = _setting(Path(".modelyard"), "Folder that holds all state.")
    server: str = _setting("", "Address of a running Modelyard that the SDK and the CLI talk to.")
    token: str = _setting("", "API token that the SDK and the CLI present.")
    project: str = _setting("default", "Project that new objects belong to.")
    database_url: str = _setting("", "postgresql+psycopg://… instead of SQLite in the home folder.")
    host: str = _setting("127.0.0.1", "Address that `modelyard up` binds; others need `admin_secret`.")
    port: int = _setting(5000, "Port of the API; the next free one when it was not asked for.")
    serve_port: int = _setting(0, "Port of the endpoints, shared by the workers; 0 means the one after `port`.")
    workers: int = _setting(2, "Serving worker processes.")
    admin_secret: str = _setting("", "Password of the user `admin`; required off loopback.")
    allowed_hosts: str = _setting("", "Further host names that requests may name, separated by commas.")
    clock: str = _setting("system", "`system`, or `event`: time is driven by the data (replays, tests).")
    max_body_mb: int = _setting(10, "Largest request body that an endpoint accepts, in megabytes.")
    max_upload_mb: int = _setting(5000, "Largest file that may be uploaded to the API, in megabytes.")
    retain_predictions_days: int = _setting(400, "Days that the prediction log is kept.")
    child_memory_mb: int = _setting(8192, "Memory limit of a training child process, in megabytes.")
    train_timeout_s: int = _setting(3600, "Time limit of a training function, in seconds.")

    @property
    def database(self) -> str:
        """URL of the metadata database."""
        return self.database_url or f"sqlite:///{(self.home / 'modelyard.db').absolute()}"

    @property
    def on_loopback(self) -> bool:
        """Whether the server is reachable from this machine only."""
        return self.host in LOOPBACK


def read_settings(environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Read the settings from the environment, then apply overrides that are not None.

    Raises:
        Invalid: If a ``MODELYARD_`` variable is unknown, or a value has the wrong type.
    """
    known = {item.name: item for item in fields(Settings)}
    values: dict[str, Any] = {}
    for variable, text in (os.environ if environ is None else environ).items():
        if not variable.startswith(PREFIX):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name.startswith(("test_", "run_")):  # MODELYARD_TEST_…, MODELYARD_RUN_…: not settings
            continue
        if name not in known:
            near = nearest(name, known)
            raise Invalid(
                f"There is no setting {variable}." + (f" Did you mean {PREFIX}{near.upper()}?" if near else "")
            )
        values[name] = _convert(variable, text, type(known[name].default))
    values.update({name: value for name, value in overrides.items() if value is not None})
    return Settings(**values)


def _convert(variable: str, text: str, kind: type) -> Any:
    if kind is int:
        try:
            return int(text)
        except ValueError as error:
            raise Invalid(f"{variable} must be a whole number, not {text!r}.") from error
    return Path(text) if issubclass(kind, Path) else text
