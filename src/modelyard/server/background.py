"""Work that the control plane repeats: ticks of workflows, rollouts, monitors and clean-up."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modelyard.errors import Unavailable

_logger = logging.getLogger("modelyard.background")


@dataclass(frozen=True, slots=True)
class Chore:
    """Something to do again and again.

    Attributes:
        name: For the log and for readiness.
        run: Does it once; what it raises is logged, and it is tried again at its next turn.
        every_s: Seconds between two starts.
    """

    name: str
    run: Callable[[], object]
    every_s: float


class Background:
    """Runs chores one after the other on a thread of its own.

    Args:
        chores: What to do.
        monotonic: Clock of the intervals.
    """

    def __init__(self, chores: Sequence[Chore], *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._chores = chores
        self._monotonic = monotonic
        self._stopping = threading.Event()
        self._failing: dict[str, str] = {}
        self._thread = threading.Thread(target=self._work, name="modelyard-background", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the chore that runs now."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def failing(self) -> str | None:
        """Return which chores failed at their last turn, or None if all is well."""
        return "; ".join(f"{name}: {reason}" for name, reason in self._failing.items()) or None

    def _work(self) -> None:
        due = {chore.name: 0.0 for chore in self._chores}
        while not self._stopping.is_set():
            now = self._monotonic()
            for chore in self._chores:
                if now >= due[chore.name] and not self._stopping.is_set():
                    due[chore.name] = now + chore.every_s
                    self._try(chore)
            pause = min((at - self._monotonic() for at in due.values()), default=1.0)
            self._stopping.wait(max(0.01, pause))

    def _try(self, chore: Chore) -> None:
        try:
            chore.run()
        except Unavailable as error:
            self._failing[chore.name] = error.message
            _logger.warning("%s: %s", chore.name, error.message)
        except Exception as error:  # the edge of the process: one failing chore must not stop the others
            self._failing[chore.name] = f"{type(error).__name__}: {error}"
            _logger.exception("%s failed", chore.name)
        else:
            self._failing.pop(chore.name, None)
