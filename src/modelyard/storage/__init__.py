"""Four stores.

``database`` (metadata), ``objects`` (content by digest), ``series`` (metric history) and ``predictions``
(the inference log). The database's names are loaded on first use, so that a serving worker, which only
appends predictions, never loads SQLAlchemy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from modelyard.storage.ulid import NewId, ulid

if TYPE_CHECKING:
    from modelyard.storage.database import Database, Json, Transaction, UtcTime, metadata

__all__ = ["Database", "Json", "NewId", "Transaction", "UtcTime", "metadata", "ulid"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("modelyard.storage.database"), name)
