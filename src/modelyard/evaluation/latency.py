"""How long one prediction takes, and on which machine that was."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from modelyard.errors import Invalid


@dataclass(frozen=True, slots=True)
class Latency:
    """Latency of single predictions.

    Attributes:
        p50_ms: Median.
        p95_ms: 95 % of calls take at most this.
        p99_ms: 99 % of calls take at most this.
        calls: Number of timed calls.
        machine: Where it was measured: ``system``, ``machine``, ``processor``, ``cores``, ``python``.
    """

    p50_ms: float
    p95_ms: float
    p99_ms: float
    calls: int
    machine: dict[str, str | int]


def measure_latency(
    predict_one: Callable[[object], object],
    rows: Sequence[object],
    *,
    calls: int = 1_000,
    warmup: int = 50,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> Latency:
    """Time single predictions, one after the other, over the rows in turn.

    Args:
        predict_one: Predicts one row.
        rows: Rows to predict; taken in turn, so that caches see real variety.
        calls: Timed calls, >= 1. The 99th percentile needs hundreds.
        warmup: Untimed calls before them.
        clock_ns: Monotonic clock in nanoseconds.

    Returns:
        Percentiles; each is a call that happened (no interpolation).

    Raises:
        Invalid: If there are no rows or no calls.
    """
    if not len(rows) or calls < 1:
        raise Invalid("Latency needs at least one row and one call.")
    for call in range(warmup):
        predict_one(rows[call % len(rows)])
    taken = np.empty(calls)
    for call in range(calls):
        row = rows[call % len(rows)]
        start = clock_ns()
        predict_one(row)
        taken[call] = clock_ns() - start
    p50, p95, p99 = np.quantile(taken / 1e6, [0.5, 0.95, 0.99], method="inverted_cdf")
    return Latency(float(p50), float(p95), float(p99), calls, describe_machine())


def describe_machine() -> dict[str, str | int]:
    """Return what a latency depends on; no host name."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": platform.processor(),
        "cores": os.cpu_count() or 1,
        "python": platform.python_version(),
    }
