"""Will this flight arrive more than 15 minutes late? Plain scikit-learn and LightGBM, no logging calls."""

from __future__ import annotations

import pandas as pd
from lightgbm import LGBMClassifier
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder

LABEL = "late"
NAMES = ["carrier", "origin", "dest"]


def train(data: pd.DataFrame) -> Pipeline:
    """Fit a model on rows of known outcome."""
    features = data.drop(columns=LABEL)
    encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    model = Pipeline(
        [
            ("names", ColumnTransformer([("codes", encode, NAMES)], remainder="passthrough")),
            ("trees", LGBMClassifier(n_estimators=150, num_leaves=31, learning_rate=0.07, n_jobs=1, verbose=-1)),
        ]
    )
    return model.fit(features, data[LABEL].astype(int))
