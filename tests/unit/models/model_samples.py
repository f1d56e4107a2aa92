"""Small data sets and models that the tests of models/ share."""

import numpy as np
import pandas as pd

ROWS = 400
LGBM = {"n_estimators": 15, "num_leaves": 15, "verbose": -1, "n_jobs": 1}


def numbers(*, nulls=False, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({f"f{i}": rng.normal(size=ROWS) for i in range(4)})
    frame["count"] = rng.integers(0, 40, ROWS)
    if nulls:
        frame.loc[rng.random(ROWS) < 0.15, "f1"] = np.nan
    return frame


def categories(seed=0):
    rng = np.random.default_rng(seed + 1)
    frame = numbers(nulls=True, seed=seed)
    frame["city"] = pd.Categorical(rng.choice(["Rome", "Oslo", "Nice"], ROWS), categories=["Rome", "Oslo", "Nice"])
    frame["plan"] = pd.Categorical(rng.integers(1, 5, ROWS))
    frame.loc[rng.random(ROWS) < 0.1, "city"] = None
    return frame


def texts(seed=0):
    rng = np.random.default_rng(seed + 2)
    frame = numbers(nulls=True, seed=seed)
    frame["city"] = rng.choice(["Rome", "Oslo", "Nice"], ROWS)
    frame.loc[rng.random(ROWS) < 0.1, "city"] = None
    return frame


def target(frame, classes=2):
    rng = np.random.default_rng(9)
    value = frame["f0"] + 0.5 * frame["f2"] + rng.normal(scale=0.5, size=len(frame))
    if classes == 2:
        return (value > 0).astype(int).to_numpy()
    return np.array(["low", "mid", "high"])[np.digitize(value, [-0.5, 0.5])]


def records(frame):
    return frame.astype(object).where(frame.notna(), None).to_dict("records")
