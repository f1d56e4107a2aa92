"""The data plane: workers that answer predictions, and the log of what they answered.

The control plane publishes a route table (``RoutePublisher``); each worker
(``python -m modelyard.serving.worker``) loads what it names beside what answers now, checks it and swaps one
reference. Routing, canaries, shadows and capture happen inside the worker; a collector process turns captured
records into prediction rows.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelyard.serving.access import TokenRule, TokenTable, write_tokens
    from modelyard.serving.collector import Collector, Sink
    from modelyard.serving.model import (
        WEIGHT_TOTAL,
        EndpointRoute,
        Lease,
        LoadedModel,
        LoadFailure,
        RouteTable,
        VariantRoute,
        VariantStatus,
        WorkerStatus,
    )
    from modelyard.serving.publisher import LoadRefused, RoutePublisher, ServingPaths
    from modelyard.serving.worker import WorkerSettings

_HOMES = {
    "Collector": "collector",
    "EndpointRoute": "model",
    "Lease": "model",
    "LoadFailure": "model",
    "LoadRefused": "publisher",
    "LoadedModel": "model",
    "RoutePublisher": "publisher",
    "RouteTable": "model",
    "ServingPaths": "publisher",
    "Sink": "collector",
    "TokenRule": "access",
    "TokenTable": "access",
    "VariantRoute": "model",
    "VariantStatus": "model",
    "WEIGHT_TOTAL": "model",
    "WorkerSettings": "worker",
    "WorkerStatus": "model",
    "write_tokens": "access",
}

__all__ = [
    "WEIGHT_TOTAL",
    "Collector",
    "EndpointRoute",
    "Lease",
    "LoadFailure",
    "LoadRefused",
    "LoadedModel",
    "RoutePublisher",
    "RouteTable",
    "ServingPaths",
    "Sink",
    "TokenRule",
    "TokenTable",
    "VariantRoute",
    "VariantStatus",
    "WorkerSettings",
    "WorkerStatus",
    "write_tokens",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
