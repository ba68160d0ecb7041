"""Means over seeds; a line that tells two kinds apart, and how well it does."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


def mean_and_interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean over seeds and half of its 95 % interval, by Student's t.

    >>> [round(x, 3) for x in mean_and_interval([0.4, 0.5, 0.6])]
    [0.5, 0.248]
    """
    student = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
    if len(values) < 2:
        return float(np.mean(values)), float("nan")
    error = np.std(values, ddof=1) / len(values) ** 0.5
    return float(np.mean(values)), float(student.get(len(values), 1.96) * error)


def plus_minus(half: float) -> str:
    """Half of an interval; nothing where there is one seed only."""
    return "" if np.isnan(half) else f" ± {half:.3f}"


class Line(NamedTuple):
    """Features [F] are centred and scaled; then a weighted sum is a log-odds."""

    mean: list[float]
    scale: list[float]
    weights: list[float]
    bias: float

    def log_odds(self, features_NF: np.ndarray) -> np.ndarray:
        """Of the first kind against the second, [N]."""
        scaled_NF = (features_NF - np.array(self.mean)) / np.array(self.scale)
        return scaled_NF @ np.array(self.weights) + self.bias


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Log-odds as probabilities."""
    return 0.5 * (1 + np.tanh(x / 2))


def fit_line(features_NF: np.ndarray, is_first_N: np.ndarray, penalty: float) -> Line:
    """Logistic regression by Newton's method.

    Args:
      features_NF: what is known.
      is_first_N: 1 for the first kind, 0 for the second.
      penalty: of the squared weights, per example.
    """
    mean_F, scale_F = features_NF.mean(0), features_NF.std(0) + 1e-6
    x_NF = np.column_stack([(features_NF - mean_F) / scale_F, np.ones(len(features_NF))])
    ridge_F = np.append(np.full(len(mean_F), penalty * len(x_NF)), 1e-6)
    weights_F = np.zeros(x_NF.shape[1])
    for _ in range(25):
        p_N = sigmoid(x_NF @ weights_F)
        slope_F = x_NF.T @ (p_N - is_first_N) + ridge_F * weights_F
        curvature_FF = (x_NF * (p_N * (1 - p_N))[:, None]).T @ x_NF + np.diag(ridge_F)
        weights_F -= np.linalg.solve(curvature_FF, slope_F)
    return Line(mean_F.tolist(), scale_F.tolist(), weights_F[:-1].tolist(), float(weights_F[-1]))


def area_under_curve(scores_N: np.ndarray, is_first_N: np.ndarray) -> float:
    """How often one of the first kind scores above one of the second; a tie is half.

    >>> area_under_curve(np.array([0.9, 0.4, 0.4, 0.1]), np.array([1, 1, 0, 0]))
    0.875
    """
    first, second = scores_N[is_first_N > 0.5], scores_N[is_first_N <= 0.5]
    above = np.sign(first[:, None] - second[None, :])
    return float((above.mean() + 1) / 2) if above.size else float("nan")
