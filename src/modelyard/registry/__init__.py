"""The registry: models, immutable versions, stages, aliases, promotion rules, approvals, lineage.

A version's content is pinned by digest when it is registered and never changes; everything said about it later
has its history and its event.
"""

from modelyard.registry.contents import content_digest
from modelyard.registry.model import (
    STAGES,
    AliasChange,
    Approval,
    ApprovalStatus,
    Edge,
    FileRef,
    Lineage,
    Permission,
    PromotionCheck,
    PromotionRule,
    RegisteredModel,
    Stage,
    StageChange,
    StageRequest,
    StandingDecision,
    Version,
    VersionId,
    VersionLike,
    Vote,
)
from modelyard.registry.service import Registry

__all__ = [
    "STAGES",
    "AliasChange",
    "Approval",
    "ApprovalStatus",
    "Edge",
    "FileRef",
    "Lineage",
    "Permission",
    "PromotionCheck",
    "PromotionRule",
    "RegisteredModel",
    "Registry",
    "Stage",
    "StageChange",
    "StageRequest",
    "StandingDecision",
    "Version",
    "VersionId",
    "VersionLike",
    "Vote",
    "content_digest",
]
