"""Turning the hooks on: installed when a library is or becomes imported, active only inside a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType

from modelyard.tracking.capture import boosting, estimators
from modelyard.tracking.capture.hooks import Patches, Session, session
from modelyard.tracking.capture.importing import ImportWatch
from modelyard.tracking.recorder import RunRecorder

logger = logging.getLogger("modelyard.tracking")

# Library, the module after whose import its hooks can be installed, and what installs them.
_HOOKS: dict[str, tuple[str, Callable[[ModuleType, Patches], None]]] = {
    "sklearn": ("sklearn.base", estimators.install),
    "lightgbm": ("lightgbm", boosting.install_lightgbm),
    "xgboost": ("xgboost", boosting.install_xgboost),
}
LIBRARIES = tuple(_HOOKS)

_patches = Patches()
_watch = ImportWatch()
_wanted: set[str] = set()


@contextmanager
def capture_context(run: RunRecorder, *, libraries: Iterable[str] = LIBRARIES) -> Iterator[None]:
    """Record what the libraries train inside the block, in this thread and the tasks that it starts.

    Hooks are installed once a library is imported, which this never does, and stay installed; outside a run they
    call straight through. Only the outermost fit is recorded: a search's or a pipeline's own fits are not.

    Args:
        run: Where to.
        libraries: Of ``LIBRARIES``.
    """
    for library in libraries:
        _await(library)
    token = session.set(Session(run))
    try:
        yield
    finally:
        session.reset(token)


def uninstall() -> None:
    """Put back everything that was replaced in foreign libraries, and wait for no import."""
    _watch.stop()
    _patches.undo()
    _wanted.clear()


def _await(library: str) -> None:
    if library in _wanted:
        return
    _wanted.add(library)
    module, install = _HOOKS[library]

    def hook(imported: ModuleType) -> None:
        try:
            install(imported, _patches)
        except Exception:
            # The edge to a foreign library, perhaps of a release that did not exist yet.
            logger.warning("Modelyard cannot record %s of this version by itself.", library, exc_info=True)

    _watch.when_imported(module, hook)
