"""Starts runs and knows which one is active."""

from __future__ import annotations

import functools
import hashlib
import inspect
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast, overload

from modelyard.errors import Invalid, ModelyardError, Unavailable
from modelyard.sdk.client import Client
from modelyard.sdk.run import ActiveRun
from modelyard.sdk.transport import transport
from modelyard.settings import Settings, read_settings
from modelyard.storage import NewId, ulid
from modelyard.tracking import RunRecorder, Start, Transport, default_name, replay_folder
from modelyard.tracking.experiments import DEFAULT_EXPERIMENT

logger = logging.getLogger("modelyard.sdk")

Function = TypeVar("Function", bound=Callable[..., Any])
_PLAIN = (str, int, float, bool, type(None))

# Runs that this thread or task has started and not ended, the innermost last.
_started: ContextVar[tuple[ActiveRun, ...]] = ContextVar("modelyard_runs", default=())


class Tracker:
    """The process's way to Modelyard: one client, any number of runs.

    Args:
        connect: Opens a client for settings: a server, the home's live control plane, or the home itself.
        settings: Read when the first run starts.
        new_id: Makes run ids.
        now_us: Microseconds since 1970.
    """

    def __init__(
        self,
        connect: Callable[[Settings], Client],
        *,
        settings: Callable[[], Settings] = read_settings,
        new_id: NewId = ulid,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._connect = connect
        self._read_settings = settings
        self._new_id = new_id
        self._now_us = now_us
        self._opening = threading.Lock()
        self._opened: Client | None = None
        self._runs: list[ActiveRun] = []
        self._watch: threading.Thread | None = None
        self._told: set[str] = set()

    @functools.cached_property
    def settings(self) -> Settings:
        """Settings of this process, with the home as an absolute path: training code may change folders."""
        read = self._read_settings()
        return replace(read, home=read.home.absolute())

    def client(self) -> Client:
        """Return the client, opened on first use."""
        with self._opening:
            if self._opened is None:
                self._opened = self._connect(self.settings)
            return self._opened

    def start_run(
        self,
        name: str | None = None,
        *,
        experiment: str = DEFAULT_EXPERIMENT,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, object] | None = None,
        run_id: str | None = None,
        capture: bool = True,
    ) -> ActiveRun:
        """Start a run, nested in the active one if there is one.

        Use it as a context manager, or call ``finish`` on it; a run that nobody ends ends with the process.

        Args:
            name: Its name; one is made by default.
            experiment: Experiment that it belongs to, created if needed.
            params: Parameters to log at once.
            tags: Tags to set at once.
            run_id: Id of letters, digits, ``_`` and ``-``; an existing run is continued.
            capture: Record code, environment, and what scikit-learn, LightGBM and XGBoost fit.

        Raises:
            Invalid: If a setting or the id is not usable.
        """
        outer = self.current()
        run_id = run_id or self._new_id()
        name = name or default_name(run_id)
        start = Start(
            experiment=experiment,
            project=self.settings.project,
            name=name,
            started_us=self._now_us(),
            parent_id=None if outer is None or outer.id == run_id else outer.id,
        )
        way = transport(self.client)
        recorder = RunRecorder(run_id, way, spool=self._spool, start=start)
        run = ActiveRun(name, recorder, connect=self.client, ended=self._forget)
        self._send_what_was_left(way)
        self._runs.append(run)
        _started.set((*_started.get(), run))
        self._watch_the_end()
        if capture:
            run.capture()
        run.log_params(params or {})
        run.set_tags(tags or {})
        return run

    def current(self) -> ActiveRun | None:
        """Return the active run: of this thread or task, else the only one that the process has, else None."""
        own = [run for run in _started.get() if run in self._runs]
        if own:
            return own[-1]
        return self._runs[0] if len(self._runs) == 1 else None

    def active(self) -> ActiveRun:
        """Return the active run, starting one if the process has none.

        Raises:
            Invalid: If several runs are active and none was started by this thread.
        """
        run = self.current()
        if run is not None:
            return run
        if self._runs:
            raise Invalid("Several runs are active. Call the methods of the one that is meant, such as run.log(…).")
        return self.start_run()

    def to_active(self, action: Callable[[ActiveRun], None]) -> None:
        """Let an action log to the active run; where there is none to log to, say so once and go on."""
        try:
            run = self.active()
        except ModelyardError as error:
            if error.message not in self._told:
                self._told.add(error.message)
                logger.warning("Modelyard records nothing of this: %s", error.message)
            return
        action(run)

    @overload
    def track(self, function: Function, /) -> Function: ...

    @overload
    def track(
        self, /, *, name: str | None = None, experiment: str = DEFAULT_EXPERIMENT, capture: bool = True
    ) -> Callable[[Function], Function]: ...

    def track(
        self,
        function: Function | None = None,
        /,
        *,
        name: str | None = None,
        experiment: str = DEFAULT_EXPERIMENT,
        capture: bool = True,
    ) -> Function | Callable[[Function], Function]:
        """Make every call of a function a run.

        Arguments that are plain values become parameters; a returned mapping of numbers becomes metrics.
        """

        def decorate(wrapped: Function) -> Function:
            signature = inspect.signature(wrapped)

            @functools.wraps(wrapped)
            def tracked(*args: Any, **kwargs: Any) -> Any:
                given = signature.bind(*args, **kwargs)
                given.apply_defaults()
                params = {key: value for key, value in given.arguments.items() if isinstance(value, _PLAIN)}
                title = name or wrapped.__name__
                with self.start_run(title, experiment=experiment, params=params, capture=capture) as run:
                    result = wrapped(*args, **kwargs)
                    run.log(_numbers(result))
                    return result

            return cast(Function, tracked)

        return decorate if function is None else decorate(function)

    @property
    def _spool(self) -> Path:
        # What could not be sent to one server is never sent to another.
        where = hashlib.sha256(self.settings.server.encode()).hexdigest()[:12] if self.settings.server else "home"
        return self.settings.home / "spool" / where

    def _send_what_was_left(self, way: Transport) -> None:
        """Send what processes that died could not, beside the training; what fails again waits on."""
        if any(self._spool.glob("*.jsonl")):
            threading.Thread(target=_replay, args=(self._spool, way), name="modelyard-replay", daemon=True).start()

    def _forget(self, run: ActiveRun) -> None:
        self._runs.remove(run)
        _started.set(tuple(each for each in _started.get() if each is not run))

    def _watch_the_end(self) -> None:
        if self._watch is None or not self._watch.is_alive():
            # Not a daemon: the interpreter waits for it, and only then stops what sending needs.
            self._watch = threading.Thread(target=self._end_with_the_process, name="modelyard-end")
            self._watch.start()

    def _end_with_the_process(self) -> None:
        threading.main_thread().join()
        error = getattr(sys, "last_value", None)
        for run in reversed(self._runs.copy()):
            if error is None:
                run.finish()
            else:
                run.finish("failed", error=f"{type(error).__name__}: {error}")


def _replay(folder: Path, way: Transport) -> None:
    try:
        replay_folder(folder, way)
    except Unavailable:
        return  # said once by the run's own recorder, which has the same way


def _numbers(result: object) -> dict[str, float]:
    if not isinstance(result, Mapping):
        return {}
    return {
        str(key): float(value)
        for key, value in result.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
