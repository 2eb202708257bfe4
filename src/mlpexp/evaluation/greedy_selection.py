"""Greedy selection of the members of an ensemble, with replacement.

Caruana, Niculescu-Mizil, Crew and Ksikes, Ensemble Selection from Libraries of Models, ICML 2004, sections 2 and 2.1.
Letters: R candidates.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

ROUNDING = 1e-12  # relative; the mean of n times the same network differs by less from that network

Loss = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def select(outputs: NDArray[np.float64], loss: Loss, picks: int) -> list[int]:
    """Candidates in the order in which they are picked, possibly several times.

    Each pick adds the candidate with which the mean of all picks has the lowest loss, of equal ones the first. From
    the ensembles of 1 to `picks` picks the one with the lowest loss is returned, of equal ones the smallest. Losses
    that differ by rounding are equal.

    Args:
        outputs: (R, K), of which ensembles have the mean.
        loss: of means (R, K), (R,).
    """
    total = np.zeros(outputs.shape[1])
    picked: list[int] = []
    losses: list[float] = []
    for count in range(1, picks + 1):
        losses_of_candidates = loss((total + outputs) / count)
        best = _first_lowest(losses_of_candidates)
        picked.append(best)
        losses.append(float(losses_of_candidates[best]))
        total += outputs[best]
    return picked[: _first_lowest(np.array(losses)) + 1]


def _first_lowest(losses: NDArray[np.float64]) -> int:
    """The first of the losses that is the lowest one up to rounding; NaN is none."""
    lowest = np.nanmin(losses)
    return int(np.argmax(losses <= lowest + ROUNDING * abs(lowest)))


def log_loss(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """The negative log-likelihood (R,) in nats, of probabilities (R, N) of the true classes."""
    losses: NDArray[np.float64] = -np.log(np.maximum(means, np.finfo(float).tiny)).mean(-1)
    return losses


def squared_error(true: NDArray[np.float64]) -> Loss:
    """The mean squared error (R,) of values (R, K), where `true` (K,) is right."""
    return lambda means: ((means - true) ** 2).mean(-1)
