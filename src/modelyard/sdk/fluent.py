"""The functions that training code calls, over one ``Tracker`` of the process.

``modelyard/__init__.py`` loads them on first use and says how to connect; nothing else does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

from modelyard.errors import Invalid
from modelyard.sdk.client import Client
from modelyard.sdk.registering import RegisteredVersion
from modelyard.sdk.run import ActiveRun
from modelyard.sdk.tracker import Tracker
from modelyard.settings import Settings
from modelyard.tracking.experiments import DEFAULT_EXPERIMENT

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(slots=True)
class _Process:
    """What this process logs through."""

    connect: Callable[[Settings], Client] | None = None
    tracker: Tracker | None = None


_process = _Process()


def connect_with(connect: Callable[[Settings], Client]) -> None:
    """Say how clients are opened; the first caller decides."""
    if _process.connect is None:
        _process.connect = connect


def use(tracker: Tracker) -> None:
    """Log through this tracker from now on, as `modelyard run` does for the script that it runs."""
    _process.tracker = tracker


def _tracker() -> Tracker:
    if _process.tracker is None:
        if _process.connect is None:
            raise Invalid("Import modelyard and call modelyard.start_run: nothing has said how to connect yet.")
        _process.tracker = Tracker(_process.connect)
    return _process.tracker


def start_run(
    name: str | None = None,
    *,
    experiment: str = DEFAULT_EXPERIMENT,
    params: Mapping[str, object] | None = None,
    tags: Mapping[str, object] | None = None,
    run_id: str | None = None,
    capture: bool = True,
) -> ActiveRun:
    """Start a run; see ``Tracker.start_run``."""
    return _tracker().start_run(name, experiment=experiment, params=params, tags=tags, run_id=run_id, capture=capture)


def active_run() -> ActiveRun | None:
    """Return the active run, or None."""
    return _tracker().current()


def log(metrics: Mapping[str, float], *, step: int | None = None) -> None:
    """Log values of metrics to the active run, starting one if there is none."""
    _tracker().to_active(lambda run: run.log(metrics, step=step))


def log_params(params: Mapping[str, object]) -> None:
    """Log parameters to the active run, starting one if there is none."""
    _tracker().to_active(lambda run: run.log_params(params))


def set_tags(tags: Mapping[str, object]) -> None:
    """Set tags of the active run, starting one if there is none."""
    _tracker().to_active(lambda run: run.set_tags(tags))


def log_artifact(path: str, content: bytes | str | Path) -> None:
    """Store a file (by its path) or bytes in the active run under a relative key."""
    _tracker().to_active(lambda run: run.log_artifact(path, content))


def log_model(model: object, path: str = "model", *, data: object = None) -> None:
    """Store a fitted model in the active run; see ``ActiveRun.log_model``."""
    _tracker().to_active(lambda run: run.log_model(model, path, data=data))


def register_model(
    model: object,
    name: str,
    *,
    data: object = None,
    metrics: Mapping[str, float] | None = None,
    alias: str | None = None,
    description: str = "",
    tags: Mapping[str, str] | None = None,
) -> RegisteredVersion:
    """Register a fitted model from the active run; see ``ActiveRun.register_model``."""
    return (
        _tracker()
        .active()
        .register_model(model, name, data=data, metrics=metrics, alias=alias, description=description, tags=tags)
    )


@overload
def track(function: Function, /) -> Function: ...


@overload
def track(
    *, name: str | None = None, experiment: str = DEFAULT_EXPERIMENT, capture: bool = True
) -> Callable[[Function], Function]: ...


def track(
    function: Function | None = None,
    /,
    *,
    name: str | None = None,
    experiment: str = DEFAULT_EXPERIMENT,
    capture: bool = True,
) -> Function | Callable[[Function], Function]:
    """Make every call of a function a run; see ``Tracker.track``."""
    decorate = _tracker().track(name=name, experiment=experiment, capture=capture)
    return decorate if function is None else decorate(function)


def client() -> Client:
    """Return the process's client of the native API."""
    return _tracker().client()
