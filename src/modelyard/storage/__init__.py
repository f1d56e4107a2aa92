"""Four stores.

``database`` (metadata), ``objects`` (content by digest), ``series`` (metric history) and ``predictions``
(the inference log).
"""

from modelyard.storage.database import Database, Json, Transaction, UtcTime, metadata
from modelyard.storage.ulid import NewId, ulid

__all__ = ["Database", "Json", "NewId", "Transaction", "UtcTime", "metadata", "ulid"]
