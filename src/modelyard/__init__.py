"""Modelyard: from training script to watched production endpoint.

    import modelyard

    with modelyard.start_run("first", experiment="churn") as run:
        model = LogisticRegression().fit(features, label)   # recorded unasked
        modelyard.log({"roc_auc": 0.87})
        run.register_model(model, "churn", data=features)

Names load on first use: importing this package costs a few milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelyard.sdk.client import Client
    from modelyard.sdk.fluent import (
        active_run,
        client,
        log,
        log_artifact,
        log_model,
        log_params,
        register_model,
        set_tags,
        start_run,
        track,
    )
    from modelyard.settings import Settings, read_settings

__version__ = "0.1.0"

_HOMES = {
    "sdk.client": ("Client",),
    "sdk.fluent": (
        "active_run",
        "client",
        "log",
        "log_artifact",
        "log_model",
        "log_params",
        "register_model",
        "set_tags",
        "start_run",
        "track",
    ),
    "settings": ("Settings", "read_settings"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Client",
    "Settings",
    "__version__",
    "active_run",
    "client",
    "log",
    "log_artifact",
    "log_model",
    "log_params",
    "read_settings",
    "register_model",
    "set_tags",
    "start_run",
    "track",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_HOME_OF[name]}")
    if module.__name__.endswith(".fluent"):
        module.connect_with(_connect)
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _connect(settings: Settings) -> Client:
    """Open a client for the SDK; the one place below ``app`` that asks it, and only when a run starts."""
    from modelyard.app import connect

    return connect(settings)
