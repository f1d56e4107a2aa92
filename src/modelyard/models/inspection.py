"""What a server asks of a model that it does not trust, each run in a confined child.

The functions named ``*_here`` load the model in the calling process and speak JSON: they are the targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelyard.models.comparison import verify_engine
from modelyard.models.confined import DEFAULT_MEMORY_BYTES, run_confined
from modelyard.models.info import read_info
from modelyard.models.loading import load_own
from modelyard.models.predictor import Predictor
from modelyard.models.verification import Verification


def inspect_confined(folder: Path, *, timeout_s: float, memory_bytes: int = DEFAULT_MEMORY_BYTES) -> dict[str, Any]:
    """Load a model in a confined child and tell what it is.

    Returns:
        ``flavor``, ``model_class``, ``task``, ``classes``, ``engine``.

    Raises:
        ConfinedFailure: If it cannot be loaded within the limits.
    """
    args = {"folder": str(folder.resolve())}
    result = run_confined(f"{__name__}:inspect_here", args, timeout_s=timeout_s, memory_bytes=memory_bytes)
    return dict(result.value)


def verify_confined(
    folder: Path,
    rows: list[dict[str, Any]],
    *,
    timeout_s: float,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
) -> Verification:
    """Run ``verify_engine`` in a confined child.

    Args:
        folder: The model.
        rows: JSON rows that fit the model's own inputs.
        timeout_s: Limit in seconds.
        memory_bytes: Limit of its address space.

    Raises:
        ConfinedFailure: If it gives no answer within the limits.
    """
    args = {"folder": str(folder.resolve()), "rows": rows}
    result = run_confined(f"{__name__}:verify_here", args, timeout_s=timeout_s, memory_bytes=memory_bytes)
    return Verification.from_json(result.value)


def inspect_here(folder: str) -> Mapping[str, Any]:
    """Load a model in this process, trusting it, and describe it."""
    info = read_info(Path(folder))
    own = load_own(info, trust=True)
    kind = type(own.native_object)
    return {
        "flavor": info.flavor,
        "model_class": f"{kind.__module__}.{kind.__qualname__}",
        "task": own.traits.task,
        "classes": list(own.traits.classes),
        "engine": Predictor.load(Path(folder), trust=True).engine,
    }


def verify_here(folder: str, rows: list[dict[str, Any]]) -> Mapping[str, Any]:
    """Verify a model in this process, trusting it."""
    return verify_engine(Path(folder), rows, trust=True).to_json()
