"""Linear models as numbers: coefficients lifted out of scikit-learn, so that no pickle is needed to predict.

Equal to scikit-learn up to rounding (the dot products may add in another order), not bit for bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Link = Literal["identity", "expit", "softmax", "ovr"]
_REGRESSORS = frozenset(
    {
        "ARDRegression",
        "BayesianRidge",
        "ElasticNet",
        "ElasticNetCV",
        "HuberRegressor",
        "Lars",
        "LarsCV",
        "Lasso",
        "LassoCV",
        "LassoLars",
        "LassoLarsCV",
        "LassoLarsIC",
        "LinearRegression",
        "OrthogonalMatchingPursuit",
        "Ridge",
        "RidgeCV",
        "SGDRegressor",
        "TheilSenRegressor",
    }
)
_CLASSIFIERS = frozenset({"LogisticRegression", "LogisticRegressionCV"})


@dataclass(frozen=True, slots=True)
class Linear:
    """``link(x @ weights + bias)``.

    Attributes:
        weights: Shape ``(features,)`` for one output, ``(features, k)`` for k classes.
        bias: Shape ``()`` or ``(k,)``.
        link: What turns the sum into the score.
    """

    weights: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]
    link: Link

    def score(self, x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Score a matrix of shape ``(rows, features)``.

        Returns:
            ``(rows,)`` for identity and expit (probability of the second class), else ``(rows, k)``.
        """
        if len(x) == 1 and self.weights.ndim == 1:
            one = float(x[0].dot(self.weights)) + float(self.bias)
            return np.array([one if self.link == "identity" else expit_one(one)])
        z = x @ self.weights + self.bias
        if self.link == "identity":
            return z
        if self.link == "expit":
            return _expit(z)
        if self.link == "softmax":
            powers = np.exp(z - z.max(axis=1, keepdims=True))
            return np.asarray(powers / powers.sum(axis=1, keepdims=True))
        return _one_versus_rest(z)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON form; floats survive it bit for bit."""
        return {"weights": self.weights.tolist(), "bias": self.bias.tolist(), "link": self.link}

    @staticmethod
    def from_json(document: dict[str, Any]) -> Linear:
        """Read the JSON form."""
        link: Link = document["link"]
        return Linear(
            np.ascontiguousarray(document["weights"], dtype=np.float64),
            np.asarray(document["bias"], dtype=np.float64),
            link,
        )


def expit_one(z: float) -> float:
    """Logistic function of one number, without overflow.

    >>> expit_one(0.0), expit_one(-1000.0)
    (0.5, 0.0)
    """
    if z >= 0:
        return 1.0 / (1.0 + math.exp(-z))
    power = math.exp(z)
    return power / (1.0 + power)


def _expit(z: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    power = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, power) / (1.0 + power)


def _one_versus_rest(z: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    p = _expit(z)
    total = p.sum(axis=1, keepdims=True)
    p = np.where(total == 0, 1.0, p)
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def extract(estimator: Any) -> Linear | None:
    """Lift the coefficients out of a fitted scikit-learn estimator.

    Returns:
        The numbers, or None if the estimator is not exactly one of the known linear classes (a subclass
        may predict differently) or has several targets.
    """
    kind = type(estimator)
    if not kind.__module__.startswith("sklearn.linear_model."):
        return None
    if kind.__name__ in _REGRESSORS:
        return _regressor(estimator)
    if kind.__name__ in _CLASSIFIERS:
        return _classifier(estimator)
    return None


def _regressor(estimator: Any) -> Linear | None:
    weights = np.asarray(estimator.coef_, dtype=np.float64)
    bias = np.asarray(estimator.intercept_, dtype=np.float64)
    if (weights.ndim == 2 and weights.shape[0] != 1) or bias.size != 1:
        return None
    return Linear(np.ascontiguousarray(weights.ravel()), bias.reshape(()), "identity")


def _classifier(estimator: Any) -> Linear | None:
    weights = np.asarray(estimator.coef_, dtype=np.float64)
    bias = np.broadcast_to(np.asarray(estimator.intercept_, dtype=np.float64), (weights.shape[0],))
    scheme = getattr(estimator, "multi_class", "auto")  # gone from scikit-learn 1.8 on
    if len(estimator.classes_) == 2:
        if scheme == "multinomial":
            return None
        return Linear(np.ascontiguousarray(weights[0]), bias[0].reshape(()), "expit")
    separate = scheme == "ovr" or estimator.solver == "liblinear"
    return Linear(np.ascontiguousarray(weights.T), bias.copy(), "ovr" if separate else "softmax")
