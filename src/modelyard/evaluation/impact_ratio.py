"""The impact ratio: the lowest selection rate of a group over the highest."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt

from modelyard.errors import Invalid
from modelyard.evaluation.bootstrap import DRAWS, percentile_interval
from modelyard.evaluation.estimate import FloatArray, Insufficient, IntArray, wilson
from modelyard.evaluation.inputs import MISSING, group_names


@dataclass(frozen=True, slots=True)
class GroupRate:
    """Selection in one group.

    Attributes:
        group: Name; ``(missing)`` for rows without one.
        n: Rows.
        selected: Rows selected.
        rate: Selection rate.
        low: Lower end of its Wilson interval.
        high: Upper end of its Wilson interval.
        ratio: Rate over the reference rate; None if not compared (missing group).
    """

    group: str
    n: int
    selected: int
    rate: float
    low: float
    high: float
    ratio: float | None


@dataclass(frozen=True, slots=True)
class ImpactRatio:
    """Lowest ratio of a group, with its interval, and the table behind it.

    Attributes:
        value: Smallest ratio over the compared groups, in [0, inf).
        low: Lower end of its interval.
        high: Upper end of its interval.
        n: Rows of the compared groups.
        smallest_n: Rows of the smallest compared group.
        group: The group with the lowest rate.
        reference: The group it is compared with.
        groups: All groups, by name.
        method: ``"bootstrap-multinomial"`` or ``"wilson-mover"``.
        reason: Always empty.
    """

    value: float
    low: float
    high: float
    n: int
    smallest_n: int
    group: str
    reference: str
    groups: tuple[GroupRate, ...]
    method: str
    reason: str = ""


def impact_ratio(
    group: npt.ArrayLike,
    decision: npt.ArrayLike,
    *,
    rng: np.random.Generator,
    reference: str | None = None,
    confidence: float = 0.95,
    draws: int = DRAWS,
) -> ImpactRatio | Insufficient:
    """Compare selection rates between groups.

    The interval is a bootstrap of the group x decision table, so its cost does not depend on the number of
    rows; the groups with the lowest and highest rate are found anew in each replicate. Where the lowest or
    the reference group has nobody or everybody selected, the bootstrap would have no width: MOVER on
    Wilson's intervals of the two rates then stands in.

    Args:
        group: Shape (n,): group of each row. Rows without one (None, NaN) are counted as ``(missing)`` and
            take no part in the ratio.
        decision: Shape (n,): 0/1 or booleans, 1 = selected.
        rng: Source of randomness.
        reference: Group to compare with; the one with the highest rate by default.
        confidence: Two-sided level.
        draws: Bootstrap replicates.

    Returns:
        The ratio, or why there is none (fewer than two groups, nobody selected).

    Raises:
        Invalid: If shapes differ, a decision is not 0 or 1, or the reference group does not occur.

    Source:
        EEOC Uniform Guidelines 29 CFR 1607.4 D (ratio); Donner & Zou (2012), MOVER for ratios.
    """
    names, chosen = np.asarray(group), np.asarray(decision)
    if names.ndim != 1 or names.shape != chosen.shape:
        raise Invalid(f"Groups of shape {names.shape} do not fit decisions of shape {chosen.shape}.")
    taken = chosen.astype(np.float64)
    if not np.isin(taken, (0.0, 1.0)).all():
        raise Invalid("Decisions must be 0 or 1, none missing.")
    labels, codes = np.unique(group_names(names), return_inverse=True)
    n = np.bincount(codes, minlength=len(labels)).astype(np.int64)
    selected = np.bincount(codes, weights=taken, minlength=len(labels)).astype(np.int64)
    compared = labels != MISSING
    if reference is not None and reference not in labels[compared]:
        raise Invalid(f"The reference group {reference!r} does not occur in the data.", group=reference)
    total = int(n[compared].sum())
    if compared.sum() < 2:
        return Insufficient(f"{int(compared.sum())} group(s) with rows; two are needed to compare", total)
    if not selected[compared].any() or (reference is not None and not selected[labels == reference].any()):
        return Insufficient("nobody was selected in the group to compare with", total)
    return _ratio_of(labels, n, selected, compared, reference=reference, rng=rng, confidence=confidence, draws=draws)


def _ratio_of(
    labels: npt.NDArray[np.str_],
    n: IntArray,
    selected: IntArray,
    compared: npt.NDArray[np.bool_],
    *,
    reference: str | None,
    rng: np.random.Generator,
    confidence: float,
    draws: int,
) -> ImpactRatio:
    rate = selected / n
    candidates = np.flatnonzero(compared)
    top = int(candidates[rate[candidates].argmax()])
    if reference is not None:
        top = int(np.flatnonzero(labels == reference)[0])
    others = candidates[candidates != top]
    lowest = int(others[rate[others].argmin()])
    table = tuple(
        GroupRate(
            str(label), int(n[i]), int(selected[i]), float(rate[i]),
            *wilson(int(selected[i]), int(n[i]), confidence=confidence),
            float(rate[i] / rate[top]) if compared[i] else None,
        )
        for i, label in enumerate(labels)
    )  # fmt: skip
    if any(selected[i] in (0, n[i]) for i in (lowest, top)):
        low, high = _mover(table[lowest], table[top])
        method = "wilson-mover"
    else:
        fixed = None if reference is None else int(np.flatnonzero(candidates == top)[0])
        ratios = _bootstrap_ratios(n[candidates], selected[candidates], fixed, rng, draws)
        low, high = percentile_interval(ratios, confidence=confidence)
        method = "bootstrap-multinomial"
    return ImpactRatio(
        float(rate[lowest] / rate[top]), low, high, int(n[candidates].sum()), int(n[candidates].min()),
        str(labels[lowest]), str(labels[top]), table, method,
    )  # fmt: skip


def _bootstrap_ratios(
    n: IntArray, selected: IntArray, reference: int | None, rng: np.random.Generator, draws: int
) -> FloatArray:
    total = int(n.sum())
    cells = np.concatenate([selected, n - selected]) / total
    drawn = rng.multinomial(total, cells, size=draws)
    hits, misses = np.split(drawn, 2, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = hits / (hits + misses)
        if reference is None:
            return np.asarray(np.nanmin(rates, axis=1) / np.nanmax(rates, axis=1), dtype=np.float64)
        others = np.delete(rates, reference, axis=1)
        return np.asarray(np.nanmin(others, axis=1) / rates[:, reference], dtype=np.float64)


def _mover(low_group: GroupRate, top_group: GroupRate) -> tuple[float, float]:
    p1, l1, u1 = low_group.rate, low_group.low, low_group.high
    p2, l2, u2 = top_group.rate, top_group.low, top_group.high
    product = p1 * p2
    below = product**2 - l1 * u2 * (2 * p1 - l1) * (2 * p2 - u2)
    above = product**2 - u1 * l2 * (2 * p1 - u1) * (2 * p2 - l2)
    low = (product - sqrt(max(0.0, below))) / (u2 * (2 * p2 - u2)) if 2 * p2 > u2 else 0.0
    return max(0.0, low), (product + sqrt(max(0.0, above))) / (l2 * (2 * p2 - l2))
