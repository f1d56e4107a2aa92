"""CPU seconds per million cells: profiles against NumPy counting and SciPy's two-sample KS test.

Run: python benchmarks/profiles.py [--rows 1000000] [--repeats 3]

Peers run in turn on the same data in this process. A profile keeps more than its peers compute (exact sums,
extremes, a distinct sketch, 32 bins); the KS test keeps nothing that could be added to another window.
The second table shows where counting by comparison overtakes counting by search (``SEARCH_BELOW``).
"""

import argparse
import platform
import time
from functools import partial
from importlib.metadata import version

import numpy as np
from scipy import stats

from modelyard.profiles import (
    jensen_shannon_distance,
    learn_specs,
    merge,
    profile,
    to_bytes,
)
from modelyard.profiles.counting import SEARCH_BELOW, count_cells, count_reaching


def cpu_seconds(work, repeats):
    """Return the least CPU time of several runs, in seconds."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def whole_columns(rows, repeats):
    """Print CPU seconds per million cells, one column of normal values."""
    rng = np.random.default_rng(0)
    reference, current = rng.normal(size=rows), rng.normal(0.1, 1.0, size=rows)
    spec = learn_specs({"x": reference[:100_000]})
    column, edges = spec["x"], np.array(spec["x"].edges)
    texts = rng.choice([f"level {i}" for i in range(50)], rows).astype(object)
    text_spec = learn_specs({"s": texts[:100_000]})
    runs = {
        "scipy ks_2samp, asymptotic": lambda: stats.ks_2samp(reference, current, method="asymp"),
        "numpy searchsorted + bincount": partial(_search, current, edges),
        "modelyard counts alone": lambda: count_cells(current, column),
        "modelyard whole profile, numeric": lambda: profile({"x": current}, spec),
        "modelyard whole profile, 50 text levels": lambda: profile({"s": texts}, text_spec),
        "modelyard learn_specs, numeric": lambda: learn_specs({"x": reference}),
    }
    seconds = {name: cpu_seconds(work, repeats) for name, work in runs.items()}
    base = seconds["numpy searchsorted + bincount"]
    print(f"{'rows: ' + format(rows, ','):42}{'CPU-s per 1M cells':>20}{'of searchsorted':>18}")
    for name, used in seconds.items():
        print(f"{name:42}{used / rows * 1e6:20.4f}{used / base:17.2f}x")


def crossover(repeats):
    """Print microseconds per batch of one column, and per row of 50 columns."""
    rng = np.random.default_rng(1)
    spec = learn_specs({"x": rng.normal(size=100_000)})
    limits = np.array(spec["x"].edges)
    print(f"\n{'batch rows':>12}{'search, µs':>13}{'compare, µs':>13}{'profile, µs':>13}{'per row × 50':>14}")
    for rows in (256, 1_024, SEARCH_BELOW // 2, SEARCH_BELOW, 2 * SEARCH_BELOW):
        values = rng.normal(size=rows)
        works = (
            partial(_search, values, limits),
            partial(count_reaching, values, limits),
            partial(profile, {"x": values}, spec),
        )
        search, compare, whole = (_microseconds(work, repeats) for work in works)
        print(f"{rows:12,}{search:13.1f}{compare:13.1f}{whole:13.1f}{whole / rows * 50:14.2f}")


def _microseconds(work, repeats):
    return cpu_seconds(lambda: [work() for _ in range(100)], repeats) * 1e4


def _search(values, limits):
    return np.bincount(np.searchsorted(limits, values, side="right"))


def profiles_alone(repeats):
    """Print the cost of a merge and a distance, and the stored size."""
    rng = np.random.default_rng(2)
    spec = learn_specs({f"c{i}": rng.normal(size=20_000) for i in range(50)})
    windows = [profile({f"c{i}": rng.normal(size=20_000) for i in range(50)}, spec) for _ in range(2)]
    left, right = windows
    merging = cpu_seconds(lambda: merge(left, right), 10 * repeats)
    comparing = cpu_seconds(
        lambda: [jensen_shannon_distance(left[name], right[name]) for name in left.columns], 10 * repeats
    )
    print("\n50 numeric columns, both sides profiles of 20,000 rows")
    print(f"merge {merging * 1e3:.2f} ms, 50 JS distances {comparing * 1e3:.2f} ms", end=", ")
    print(f"stored {len(to_bytes(left)) / 50:.0f} bytes per column")


def main():
    """Run all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    names = ("modelyard", "numpy", "scipy", "pyarrow", "msgspec")
    print(f"Python {platform.python_version()}, " + ", ".join(f"{n} {_version(n)}" for n in names) + "\n")
    whole_columns(options.rows, options.repeats)
    crossover(options.repeats)
    profiles_alone(options.repeats)


def _version(name):
    if name == "modelyard":
        import modelyard

        return modelyard.__version__
    return version(name)


if __name__ == "__main__":
    main()
