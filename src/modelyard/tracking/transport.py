"""How a recorder reaches the service: in this process, or over the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from modelyard.tracking.batch import Batch


@dataclass(frozen=True, slots=True)
class Transport:
    """Two calls that return once the service has made the data durable.

    Attributes:
        send: Applies a batch. Raises a ``ModelyardError``: ``Unavailable`` (or any error that is not of the
            tree) means "try again later", every other class "never".
        upload: Puts bytes or a file into the object store and returns their digest.
    """

    send: Callable[[Batch], None]
    upload: Callable[[bytes | Path], str]
