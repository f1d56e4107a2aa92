"""Champion against challenger: promote, reject, or not enough evidence for either."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from modelyard.errors import Invalid
from modelyard.evaluation import paired_bootstrap
from modelyard.evaluation.bootstrap import DRAWS, NORMAL_FROM, Units
from modelyard.evaluation.delong import FEWEST_PER_CLASS, delong_paired
from modelyard.evaluation.estimate import FloatArray, Insufficient, normal_quantile
from modelyard.evaluation.evaluate import distinct_rows
from modelyard.evaluation.inputs import Sample, Task, group_names, read_sample
from modelyard.evaluation.mcnemar import mcnemar
from modelyard.evaluation.metrics import Metric, Rank, metric_of
from modelyard.evaluation.noninferiority import NonInferiority, judge_margin

ComparisonVerdict: TypeAlias = Literal["promote", "reject", "inconclusive"]

ALL_ROWS = "(all)"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The answer of a gate, with the numbers that caused it.

    ``difference`` and its interval are a *gain*: positive means that the challenger is better, also for
    metrics where lower is better.

    Attributes:
        verdict: ``promote``, ``reject`` or ``inconclusive``.
        test: ``"delong"``, ``"mcnemar"``, ``"paired-bootstrap"`` or ``"none"``.
        metric: Name of the metric.
        champion: The champion's value; None without usable data.
        challenger: The challenger's value; None without usable data.
        difference: Gain of the challenger; None without usable data.
        interval: Two-sided 1 - 2 alpha interval of the gain: each bound is one-sided at ``alpha``.
        p_value: One-sided: chance of such a gain between equal models.
        n: Rows.
        alpha: Level of each one-sided test.
        min_gain: Smallest gain worth a change.
        rows_needed: If inconclusive: about how many rows would settle a gain of the observed size
            (80 % power); None if no number would.
        reason: One or two sentences for a manager.
    """

    verdict: ComparisonVerdict
    test: str
    metric: str
    champion: float | None
    challenger: float | None
    difference: float | None
    interval: tuple[float, float] | None
    p_value: float | None
    n: int
    alpha: float
    min_gain: float
    rows_needed: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class _Paired:
    """What every paired test gives, oriented so that a positive gain is better."""

    test: str
    champion: float
    challenger: float
    gain: float
    low: float
    high: float
    p_better: float
    p_worse: float


class _PairedTest(Protocol):
    @property
    def difference(self) -> float: ...
    @property
    def p_greater(self) -> float: ...
    @property
    def p_less(self) -> float: ...
    def bounds(self, *, confidence: float) -> tuple[float, float]: ...


def compare(
    y_true: npt.ArrayLike,
    champion: npt.ArrayLike,
    challenger: npt.ArrayLike,
    *,
    metric: str,
    task: Task,
    rng: np.random.Generator,
    alpha: float = 0.05,
    min_gain: float = 0.0,
    cluster: npt.ArrayLike | None = None,
    block: int | None = None,
    threshold: float = 0.5,
    classes: Sequence[object] | None = None,
    draws: int = DRAWS,
) -> Comparison:
    """Decide between two models scored on the same labelled rows, which neither was trained on.

    The test follows from the metric: DeLong for ROC AUC, McNemar for accuracy, else the paired bootstrap
    (also for accuracy with clusters, and for anything with blocks). All are one-sided at ``alpha``:

    - *promote* if the gain is significantly above 0 and the observed gain is at least ``min_gain``;
    - *reject* if the upper bound of the gain is below ``min_gain`` (for 0: significantly worse);
    - *inconclusive* otherwise, and whenever the data cannot tell.

    Args:
        y_true: Shape (n,), labels.
        champion: Predictions of the model in use; forms as in :func:`evaluate`.
        challenger: Predictions of the new model for the same rows.
        metric: Name of a metric of the task.
        task: What is predicted.
        rng: Source of randomness of the bootstrap.
        alpha: Chance of promoting a challenger that is not better, in (0, 0.5).
        min_gain: Smallest gain worth a change, >= 0, in the metric's unit.
        cluster: Shape (n,), entity of each row where entities repeat.
        block: Block length where rows are a time series, in order.
        threshold: Binary score from which on a row counts as class 1.
        classes: Class labels in the order of the probability columns.
        draws: Bootstrap replicates.

    Raises:
        Invalid: If shapes do not fit, or alpha or min_gain is out of range.
        NotFound: If the task has no such metric.
    """
    if not 0 < alpha < 0.5 or min_gain < 0:
        raise Invalid(f"alpha must lie in (0, 0.5) and min_gain be >= 0; they are {alpha} and {min_gain}.")
    chosen = metric_of(metric, task=task)
    samples = _read_pair(y_true, champion, challenger, task=task, threshold=threshold, classes=classes)
    if isinstance(samples, Insufficient):
        return _unusable(samples, chosen, alpha, min_gain)
    n = samples[0].n
    units = Units.of(n, cluster=cluster, block=block)
    problem = _too_little(chosen, samples, units)
    if problem is not None:
        return _unusable(problem, chosen, alpha, min_gain)
    paired = _paired_test(chosen, samples, units, rng=rng, alpha=alpha, draws=draws)
    if isinstance(paired, Insufficient):
        return _unusable(paired, chosen, alpha, min_gain)
    return _decide(paired, chosen, n, alpha, min_gain)


def not_worse(
    y_true: npt.ArrayLike,
    champion: npt.ArrayLike,
    challenger: npt.ArrayLike,
    *,
    metric: str,
    task: Task,
    margin: float,
    rng: np.random.Generator,
    alpha: float = 0.05,
    by: npt.ArrayLike | None = None,
    cluster: npt.ArrayLike | None = None,
    threshold: float = 0.5,
    classes: Sequence[object] | None = None,
    draws: int = DRAWS,
) -> dict[str, NonInferiority]:
    """Check that the challenger loses no more than a margin, on all rows or in every slice.

    Each slice is judged at ``alpha``: all must pass, which needs no correction for their number.

    Args:
        y_true: Shape (n,), labels.
        champion: Predictions of the model in use.
        challenger: Predictions of the new model for the same rows.
        metric: Name of a metric of the task.
        task: What is predicted.
        margin: Largest loss that is tolerated, >= 0, in the metric's unit.
        rng: Source of randomness of the bootstrap.
        alpha: Chance of passing a challenger that is worse by more than the margin.
        by: Shape (n,), slice of each row; missing values are a slice of their own.
        cluster: Shape (n,), entity of each row where entities repeat.
        threshold: Binary score from which on a row counts as class 1.
        classes: Class labels in the order of the probability columns.
        draws: Bootstrap replicates.

    Returns:
        One verdict per slice, in order of name; under ``(all)`` without slices. Slices with too few rows are
        ``inconclusive``, never a pass.

    Raises:
        Invalid: If shapes do not fit, or alpha or margin is out of range.
        NotFound: If the task has no such metric.
    """
    if not 0 < alpha < 0.5 or margin < 0:
        raise Invalid(f"alpha must lie in (0, 0.5) and margin be >= 0; they are {alpha} and {margin}.")
    chosen = metric_of(metric, task=task)
    samples = _read_pair(y_true, champion, challenger, task=task, threshold=threshold, classes=classes)
    if isinstance(samples, Insufficient):
        return {ALL_ROWS: _open(samples.reason, margin)}
    n = samples[0].n
    clusters = None if cluster is None else np.asarray(cluster)
    Units.of(n, cluster=clusters)  # refuses clusters that do not fit before any slice is taken
    verdicts = {}
    for name, index in _slices(by, n).items():
        part = (samples[0].take(index), samples[1].take(index))
        units = Units.of(part[0].n, cluster=None if clusters is None else clusters[index])
        paired = _too_little(chosen, part, units) or _paired_test(
            chosen, part, units, rng=rng, alpha=alpha, draws=draws
        )
        if isinstance(paired, Insufficient):
            verdicts[name] = _open(paired.reason, margin)
        else:
            verdicts[name] = judge_margin(paired.gain, paired.low, paired.high, margin=margin)
    return verdicts


def _read_pair(
    y_true: npt.ArrayLike,
    champion: npt.ArrayLike,
    challenger: npt.ArrayLike,
    *,
    task: Task,
    threshold: float,
    classes: Sequence[object] | None,
) -> tuple[Sample, Sample] | Insufficient:
    old = read_sample(y_true, champion, task=task, threshold=threshold, classes=classes)
    if isinstance(old, Insufficient):
        return Insufficient(f"the champion's rows cannot be used: {old.reason}", old.n)
    new = read_sample(y_true, challenger, task=task, threshold=threshold, classes=classes)
    if isinstance(new, Insufficient):
        return Insufficient(f"the challenger's rows cannot be used: {new.reason}", new.n)
    return old, new


def _too_little(metric: Metric, samples: tuple[Sample, Sample], units: Units) -> Insufficient | None:
    n = samples[0].n
    problem = metric.why_not(samples[0]) or metric.why_not(samples[1])
    if problem is not None:
        return problem
    if units.codes is not None and units.count < paired_bootstrap.FEWEST_CLUSTERS:
        least = paired_bootstrap.FEWEST_CLUSTERS
        return Insufficient(f"{units.count:,} clusters; at least {least} are needed", n)
    if metric.rank is not None:
        positives = int(samples[0].truth.sum())
        rarer = min(positives, n - positives)
        if rarer < FEWEST_PER_CLASS:
            return Insufficient(f"{rarer:,} rows of the rarer class; at least {FEWEST_PER_CLASS} are needed", n)
    elif not _is_exact(metric, units) and n < paired_bootstrap.FEWEST_ROWS:
        return Insufficient(f"{n:,} rows; at least {paired_bootstrap.FEWEST_ROWS} are needed", n)
    return None


def _is_exact(metric: Metric, units: Units) -> bool:
    return metric.name == "accuracy" and units.codes is None and units.block is None


def _paired_test(
    metric: Metric,
    samples: tuple[Sample, Sample],
    units: Units,
    *,
    rng: np.random.Generator,
    alpha: float,
    draws: int,
) -> _Paired | Insufficient:
    old, new = samples
    test: _PairedTest
    if metric.name == "roc_auc" and units.block is None:
        name = "delong"
        test = delong_paired(old.truth, old.score, new.score, cluster=units.codes)
    elif _is_exact(metric, units):
        name = "mcnemar"
        test = mcnemar(old.label == old.truth, new.label == new.truth)
    else:
        name = "paired-bootstrap"
        try:
            test = _bootstrap(metric, old, new, units, rng=rng, draws=draws)
        except Invalid as error:
            return Insufficient(error.message, old.n)
    low, high = test.bounds(confidence=1 - 2 * alpha)
    values = metric.value(old), metric.value(new)
    return _Paired(name, *values, test.difference, low, high, test.p_greater, test.p_less)


def _bootstrap(
    metric: Metric, old: Sample, new: Sample, units: Units, *, rng: np.random.Generator, draws: int
) -> paired_bootstrap.BootstrapDifference:
    if metric.rank is not None:
        return _bootstrap_rank(metric.rank, old, new, units, rng=rng, draws=draws)
    if metric.rows is None or metric.of_means is None:
        raise AssertionError(f"metric {metric.name} is neither a mean nor a rank metric")
    if metric.cells and units.codes is None and units.block is None:
        index, counts = distinct_rows(old.truth, old.label, new.label)
        old, new, units = old.take(index), new.take(index), Units.of_cells(counts)
    of_means = metric.of_means
    return paired_bootstrap.bootstrap_means(
        metric.rows(old),
        metric.rows(new),
        lambda means: metric.goodness(of_means(means)),
        rng=rng,
        units=units,
        draws=draws,
    )


def _bootstrap_rank(
    rank: Rank, old: Sample, new: Sample, units: Units, *, rng: np.random.Generator, draws: int
) -> paired_bootstrap.BootstrapDifference:
    if old.n >= NORMAL_FROM:
        observed = rank.value(new.truth, new.score) - rank.value(old.truth, old.score)
        influence = rank.influence(new.truth, new.score) - rank.influence(old.truth, old.score)
        return paired_bootstrap.bootstrap_linear(observed, influence, rng=rng, units=units, draws=draws)

    def difference(weights: FloatArray) -> FloatArray:
        after = rank.weighted(new.truth, new.score, weights)
        return after - rank.weighted(old.truth, old.score, weights)

    return paired_bootstrap.bootstrap_weighted(difference, rows=old.n, rng=rng, units=units, draws=draws)


def _decide(paired: _Paired, metric: Metric, n: int, alpha: float, min_gain: float) -> Comparison:
    verdict: ComparisonVerdict = "inconclusive"
    needed = None
    if paired.p_better <= alpha and paired.gain >= min_gain:
        verdict = "promote"
    elif paired.high < min_gain or (min_gain == 0 and paired.p_worse <= alpha and paired.gain < 0):
        verdict = "reject"
    else:
        needed = _rows_needed(paired, n, alpha, min_gain)
    reason = _sentence(verdict, paired, metric, n=n, alpha=alpha, min_gain=min_gain, needed=needed)
    return Comparison(
        verdict, paired.test, metric.name, paired.champion, paired.challenger, paired.gain,
        (paired.low, paired.high), paired.p_better, n, alpha, min_gain, needed, reason,
    )  # fmt: skip


def _rows_needed(paired: _Paired, n: int, alpha: float, min_gain: float) -> int | None:
    """Return rows for 80 % power at the observed gain: n ((z_alpha + z_0.8) / z_observed)^2."""
    z_alpha = normal_quantile(1 - alpha)
    se = (paired.high - paired.low) / (2 * z_alpha)
    if se <= 0 or paired.gain == 0 or paired.gain < min_gain:
        return None
    needed = ceil(n * ((z_alpha + normal_quantile(0.8)) * se / paired.gain) ** 2)
    return needed if needed > n else None


def _sentence(
    verdict: ComparisonVerdict,
    paired: _Paired,
    metric: Metric,
    *,
    n: int,
    alpha: float,
    min_gain: float,
    needed: int | None,
) -> str:
    direction = "gain" if paired.gain >= 0 else "loss"
    seen = (
        f"{metric.label} is {paired.challenger:.4g} against the champion's {paired.champion:.4g} on "
        f"{n:,} rows, a {direction} of {abs(paired.gain):.4g} ({1 - 2 * alpha:.0%} interval of the gain "
        f"{paired.low:+.4g} to {paired.high:+.4g})"
    )
    if verdict == "promote":
        chance = max(paired.p_better, 0.0001)
        sign = "less than " if paired.p_better < chance else ""
        return (
            f"The challenger is better: its {seen}. "
            f"Two equal models would show this in {sign}{chance:.2%} of comparisons."
        )
    if verdict == "reject":
        goal = "is worse" if paired.high < 0 or min_gain == 0 else f"does not gain the required {min_gain:.4g}"
        return f"The challenger {goal}: its {seen}."
    if 0 < paired.gain < min_gain:
        return f"Not decided: the challenger's {seen}, where a gain of {min_gain:.4g} is required."
    more = f" About {needed:,} rows would settle a gain of this size." if needed is not None else ""
    return f"Not decided: the challenger's {seen}, which may be chance.{more}"


def _unusable(problem: Insufficient, metric: Metric, alpha: float, min_gain: float) -> Comparison:
    return Comparison(
        "inconclusive", "none", metric.name, None, None, None, None, None, problem.n, alpha, min_gain, None,
        f"Not decided by {metric.label}: {problem.reason}.",
    )  # fmt: skip


def _open(reason: str, margin: float) -> NonInferiority:
    return NonInferiority("inconclusive", np.nan, -np.inf, np.inf, margin, f"Not decided: {reason}.")


def _slices(by: npt.ArrayLike | None, n: int) -> dict[str, npt.NDArray[np.bool_]]:
    if by is None:
        return {ALL_ROWS: np.ones(n, dtype=np.bool_)}
    values = np.asarray(by)
    if values.shape != (n,):
        raise Invalid(f"Slices of shape {values.shape} do not fit {n} rows.")
    names = group_names(values)
    return {str(name): names == name for name in np.unique(names)}
