"""Compare a native engine with the model's own code, and record the outcome."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.models.faults import BadModelFolder
from modelyard.models.frame import Columns
from modelyard.models.info import VERIFICATION_FILE
from modelyard.models.mlmodel import versions_of

LINEAR_TOLERANCE = 1e-12
"""Allowed difference of a lifted linear model, relative to the largest score (at least 1). The dot products
add the same terms in another order, so they differ by a few units in the last place of the largest term."""
_PACKAGES = ("lightgbm", "numpy", "onnxruntime", "scikit-learn", "xgboost")


@dataclass(frozen=True, slots=True)
class Verification:
    """Outcome of one comparison.

    Attributes:
        engine: Native engine that was compared; ``own`` if the model has none.
        passed: Whether it may be used.
        rows: Number of rows compared.
        rows_digest: SHA-256 (hex) of those rows.
        max_abs_difference: Largest absolute difference of a score; None if a score was NaN on one side only.
        label_flips: Rows whose label differs.
        tolerance: Largest difference that passes; 0.0 means bit equality.
        versions: Distributions at the time of the comparison.
    """

    engine: str
    passed: bool
    rows: int
    rows_digest: str
    max_abs_difference: float | None
    label_flips: int
    tolerance: float
    versions: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON."""
        return {**asdict(self), "versions": dict(self.versions)}

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Verification:
        """Read the record.

        Raises:
            BadModelFolder: If a field is absent.
        """
        try:
            return Verification(**{name: document[name] for name in Verification.__slots__})
        except (KeyError, TypeError) as error:
            raise BadModelFolder(f"the verification record is damaged ({error})", file=VERIFICATION_FILE) from error

    @property
    def stale(self) -> bool:
        """Whether a library has another version now than when the comparison was made."""
        return dict(self.versions) != runtime_versions()


def runtime_versions() -> dict[str, str]:
    """Return the installed versions on which predictions depend."""
    return versions_of(_PACKAGES)


def compare(
    engine: str,
    *,
    found: npt.NDArray[np.float64],
    expected: npt.NDArray[np.float64],
    label_flips: int,
    exact: bool,
    digest: str,
) -> Verification:
    """Judge an engine's scores against the model's own.

    Args:
        engine: Its name.
        found: Its scores, ``(rows,)`` or ``(rows, k)``.
        expected: The model's own, same shape.
        label_flips: Rows whose labels differ.
        exact: Whether nothing but bit equality passes.
        digest: Of the rows.
    """
    tolerance = 0.0 if exact else LINEAR_TOLERANCE * max(1.0, _largest(expected))
    same_shape = found.shape == expected.shape
    nan_agrees = same_shape and bool(np.array_equal(np.isnan(found), np.isnan(expected)))
    difference = None
    if nan_agrees:
        gap = np.abs(found - expected)
        difference = _largest(gap)
    return Verification(
        engine=engine,
        passed=difference is not None and difference <= tolerance and label_flips == 0,
        rows=len(expected),
        rows_digest=digest,
        max_abs_difference=difference,
        label_flips=label_flips,
        tolerance=tolerance,
        versions=runtime_versions(),
    )


def _largest(values: npt.NDArray[np.float64]) -> float:
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max()) if finite.size else 0.0


def rows_digest(columns: Columns) -> str:
    """Return the SHA-256 (hex) of checked columns: names, order and values."""
    total = hashlib.sha256()
    for name, values in columns.items():
        total.update(f"{len(name)}:{name}:{values.dtype.str}:".encode())
        total.update(
            repr(values.tolist()).encode() if values.dtype == object else np.ascontiguousarray(values).tobytes()
        )
    return total.hexdigest()


def record_verification(folder: Path, verification: Verification) -> None:
    """Write the record into a model folder, where ``Predictor.load`` honours it.

    Do this before the folder's digest is taken; a later one is kept elsewhere and passed to ``load``.
    """
    text = json.dumps(verification.to_json(), indent=1, sort_keys=True, allow_nan=False)
    (folder / VERIFICATION_FILE).write_text(text + "\n", encoding="utf-8")


def read_verification(folder: Path) -> Verification | None:
    """Read the record of a model folder, or None if there is none.

    Raises:
        BadModelFolder: If it is damaged.
    """
    path = folder / VERIFICATION_FILE
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadModelFolder(f"the verification record is no JSON ({error})", file=VERIFICATION_FILE) from error
    return Verification.from_json(document if isinstance(document, dict) else {})
