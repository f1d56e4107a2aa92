"""Lift preprocessing out of fitted scikit-learn objects into a ``Plan``.

Only classes whose arithmetic is reproduced exactly are lifted: ``SimpleImputer``, ``StandardScaler``,
``OneHotEncoder``, ``OrdinalEncoder``, inside ``ColumnTransformer`` and ``Pipeline``. Anything else gives no
plan, and the model's own code predicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from modelyard.models.frame import is_null
from modelyard.models.plan import CategoryStep, NumberStep, Plan, Step
from modelyard.models.signature import Level


def identity(names: Sequence[str]) -> list[NumberStep]:
    """Return the steps that pass every column through."""
    return [NumberStep(name) for name in names]


def lift_plan(transformers: Sequence[Any], names: Sequence[str]) -> Plan | None:
    """Lift a chain of fitted transformers out of scikit-learn.

    Args:
        transformers: Steps before the final estimator, in order.
        names: Input columns, in the order of training.

    Returns:
        The plan, or None if any part is not one whose arithmetic is known.
    """
    steps: list[Step] | None = list(identity(names))
    for transformer in transformers:
        if steps is None:
            return None
        steps = _through(transformer, steps)
    if steps is None or any(isinstance(s, CategoryStep) and s.targets == () for s in steps):
        return None
    return Plan(tuple(steps))


def _through(transformer: Any, steps: list[Step]) -> list[Step] | None:
    if isinstance(transformer, str):
        return steps if transformer == "passthrough" else None
    kind = type(transformer)
    if not kind.__module__.startswith("sklearn."):
        return None
    extractors = {
        "Pipeline": _pipeline,
        "ColumnTransformer": _column_transformer,
        "StandardScaler": _scaler,
        "SimpleImputer": _imputer,
        "OneHotEncoder": _one_hot,
        "OrdinalEncoder": _ordinal,
        "FunctionTransformer": _passthrough,
    }
    extractor = extractors.get(kind.__name__)
    return extractor(transformer, steps) if extractor else None


def _passthrough(transformer: Any, steps: list[Step]) -> list[Step] | None:
    return steps if transformer.func is None else None


def _pipeline(pipeline: Any, steps: list[Step]) -> list[Step] | None:
    current: list[Step] | None = steps
    for _, transformer in pipeline.steps:
        if current is None:
            return None
        current = _through(transformer, current)
    return current


def _column_transformer(transformer: Any, steps: list[Step]) -> list[Step] | None:
    if transformer.transformer_weights or not all(
        isinstance(s, NumberStep) and s == NumberStep(s.source) for s in steps
    ):
        return None
    names = [step.source for step in steps]
    out: list[Step] = []
    for _, part, columns in transformer.transformers_:
        if isinstance(part, str) and part == "drop":
            continue
        picked = _resolve(columns, names)
        made = None if picked is None else _through(part, [NumberStep(name) for name in picked])
        if made is None:
            return None
        out += made
    return out


def _resolve(columns: Any, names: list[str]) -> list[str] | None:
    items = [columns] if isinstance(columns, str | int) else columns
    if isinstance(items, slice):
        items = range(len(names))[items] if not isinstance(items.start or items.stop, str) else None
    if items is None:
        return None
    picked = list(items)
    if picked and all(isinstance(item, bool | np.bool_) for item in picked):
        return [name for name, use in zip(names, picked, strict=True) if use]
    resolved = [item if isinstance(item, str) else names[int(item)] for item in picked]
    return resolved if set(resolved) <= set(names) else None


def _scaler(scaler: Any, steps: list[Step]) -> list[Step] | None:
    means = np.zeros(len(steps)) if not scaler.with_mean else scaler.mean_
    scales = np.ones(len(steps)) if not scaler.with_std else scaler.scale_
    out: list[Step] = []
    for step, mean, scale in zip(steps, means, scales, strict=True):
        if not isinstance(step, NumberStep) or step.mean != 0.0 or step.scale != 1.0:
            return None
        out.append(replace(step, mean=float(mean), scale=float(scale)))
    return out


def _imputer(imputer: Any, steps: list[Step]) -> list[Step] | None:
    if imputer.add_indicator or not is_null(imputer.missing_values):
        return None
    out: list[Step] = []
    for step, fill in zip(steps, imputer.statistics_, strict=True):
        if not isinstance(step, NumberStep) or step != NumberStep(step.source) or is_null(fill):
            return None
        if isinstance(fill, str):
            # A placeholder that only an encoder further on can use: null counts as this category.
            out.append(CategoryStep(step.source, (fill,), 0, (), None))
        else:
            out.append(replace(step, fill=float(fill)))
    return out


def _categories(step: Step, categories: Any) -> tuple[tuple[Level, ...], int | None] | None:
    """Return levels and the index that null counts as, given what came before the encoder."""
    levels = [item.item() if isinstance(item, np.generic) else item for item in categories.tolist()]
    null = next((i for i, level in enumerate(levels) if is_null(level)), None)
    if null is not None:
        if null != len(levels) - 1:
            return None
        levels = levels[:-1]
    if isinstance(step, CategoryStep):
        if step.targets != () or step.levels[0] not in levels:
            return None
        null = levels.index(step.levels[0])
    elif step.mean != 0.0 or step.scale != 1.0:
        return None
    elif step.fill is not None:
        if step.fill not in levels:
            return None
        null = levels.index(step.fill)
    return tuple(levels), null


def _one_hot(encoder: Any, steps: list[Step]) -> list[Step] | None:
    if encoder.min_frequency is not None or encoder.max_categories is not None:
        return None
    drops = encoder.drop_idx_ if encoder.drop_idx_ is not None else [None] * len(steps)
    out: list[Step] = []
    for step, categories, drop in zip(steps, encoder.categories_, drops, strict=True):
        found = _categories(step, categories)
        if found is None:
            return None
        kept = [i for i in range(len(categories)) if i != drop]
        targets = tuple(kept.index(i) if i in kept else -1 for i in range(len(categories)))
        unknown = 0.0 if encoder.handle_unknown in {"ignore", "infrequent_if_exist"} else None
        if encoder.handle_unknown == "warn":
            return None
        out.append(CategoryStep(step.source, found[0], found[1], targets, unknown))
    return out


def _ordinal(encoder: Any, steps: list[Step]) -> list[Step] | None:
    if getattr(encoder, "min_frequency", None) is not None or getattr(encoder, "max_categories", None) is not None:
        return None
    out: list[Step] = []
    for step, categories in zip(steps, encoder.categories_, strict=True):
        found = _categories(step, categories)
        if found is None:
            return None
        unknown = float(encoder.unknown_value) if encoder.handle_unknown == "use_encoded_value" else None
        missing = float(encoder.encoded_missing_value)
        out.append(CategoryStep(step.source, found[0], found[1], None, unknown, missing))
    return out
