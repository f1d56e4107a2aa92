"""Which control plane is alive for a home folder: a lock, and a note with its address."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from modelyard.errors import Conflict


@dataclass(frozen=True, slots=True)
class Control:
    """A live control plane.

    Attributes:
        pid: Process id of the supervisor.
        url: Address of the API.
        serve_url: Address of the endpoints.
    """

    pid: int
    url: str
    serve_url: str


class ControlLock:
    """The right to be the control plane of a home folder; given back by ``release`` or by the process's end.

    Raises:
        Conflict: If another process has it; names its address.
    """

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self._note = home / "control.json"
        self._file: IO[str] = (home / "control.lock").open("a")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            live = read_control(home)
            where = f" at {live.url} (process {live.pid})" if live else ""
            raise Conflict(f"Modelyard is running in {home}{where}. Stop it with: modelyard stop") from error

    def announce(self, control: Control) -> None:
        """Write where the control plane can be reached."""
        part = self._note.with_suffix(".part")
        part.write_text(json.dumps(asdict(control)))
        part.replace(self._note)

    def release(self) -> None:
        """Withdraw the note and give the lock back."""
        self._note.unlink(missing_ok=True)
        self._file.close()


def read_control(home: Path) -> Control | None:
    """Return the live control plane of a home folder, or None. A note of a dead process does not count."""
    try:
        control = Control(**json.loads((home / "control.json").read_text()))
        with (home / "control.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return control
    except (OSError, ValueError, TypeError):
        return None
    # Nobody holds the lock: the note was left by a process that was killed.
    return None


def is_alive(pid: int) -> bool:
    """Say whether a process exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
