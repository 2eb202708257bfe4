"""Estimated cost of a stack, by which the planner compares stacks.

Measured with torch 2.13 on one thread of a 2.4 GHz AMD EPYC (AVX2), plain gradient descent, 72 shapes of 2 to 32 runs,
tanh and gelu: all within 25 %, most within 10 %, on an idle machine. The ratios hold on other machines, the
microseconds do not.
"""

from collections.abc import Sequence
from itertools import pairwise

GELU_US = 95  # for each layer, forward and backward: oneDNN prepares its kernel in every call
FORWARD = 0.4  # share of a sample's training cost


def step_cost_us(sizes: Sequence[int], batch_size: int, num_runs: int, activations: Sequence[str] = ()) -> float:
    """Microseconds for one step of all runs: forward, loss, backward, update.

    Args:
        sizes: inputs, hidden layers, classes.
        activations: that occur among the runs.
    """
    num_layers = len(sizes) - 1
    calls = 75 + 33 * num_layers + (GELU_US * (num_layers - 1) if "gelu" in activations else 0)
    products = 1.0e-4 * sum(i * o for i, o in pairwise(sizes))  # forward, backward and the weights' update
    hidden = 4.6e-3 * sum(sizes[1:-1])
    loss = 1.0e-2 * sizes[-1]
    return calls + num_runs * (1.4 * num_layers + batch_size * (products + hidden + loss))


def evaluation_cost_us(sizes: Sequence[int], samples: int, num_runs: int) -> float:
    """Microseconds for evaluating `samples` samples of every run."""
    return FORWARD * (step_cost_us(sizes, samples, num_runs) - step_cost_us(sizes, 0, num_runs))


def module_cost_us(num_parameters: int, units: int, batch_size: int, num_runs: int) -> tuple[float, float]:
    """Microseconds for one step of all runs of a user's module, and for evaluating one sample of every run.

    Args:
        units: numbers that a forward pass computes for a sample.
    """
    sample = 1.0e-4 * num_parameters + 4.6e-3 * units
    return 2000 + num_runs * (2e-3 * num_parameters + batch_size * sample), num_runs * FORWARD * sample
