"""The registry service."""

from __future__ import annotations

from modelyard.registry.aliases import Aliases
from modelyard.registry.approvals import Approvals
from modelyard.registry.stages import Stages


class Registry(Aliases, Stages, Approvals):
    """Models, immutable versions, stages, aliases, approvals, decisions, rules and lineage.

    See ``Parts`` for what it is built from, and each parent for its use cases.
    """
