"""What is recorded unasked: code, environment, data, and what scikit-learn, LightGBM and XGBoost train.

``capture_context(run)`` turns the hooks on for the code inside it. Nothing here changes what training computes
or brings it down: what cannot be recorded is said once and left out.
"""

from modelyard.tracking.capture.autolog import LIBRARIES, capture_context, uninstall
from modelyard.tracking.capture.code import CodeState, read_code, record_code
from modelyard.tracking.capture.data import (
    content_digest,
    describe,
    pack_profile,
    profile_of,
    record_data,
    to_table,
    unpack_profile,
)
from modelyard.tracking.capture.environment import Environment, read_environment, record_environment

__all__ = [
    "LIBRARIES",
    "CodeState",
    "Environment",
    "capture_context",
    "content_digest",
    "describe",
    "pack_profile",
    "profile_of",
    "read_code",
    "read_environment",
    "record_code",
    "record_data",
    "record_environment",
    "to_table",
    "uninstall",
    "unpack_profile",
]
