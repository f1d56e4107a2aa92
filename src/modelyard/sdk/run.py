"""An active run: what training code logs to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

from modelyard.errors import Unavailable
from modelyard.sdk.client import Client
from modelyard.sdk.registering import RegisteredVersion, register, save
from modelyard.tracking import Flushed, RunRecorder, RunStatus

logger = logging.getLogger("modelyard.sdk")


class ActiveRun:
    """A run that is being logged; a context manager that ends it.

    Logging never raises and never waits for the network: what cannot be recorded is said once and left out.
    ``flush`` and ``register_model`` wait, because their answer is what they are for.

    Args:
        name: Its name.
        recorder: Where records go.
        connect: Returns the client for what needs an answer.
        ended: Called once, when the run has ended.
    """

    def __init__(
        self,
        name: str,
        recorder: RunRecorder,
        *,
        connect: Callable[[], Client],
        ended: Callable[[ActiveRun], None],
    ) -> None:
        self.name = name
        self.recorder = recorder
        self._connect = connect
        self._ended = ended
        self._captures = ExitStack()
        self._told: set[str] = set()
        self._over = False

    @property
    def id(self) -> str:
        """Its id."""
        return self.recorder.run_id

    def log(self, metrics: Mapping[str, float], *, step: int | None = None) -> None:
        """Log values of metrics at a step, by default the one after the last step."""
        self.recorder.log(metrics, step=step)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log parameters, each written once."""
        self._quietly("parameters", lambda: self.recorder.log_params(params))

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags."""
        self._quietly("tags", lambda: self.recorder.set_tags(tags))

    def log_artifact(self, path: str, content: bytes | str | Path) -> None:
        """Store a file (by its path) or bytes under a relative key such as ``plots/roc.png``."""
        source = Path(content) if isinstance(content, str) else content
        self._quietly("a file", lambda: self.recorder.log_artifact(path, source))

    def log_data(self, data: object, *, name: str, context: str = "training", target: object = None) -> None:
        """Log a table as an input of the run: its digest, schema and profile, not its rows."""

        def record() -> None:
            from modelyard.tracking.capture import record_data

            record_data(self.recorder, data, name=name, context=context, target=target)

        self._quietly("data", record)

    def log_model(self, model: object, path: str = "model", *, data: object = None) -> None:
        """Store a fitted model below a relative key of the run; ``register_model`` gives it a version.

        Args:
            model: What ``models.save_model`` takes.
            path: Folder of its files in the run.
            data: Inputs of training (a sample will do), from which the signature is read.
        """

        def record() -> None:
            with TemporaryDirectory(prefix="modelyard-") as temporary:
                folder = Path(temporary) / "model"
                for file in save(model, folder, data=data):
                    self.recorder.log_artifact(f"{path}/{file.path}", folder / file.path)

        self._quietly("a model", record)

    def register_model(
        self,
        model: object,
        name: str,
        *,
        data: object = None,
        metrics: Mapping[str, float] | None = None,
        alias: str | None = None,
        description: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> RegisteredVersion:
        """Register a fitted model as the next version of ``name``, with this run as its origin.

        Args:
            model: What ``models.save_model`` takes, or the path of a folder to register as it is.
            name: Name of the model.
            data: Inputs of training (a sample will do; at least 1,000 rows are best): gives the signature, and the
                rows on which the fast engine is checked against the model's own code.
            metrics: Metrics of the version; by default the last values of the run.
            alias: Alias that names this version from now on.
            description: For people.
            tags: Tags of the version.

        Raises:
            Unavailable: If the run cannot be made durable on the server now.
            ModelyardError: Why the version was not registered.
        """
        flushed = self.flush()
        # A refused or lost value does not keep the run itself from being there.
        arrived = flushed.acknowledged or flushed.refused or flushed.dropped
        if flushed.spooled or not arrived:
            raise Unavailable(
                f"Run {self.id} has not reached Modelyard yet: the model cannot be registered from it now. "
                "Log it with log_model and register it later."
            )
        return register(
            self._connect(),
            model,
            name,
            data=data,
            run_id=self.id,
            metrics=metrics,
            alias=alias,
            description=description,
            tags=tags,
        )

    def flush(self) -> Flushed:
        """Send everything logged until now, or put it on this machine's disk, and say which."""
        return self.recorder.flush()

    def finish(self, status: RunStatus = "finished", *, error: str | None = None) -> None:
        """End the run; everything is sent, or waits on this machine's disk. Later calls change nothing."""
        if self._over:
            return
        self._over = True
        # A capture that was begun in another thread or task cannot be ended here; it ends with that one.
        with suppress(ValueError):
            self._captures.close()
        self._ended(self)
        self._quietly("the end of the run", lambda: self.recorder.finish(status, error=error))

    def capture(self, *, script: Path | None = None, arguments: Sequence[str] | None = None) -> None:
        """Record code and environment now, and whatever the known libraries fit until the run ends.

        Args:
            script: The script that runs; by default what Python was started with.
            arguments: Its command line; by default that of this process.
        """
        from modelyard.tracking import capture

        self._captures.enter_context(capture.capture_context(self.recorder))
        read = capture.read_code
        self._quietly("the code", lambda: capture.record_code(self.recorder, read(script=script, arguments=arguments)))
        environment = capture.read_environment
        self._quietly("the environment", lambda: capture.record_environment(self.recorder, environment()))

    def __enter__(self) -> ActiveRun:
        """Return the run, which is active already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run: failed if the block raised, killed if it was interrupted."""
        if error is None or (isinstance(error, SystemExit) and not error.code):
            self.finish()
        elif isinstance(error, KeyboardInterrupt):
            self.finish("killed", error="interrupted")
        else:
            self.finish("failed", error=f"{type(error).__name__}: {error}")

    def _quietly(self, what: str, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception:
            # The edge between training and the tracker. A log record, since a warning can be an error.
            if what not in self._told:
                self._told.add(what)
                logger.warning("Modelyard could not record %s. Training goes on.", what, exc_info=True)
