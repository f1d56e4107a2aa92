"""The preprocessing of a scikit-learn pipeline as numbers: impute, scale, one-hot, ordinal.

Scaling subtracts the mean and divides by the scale, as scikit-learn
does; a reciprocal would round differently and move values across tree thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.models.encoder import UNKNOWN, Coding, Encoder
from modelyard.models.faults import UnknownCategory
from modelyard.models.signature import Level

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class NumberStep:
    """``(fill(x) - mean) / scale`` from one column to one feature.

    Attributes:
        source: Input column.
        fill: Replaces NaN; None leaves it.
        mean: Subtracted.
        scale: Divides.
    """

    source: str
    fill: float | None = None
    mean: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class CategoryStep:
    """One column to one-hot features, or to one ordinal feature.

    Attributes:
        source: Input column.
        levels: Categories, in the encoder's order.
        null: Index of the category that null counts as; None if null is unknown.
        targets: One-hot: feature (from 0 within this step) of each category, -1 for a dropped one.
            Ordinal: None.
        unknown: Ordinal: value of unknown categories. One-hot: 0 (all features zero).
            None refuses them.
        missing: Ordinal: value of null where it is a category of its own.
    """

    source: str
    levels: tuple[Level, ...]
    null: int | None
    targets: tuple[int, ...] | None
    unknown: float | None
    missing: float | None = None

    @property
    def width(self) -> int:
        """Number of features that this step makes."""
        return 1 if self.targets is None else max(self.targets, default=-1) + 1


Step = NumberStep | CategoryStep


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps, each making the next features from left to right.

    Attributes:
        steps: In the order of the features.
        identity: Whether the features are the inputs, in the same order.
    """

    steps: tuple[Step, ...]
    identity: bool = field(init=False)
    _numbers: tuple[Any, ...] = field(init=False)
    _categories: tuple[tuple[CategoryStep, int, int], ...] = field(init=False)
    _width: int = field(init=False)

    def __post_init__(self) -> None:
        used = self.used
        offset, numbers, categories = 0, [], []
        for step in self.steps:
            if isinstance(step, NumberStep):
                numbers.append((used.index(step.source), offset, step))
                offset += 1
            else:
                categories.append((step, used.index(step.source), offset))
                offset += step.width
        object.__setattr__(self, "_width", offset)
        object.__setattr__(self, "_categories", tuple(categories))
        object.__setattr__(self, "_numbers", _stacked(numbers))
        plain = all(isinstance(s, NumberStep) and s == NumberStep(s.source) for s in self.steps)
        object.__setattr__(self, "identity", plain and len(used) == len(self.steps))

    @property
    def used(self) -> tuple[str, ...]:
        """Input columns that the plan reads, each once."""
        return tuple(dict.fromkeys(step.source for step in self.steps))

    def encoder(self, names: Sequence[str]) -> Encoder | None:
        """Return the encoder that makes this plan's matrix out of decoded rows.

        Args:
            names: Signature columns, in order.

        Returns:
            The encoder; None if two steps need different codes of one column, or a column is absent.
        """
        codings: dict[str, Coding] = {}
        numbers = {step.source for step in self.steps if isinstance(step, NumberStep)}
        for step in self.steps:
            if isinstance(step, CategoryStep):
                null = UNKNOWN if step.null is None else float(step.null)
                coding = Coding(step.levels, null, UNKNOWN)
                if step.source in numbers or codings.setdefault(step.source, coding) != coding:
                    return None
        if not set(self.used) <= set(names):
            return None
        return Encoder(tuple(names), self.used, codings)

    def apply(self, raw: Matrix) -> Matrix:
        """Turn an encoded matrix of shape ``(rows, len(used))`` into features ``(rows, features)``.

        Raises:
            UnknownCategory: If the pipeline's encoder would refuse a category.
        """
        if self.identity:
            return raw
        out = np.zeros((len(raw), self._width), dtype=np.float64)
        if self._numbers:
            sources, targets, fill, mean, scale = self._numbers
            block = raw[:, sources]
            if fill is not None:
                block = np.where(np.isnan(block) & ~np.isnan(fill), fill, block)
            out[:, targets] = (block - mean) / scale
        for step, source, offset in self._categories:
            _place(step, raw[:, source], out, offset)
        return out

    def to_json(self) -> list[dict[str, Any]]:
        """Return the steps as JSON."""
        return [_step_json(step) for step in self.steps]

    @staticmethod
    def from_json(document: Sequence[dict[str, Any]]) -> Plan:
        """Read the steps from JSON."""
        return Plan(tuple(_step(entry) for entry in document))


def _stacked(numbers: list[tuple[int, int, NumberStep]]) -> tuple[Any, ...]:
    if not numbers:
        return ()
    fills = np.array([math.nan if n.fill is None else n.fill for _, _, n in numbers])
    return (
        np.array([source for source, _, _ in numbers], dtype=np.intp),
        np.array([target for _, target, _ in numbers], dtype=np.intp),
        None if bool(np.isnan(fills).all()) else fills,
        np.array([n.mean for _, _, n in numbers]),
        np.array([n.scale for _, _, n in numbers]),
    )


def _place(step: CategoryStep, codes: Matrix, out: Matrix, offset: int) -> None:
    index = codes.astype(np.intp)
    known = index >= 0
    if step.unknown is None and not bool(known.all()):
        raise UnknownCategory(step.source)
    if step.targets is None:
        values = np.arange(len(step.levels) + 1, dtype=np.float64)
        if step.null == len(step.levels):
            values[step.null] = math.nan if step.missing is None else step.missing
        out[:, offset] = np.where(known, values[index], step.unknown if step.unknown is not None else math.nan)
        return
    rows = np.flatnonzero(known)
    targets = np.array(step.targets, dtype=np.intp)[index[rows]]
    kept = targets >= 0
    out[rows[kept], offset + targets[kept]] = 1.0


def _step_json(step: Step) -> dict[str, Any]:
    if isinstance(step, NumberStep):
        return {"source": step.source, "fill": step.fill, "mean": step.mean, "scale": step.scale}
    return {
        "source": step.source,
        "levels": list(step.levels),
        "null": step.null,
        "targets": None if step.targets is None else list(step.targets),
        "unknown": _no_nan(step.unknown),
        "missing": _no_nan(step.missing),
    }


def _no_nan(value: float | None) -> float | str | None:
    return "nan" if value is not None and math.isnan(value) else value


def _step(entry: dict[str, Any]) -> Step:
    if "levels" not in entry:
        return NumberStep(entry["source"], entry["fill"], entry["mean"], entry["scale"])
    return CategoryStep(
        source=entry["source"],
        levels=tuple(entry["levels"]),
        null=entry["null"],
        targets=None if entry["targets"] is None else tuple(entry["targets"]),
        unknown=None if entry["unknown"] is None else float(entry["unknown"]),
        missing=None if entry["missing"] is None else float(entry["missing"]),
    )
