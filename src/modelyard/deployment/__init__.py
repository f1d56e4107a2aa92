"""The control plane of serving: endpoints, rollouts and the guard that watches them.

A new version comes as a canary: a rising share of the entities, under leases that bound how many answers it
may give before they are judged, against the champion's answers of the same moment. Each decision is a test with
a stated error rate, and no data is an answer of its own.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from modelyard.deployment.model import Canary, Check, Endpoint, Rollout, RolloutState, Verdict

if TYPE_CHECKING:
    from modelyard.deployment.arms import Outcome
    from modelyard.deployment.parts import RolloutOutcomes, Workflows
    from modelyard.deployment.placing import ExpectedBins, expected_bins
    from modelyard.deployment.service import Deployment

_HOMES = {
    "Deployment": "service",
    "ExpectedBins": "placing",
    "Outcome": "arms",
    "RolloutOutcomes": "parts",
    "Workflows": "parts",
    "expected_bins": "placing",
}

__all__ = [
    "Canary",
    "Check",
    "Deployment",
    "Endpoint",
    "ExpectedBins",
    "Outcome",
    "Rollout",
    "RolloutOutcomes",
    "RolloutState",
    "Verdict",
    "Workflows",
    "expected_bins",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
