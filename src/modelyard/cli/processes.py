"""``modelyard up``, ``stop``, ``status`` and ``doctor``: the running system as a whole."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import typer

from modelyard.cli.session import Session, command
from modelyard.errors import Conflict, Unavailable
from modelyard.settings import Settings

if TYPE_CHECKING:
    from modelyard.server.control import Control
    from modelyard.server.supervisor import Program

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0
_PORTS_TO_TRY = 100


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    command(app, "up")(up)
    command(app, "stop")(stop)
    command(app, "status")(status)
    command(app, "doctor")(doctor)


def up(
    session: Session,
    host: Annotated[str | None, typer.Option(help="Address to bind; others than loopback need a secret.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the API; 5000 or the next free one.")] = None,
    serve_port: Annotated[int | None, typer.Option(help="Port of the endpoints; the one after the API's.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Serving worker processes.")] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once everything is ready.")] = False,
) -> None:
    """Run Modelyard: API, workflows and serving workers, until Ctrl-C or `modelyard stop`."""
    from modelyard.app import App

    given = session.settings
    settings = dataclasses.replace(given, host=host or given.host, workers=workers or given.workers)
    settings = _with_ports(settings, port=port, serve_port=serve_port)
    if detach:
        _up_detached(session, settings)
        return
    from modelyard.server.control import Control, ControlLock
    from modelyard.server.supervisor import Supervisor

    lock = ControlLock(settings.home)
    try:
        App(settings).prepare()
        supervisor = Supervisor(_programs(settings), logs=settings.home / "logs", environ=_environ(settings))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: supervisor.stop())
        control = Control(os.getpid(), _url(settings, settings.port), _url(settings, settings.serve_port))
        session.answer(
            dataclasses.asdict(control),
            f"Modelyard: API {control.url}, endpoints {control.serve_url}, home {settings.home.absolute()}",
            next_command="modelyard status",
        )
        lock.announce(control)
        supervisor.start()
        supervisor.run()
    finally:
        lock.release()


def stop(session: Session) -> None:
    """End the running Modelyard of this home, cleanly."""
    from modelyard.server.control import is_alive, read_control

    control = read_control(session.settings.home)
    if control is None:
        session.answer({"stopped": False}, "Modelyard is not running here.", next_command="modelyard up")
        return
    os.kill(control.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while read_control(session.settings.home) is not None and is_alive(control.pid):
        if time.monotonic() > deadline:
            raise Unavailable(f"Process {control.pid} has not ended within {_STOP_TIMEOUT_S:.0f} seconds.")
        time.sleep(0.05)
    session.answer({"stopped": True}, "Stopped.", next_command="modelyard up")


def status(session: Session) -> None:
    """Say what runs, where, and whether every part is ready."""
    control = _running(session)
    if control is None:
        session.answer({"running": False}, "Modelyard is not running here.", next_command="modelyard up")
        return
    ready = _readiness(control.url)
    facts = {"running": True, **dataclasses.asdict(control), **ready}
    waiting = "; ".join(f"{part}: {reason}" for part, reason in ready["waiting_for"].items())
    if waiting:
        raise Unavailable(f"Modelyard runs as process {control.pid}, but is not ready: {waiting}.", **facts)
    session.answer(
        facts,
        f"Running: API {control.url}, endpoints {control.serve_url}, process {control.pid}. Every part is ready.",
        next_command="modelyard history",
    )


def doctor(
    session: Session,
    upgrade: Annotated[bool, typer.Option(help="Bring the database to this release's schema.")] = False,
) -> None:
    """Check the home folder: schema, event log, free space; with --upgrade, migrate the database."""
    from modelyard.cli.checks import examine

    report = examine(session.settings, upgrade=upgrade)
    session.table(report, {"check": "CHECK", "state": "STATE", "detail": "DETAIL"}, empty="")
    if any(row["state"] == "bad" for row in report):
        raise typer.Exit(1)


def _running(session: Session) -> Control | None:
    from modelyard.server.control import read_control

    return read_control(session.settings.home)


def _with_ports(settings: Settings, *, port: int | None, serve_port: int | None) -> Settings:
    """Settle the two ports: those that were asked for must be free, others are searched for."""
    asked = port if port is not None else (settings.port if "MODELYARD_PORT" in os.environ else None)
    if asked is not None:
        _require_free(settings.host, asked)
        api = asked
    else:
        api = _next_free(settings.host, settings.port)
    serve = serve_port or settings.serve_port
    if serve:
        _require_free(settings.host, serve)
    else:
        serve = _next_free(settings.host, api + 1)
    return dataclasses.replace(settings, port=api, serve_port=serve)


def _next_free(host: str, first: int) -> int:
    for port in range(first, min(first + _PORTS_TO_TRY, 65536)):
        if _is_free(host, port):
            return port
    raise Conflict(f"No free port from {first} on. Choose one: modelyard up --port PORT")


def _require_free(host: str, port: int) -> None:
    if not _is_free(host, port):
        raise Conflict(f"Port {port} on {host} is in use. Leave --port out to take the next free one.")


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _url(settings: Settings, port: int) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{port}"


def _programs(settings: Settings) -> list[Program]:
    from modelyard.server.supervisor import Program

    python = (sys.executable, "-m", "modelyard.cli.program")
    hosts = [name for name in settings.allowed_hosts.split(",") if name]
    worker = [
        *(sys.executable, "-m", "modelyard.serving.worker", "--home", str(settings.home.absolute())),
        *("--workers", str(settings.workers), "--host", settings.host, "--port", str(settings.serve_port)),
        *("--max-body-bytes", str(settings.max_body_mb * 1_000_000)),
        *(part for name in hosts for part in ("--allow-host", name)),
    ]
    # Workers end first, so that the collector finds all that they wrote; the control plane ends last.
    return [
        *(Program(f"worker-{n}", (*worker, "--worker", str(n)), 35, stop_order=1) for n in range(settings.workers)),
        Program("collector", (*python, "collector"), 30, stop_order=2),
        Program("control", (*python, "control"), 15, stop_order=3),
    ]


def _environ(settings: Settings) -> dict[str, str]:
    """Return the environment of the child processes: this one's, with the settled settings."""
    environ = dict(os.environ)
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        environ[f"MODELYARD_{item.name.upper()}"] = str(value.absolute() if isinstance(value, Path) else value)
    return environ


def _up_detached(session: Session, settings: Settings) -> None:
    from modelyard.server.control import read_control

    logs = settings.home / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / "up.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603  # our own command line, no shell
            [sys.executable, "-m", "modelyard.cli", "up", "--port", str(settings.port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environ(settings),
            start_new_session=True,
        )
    deadline = time.monotonic() + _START_TIMEOUT_S
    ready: dict[str, Any] = {"waiting_for": {}}
    while time.monotonic() < deadline:
        if process.poll() is not None:
            tail = (logs / "up.log").read_text()[-2000:].strip()
            raise Unavailable(f"Modelyard did not start: {tail}")
        control = read_control(settings.home)
        ready = _readiness(control.url) if control is not None else {"waiting_for": {"process": "starting"}}
        if control is not None and not ready["waiting_for"]:
            session.answer(
                dataclasses.asdict(control),
                f"Modelyard: API {control.url}, endpoints {control.serve_url}, process {control.pid}",
                next_command="modelyard status",
            )
            return
        time.sleep(0.05)
    waiting = "; ".join(f"{part}: {reason}" for part, reason in ready["waiting_for"].items())
    raise Unavailable(f"Not ready within {_START_TIMEOUT_S:.0f} seconds ({waiting}); see {logs}.")


def _readiness(url: str) -> dict[str, Any]:
    """Return what readiness says; an API that does not answer is waited for as well."""
    try:
        document: dict[str, Any] = httpx.get(f"{url}/api/v1/ready", timeout=3).json()
    except (httpx.TransportError, ValueError) as error:
        return {"ready": False, "waiting_for": {"API": str(error) or type(error).__name__}}
    return document
