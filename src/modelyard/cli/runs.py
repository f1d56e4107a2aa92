"""``modelyard runs`` and ``modelyard run``: tracked runs, and scripts that become one."""

from __future__ import annotations

import contextlib
import runpy
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Annotated

import typer

from modelyard.cli.cells import numbers, when
from modelyard.cli.session import Session, command
from modelyard.errors import NotFound
from modelyard.sdk.run import ActiveRun
from modelyard.sdk.tracker import Tracker
from modelyard.tracking.experiments import DEFAULT_EXPERIMENT

_COLUMNS = {
    "id": "RUN",
    "name": "NAME",
    "status": "STATUS",
    "started": "STARTED",
    "created_by": "BY",
    "values": "LAST VALUES",
}


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    command(app, "runs")(runs)
    command(app, "run")(run)
    # Everything behind the script is the script's, its options too.
    app.registered_commands[-1].context_settings = {"allow_interspersed_args": False}


def runs(
    session: Session,
    experiment: Annotated[str | None, typer.Option(help="Only runs of this experiment.")] = None,
    status: Annotated[str | None, typer.Option(help="running, finished, failed, killed or scheduled.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 20,
) -> None:
    """List runs, newest first."""
    found = session.client.get("/runs", experiment=experiment, status=status, limit=limit)["runs"]
    rows = found
    if not session.as_json:
        rows = [
            {**each, "started": when(each["started_at"]), "values": numbers(each["metrics"]) or "–"} for each in found
        ]
    session.table(
        rows,
        _COLUMNS,
        empty="There are no runs.",
        next_command=f"modelyard history run:{found[0]['id']}" if found else "modelyard run train.py",
    )


def run(
    session: Session,
    script: Annotated[Path, typer.Argument(help="Python script.", show_default=False)],
    arguments: Annotated[list[str] | None, typer.Argument(help="Handed to the script.", show_default=False)] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; the script's by default.")] = None,
    experiment: Annotated[str, typer.Option(help="Experiment of the run.")] = DEFAULT_EXPERIMENT,
) -> None:
    """Run a Python script as a tracked run: its code, environment and trainings are recorded unasked."""
    if not script.is_file():
        raise NotFound("script", script)
    from modelyard.sdk import fluent

    # What the script logs belongs to this run and goes where this command was told to.
    tracker = Tracker(lambda _: session.client, settings=lambda: session.settings)
    fluent.use(tracker)
    given = arguments or []
    active = tracker.start_run(name or script.stem, experiment=experiment, capture=False)
    active.capture(script=script.resolve(), arguments=[str(script), *given])
    with _as_main(script, given), contextlib.redirect_stdout(sys.stderr if session.as_json else sys.stdout):
        code = _execute(script, active)
    session.answer(
        {"run": active.id, "name": active.name, "exit_code": code},
        f"Run {active.id} ({active.name}) {'finished' if code == 0 else 'failed'}.",
        next_command=f"modelyard history run:{active.id}",
    )
    if code:
        raise typer.Exit(code)


def _execute(script: Path, active: ActiveRun) -> int:
    """Run the script inside its run and return its exit code."""
    try:
        with active:
            runpy.run_path(str(script), run_name="__main__")
    except SystemExit as leaving:
        if leaving.code is None or isinstance(leaving.code, int):
            return leaving.code or 0
        sys.stderr.write(f"{leaving.code}\n")
        return 1
    except Exception as error:  # noqa: BLE001  # the edge to the user's script, whose error ends it and not us
        traceback.print_exception(error.with_traceback(_from_script(error.__traceback__, script)))
        return 1
    return 0


def _from_script(trace: TracebackType | None, script: Path) -> TracebackType | None:
    """Leave out the frames that lead to the script."""
    inner = trace
    while inner is not None and inner.tb_frame.f_code.co_filename != str(script):
        inner = inner.tb_next
    return inner or trace


@contextlib.contextmanager
def _as_main(script: Path, arguments: Sequence[str]) -> Iterator[None]:
    """Let the script see the command line and the import path that Python itself would give it."""
    argv, path = sys.argv, sys.path
    sys.argv, sys.path = [str(script), *arguments], [str(script.resolve().parent), *path]
    try:
        yield
    finally:
        sys.argv, sys.path = argv, path
