"""The loop that closes itself: triggers, training in a child, champion against challenger, release.

``Retraining`` declares recipes and answers triggers, ``ReleaseSteps`` is the workflow that a trigger starts, and
``Loop`` is what the control plane repeats. Names are loaded on first use, so that the child of a training loads
what it needs and no more.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelyard.retraining.loop import Loop, LoopParts
    from modelyard.retraining.model import (
        ApprovalRule,
        Recipe,
        Release,
        Retrain,
        RollOut,
        RolloutOutcome,
        TriggerDecision,
        TriggerEvent,
    )
    from modelyard.retraining.project import pack, unpack
    from modelyard.retraining.release import LabelledRows, ReleaseParts, ReleaseSteps
    from modelyard.retraining.releases import Releases
    from modelyard.retraining.service import MonitoredFacts, Retraining
    from modelyard.retraining.trail import Trail

_HOMES = {
    "loop": ("Loop", "LoopParts"),
    "model": (
        "ApprovalRule",
        "Recipe",
        "Release",
        "Retrain",
        "RollOut",
        "RolloutOutcome",
        "TriggerDecision",
        "TriggerEvent",
    ),
    "project": ("pack", "unpack"),
    "release": ("LabelledRows", "ReleaseParts", "ReleaseSteps"),
    "releases": ("Releases",),
    "service": ("MonitoredFacts", "Retraining"),
    "trail": ("Trail",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "ApprovalRule",
    "LabelledRows",
    "Loop",
    "LoopParts",
    "MonitoredFacts",
    "Recipe",
    "Release",
    "ReleaseParts",
    "ReleaseSteps",
    "Releases",
    "Retrain",
    "Retraining",
    "RollOut",
    "RolloutOutcome",
    "Trail",
    "TriggerDecision",
    "TriggerEvent",
    "pack",
    "unpack",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
