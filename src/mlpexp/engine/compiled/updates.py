"""The optimizers' steps: one function each, for parameters that share a learning rate and a weight decay.

A run's parameters, gradients and optimizer state lie side by side in `m` at 0, P, 2 P and 3 P. A step changes the
numbers start..stop of each. `numbers` are the run's own of the optimizer; `step` counts from 1.
"""

import numpy as np
from numba import njit

from mlpexp.engine.compiled.vectors import LINE, UPDATE, fma, load, sqrt, store

SIGNATURES = dict.fromkeys(("sgd", "adam", "adamw"), UPDATE)


def sgd(m, P, start, stop, rate, decay, numbers, step):
    """`numbers`: momentum, and whether it is Nesterov's."""
    momentum, nesterov = numbers[0], numbers[1]
    for i in range(start, stop, LINE):
        x, g = load(m, i), load(m, P + i)
        if decay != 0:
            g = fma(x, decay, g)
        if momentum != 0:
            velocity = fma(load(m, 2 * P + i), momentum, g)
            store(m, 2 * P + i, velocity)
            g = fma(velocity, momentum, g) if nesterov != 0 else velocity
        store(m, i, fma(g, -rate, x))


def adam(m, P, start, stop, rate, decay, numbers, step):
    """`numbers`: beta1, beta2, eps."""
    _adam(m, P, start, stop, rate, decay, False, numbers, step)


def adamw(m, P, start, stop, rate, decay, numbers, step):
    """`numbers`: beta1, beta2, eps."""
    _adam(m, P, start, stop, rate, decay, True, numbers, step)


@njit(nogil=True, error_model="numpy")
def _adam(m, P, start, stop, rate, decay, decoupled, numbers, step):
    beta1, beta2, eps = numbers[0], numbers[1], numbers[2]
    scaled_rate = -rate / (1 - _integer_power(beta1, step))
    scale = 1 / np.sqrt(1 - _integer_power(beta2, step))
    shrink = 1 - rate * decay
    for i in range(start, stop, LINE):
        x, g = load(m, i), load(m, P + i)
        if decay != 0:
            if decoupled:
                x = x * shrink
            else:
                g = fma(x, decay, g)
        mean, square = load(m, 2 * P + i), load(m, 3 * P + i)
        mean = fma(g - mean, 1 - beta1, mean)
        square = fma(g * (1 - beta2), g, square * beta2)
        store(m, 2 * P + i, mean)
        store(m, 3 * P + i, square)
        store(m, i, fma(mean / fma(sqrt(square), scale, eps), scaled_rate, x))


@njit(nogil=True)
def _integer_power(base, exponent):
    """By multiplications alone, so that it does not depend on the machine's library."""
    result = 1.0
    while exponent > 0:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result
