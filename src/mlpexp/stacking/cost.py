"""What a step of a stack costs, for the planner.

Measured with torch 2.13 on one thread of a 2.4 GHz AMD EPYC (AVX2), tanh, plain gradient descent, 48 shapes of 1
to 100 runs: within a third for most, on a machine that others used too. Ratios between shapes travel to other
machines better than microseconds.
"""

from collections.abc import Sequence
from itertools import pairwise


def step_cost_us(sizes: Sequence[int], batch_size: int, num_runs: int) -> float:
    """Microseconds for one step of all runs: forward, loss, backward, update.

    Args:
        sizes: inputs, hidden layers, classes.
    """
    num_layers = len(sizes) - 1
    products = sum(i * o for i, o in pairwise(sizes))  # weights, and multiplications for one sample
    calls = 120 + 15 * num_layers
    update = 1e-3 * products
    forward_and_backward = 1.2e-4 * products
    per_sample = forward_and_backward + 4.4e-3 * sum(sizes[1:-1]) + 1e-2 * sizes[-1]  # products, activations, loss
    return calls + num_runs * (0.15 * num_layers + update + batch_size * per_sample)
