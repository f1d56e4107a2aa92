"""Non-inferiority: not worse than the champion by more than a margin."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal, TypeAlias

from modelyard.errors import Invalid
from modelyard.evaluation.msprt import FEWEST, Arm, msprt

NonInferiorityVerdict: TypeAlias = Literal["not_worse", "worse", "inconclusive"]


@dataclass(frozen=True, slots=True)
class NonInferiority:
    """Whether harm beyond a margin is excluded, shown, or open.

    Attributes:
        verdict: ``not_worse``: harm beyond the margin is excluded. ``worse``: it is shown.
        gain: Observed gain of the new arm; positive is better.
        low: Lower bound of the gain.
        high: Upper bound of the gain.
        margin: Largest loss that is tolerated, >= 0.
        reason: One sentence.
    """

    verdict: NonInferiorityVerdict
    gain: float
    low: float
    high: float
    margin: float
    reason: str


def judge_margin(gain: float, low: float, high: float, *, margin: float) -> NonInferiority:
    """Judge an interval of the gain against a margin.

    Args:
        gain: Observed gain; positive is better.
        low: Lower one-sided bound of the gain.
        high: Upper one-sided bound of the gain.
        margin: Largest loss that is tolerated, >= 0, in the unit of the gain.

    Returns:
        ``not_worse`` if ``low`` >= -margin, ``worse`` if ``high`` < -margin, else ``inconclusive``.

    Raises:
        Invalid: If the margin is negative.
    """
    if margin < 0:
        raise Invalid(f"A margin is the largest loss tolerated, so not negative; it is {margin}.")
    seen = f"observed change {gain:+.4g}, between {low:+.4g} and {high:+.4g}"
    if low >= -margin:
        return NonInferiority(
            "not_worse", gain, low, high, margin, f"A loss of more than {margin:.4g} is excluded ({seen})."
        )
    if high < -margin:
        return NonInferiority("worse", gain, low, high, margin, f"A loss of more than {margin:.4g} is shown ({seen}).")
    return NonInferiority(
        "inconclusive",
        gain,
        low,
        high,
        margin,
        f"Whether more than {margin:.4g} is lost is still open ({seen}).",
    )


def sequential_noninferiority(
    control: Arm,
    treatment: Arm,
    *,
    margin: float,
    tau: float,
    alpha: float = 0.05,
    higher_is_better: bool = True,
    fewest: int = FEWEST,
) -> NonInferiority:
    """Judge two running arms at any look, each side with its own level ``alpha`` over all looks.

    Both bounds are one-sided always-valid bounds (:func:`msprt`), so a guardrail may be checked after every
    batch: a treatment within the margin is called ``worse`` with probability at most ``alpha`` ever.

    Args:
        control: All data of the control arm so far.
        treatment: All data of the treatment arm so far.
        margin: Largest loss that is tolerated, >= 0.
        tau: Smallest difference of interest, > 0.
        alpha: Level of each side.
        higher_is_better: Whether larger means are better.
        fewest: Observations per arm below which the answer is ``inconclusive``.
    """
    better, worse = (treatment, control) if higher_is_better else (control, treatment)
    upward = msprt(worse, better, tau=tau, alpha=alpha, alternative="greater", fewest=fewest)
    downward = msprt(worse, better, tau=tau, alpha=alpha, alternative="less", fewest=fewest)
    if upward.reason:
        return NonInferiority("inconclusive", upward.difference, -inf, inf, margin, f"Not yet: {upward.reason}.")
    return judge_margin(upward.difference, upward.low, downward.high, margin=margin)
