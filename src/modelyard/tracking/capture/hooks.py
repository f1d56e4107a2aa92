"""What the hooks share: which run is being captured, which fit is the outermost, and that nothing breaks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from modelyard.tracking.recorder import RunRecorder

logger = logging.getLogger("modelyard.tracking")

MARK = "__modelyard_original__"


@dataclass(slots=True)
class Session:
    """One run while its training code is running.

    Attributes:
        fits: Fits recorded so far; the second and later ones log their parameters under a prefix.
        told: Causes that were said.
    """

    run: RunRecorder
    fits: int = 0
    told: set[str] = field(default_factory=set)

    def prefix(self) -> str:
        """Count one more fit and return the prefix of its names, empty for the first."""
        self.fits += 1
        return "" if self.fits == 1 else f"fit{self.fits}."


session: ContextVar[Session | None] = ContextVar("modelyard_capture", default=None)
_outermost: ContextVar[object | None] = ContextVar("modelyard_fit", default=None)


def outermost() -> object | None:
    """Return the model or library whose fit is under way, the outermost one; None outside any fit."""
    return _outermost.get()


@contextmanager
def fitting(subject: object) -> Iterator[None]:
    """Mark a fit as the outermost, so that the fits inside it are not recorded for themselves."""
    token = _outermost.set(subject)
    try:
        yield
    finally:
        _outermost.reset(token)


def guarded(active: Session, what: str, action: Callable[..., Any], *args: Any) -> Any:
    """Call an action and return its result; if it fails, say so once and return None.

    The state of NumPy's global generator is put back, so that recording draws nothing from training.
    """
    import numpy as np

    state = np.random.get_state()  # noqa: NPY002 - the global generator is what training may use
    try:
        return action(*args)
    except Exception:  # the edge between the foreign library's training and the tracker
        if what not in active.told:
            active.told.add(what)
            logger.warning("Modelyard could not record %s. Training goes on.", what, exc_info=True)
        return None
    finally:
        np.random.set_state(state)  # noqa: NPY002


class Patches:
    """Replaced attributes of foreign modules and classes, each of which can be put back."""

    def __init__(self) -> None:
        self._replaced: list[tuple[object, str, object, bool]] = []

    def replace(self, owner: Any, name: str, value: object) -> None:
        """Set an attribute and remember what was there, and whether the owner had it itself."""
        own = name in vars(owner)
        self._replaced.append((owner, name, vars(owner).get(name), own))
        setattr(owner, name, value)

    def undo(self) -> None:
        """Put everything back, last first."""
        while self._replaced:
            owner, name, value, own = self._replaced.pop()
            if own:
                setattr(owner, name, value)
            else:
                delattr(owner, name)
