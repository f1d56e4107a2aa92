"""One prediction: Modelyard's Predictor against the library call that every server makes.

Task A: LogisticRegression, 20 numbers. Task B: LGBMClassifier, 200 trees of 31 leaves, 20 numbers. The same
row, as a request brings it (a dict), in one process, the two sides in turn. Times are process CPU, the median
of the rounds. The library side gets the row as the pandas frame it expects, built outside the measured call,
which favours it.

Run: python benchmarks/predictor.py [--calls 2000]
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median

import lightgbm
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from modelyard.models import Decoder, Predictor, save_model, verify_engine

ROUNDS = 7
FEATURES = 20


def cpu_us(call: Callable[[], object], calls: int) -> float:
    start = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - start) / calls * 1e6


def in_turn(sides: dict[str, Callable[[], object]], calls: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in sides}
    for call in sides.values():
        call()
    for _ in range(ROUNDS):
        for name, call in sides.items():
            times[name].append(cpu_us(call, calls))
    return {name: median(found) for name, found in times.items()}


def measure(title: str, model: object, frame: pd.DataFrame, calls: int) -> None:
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "model"
        save_model(model, folder, data=frame)
        record = verify_engine(folder, frame, trust=True)
        predictor = Predictor.load(folder, trust=False, verification=record)
        one, row = frame.iloc[:1], frame.iloc[0].to_dict()
        many = frame.to_dict("records")[:64]
        decoder = Decoder(predictor.signature)
        found = in_turn(
            {
                "library predict_proba, frame": lambda: model.predict_proba(one),
                "Predictor.predict_rows, dict": lambda: predictor.predict_rows([row]),
                "  of which Decoder.rows": lambda: decoder.rows([row]),
                "Decoder.frame, dict": lambda: decoder.frame([row]),
            },
            calls,
        )
        found["Predictor.predict_rows, 64 dicts"] = in_turn(
            {"": lambda: predictor.predict_rows(many)}, max(1, calls // 20)
        )[""]
    library = found["library predict_proba, frame"]
    print(f"\n{title}: engine {predictor.engine}, largest difference {record.max_abs_difference}")
    for name, us in found.items():
        ratio = f"{library / us:7.1f}x" if name.startswith("Predictor") and "64" not in name else ""
        print(f"  {name:36} {us:9.1f} us {ratio}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000)
    calls = parser.parse_args().calls
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(2000, FEATURES)), columns=[f"f{i}" for i in range(FEATURES)])
    label = (frame["f0"] + frame["f1"] * frame["f2"] + rng.normal(size=2000) > 0).astype(int)
    packages = ("numpy", "pandas", "scikit-learn", "lightgbm")
    print(f"CPython {platform.python_version()}", *(f"{name} {version(name)}" for name in packages), sep=", ")
    measure("A LogisticRegression", LogisticRegression().fit(frame, label), frame, calls)
    trees = lightgbm.LGBMClassifier(n_estimators=200, num_leaves=31, n_jobs=1, verbose=-1).fit(frame, label)
    measure("B LGBMClassifier", trees, frame, max(1, calls // 4))


if __name__ == "__main__":
    main()
