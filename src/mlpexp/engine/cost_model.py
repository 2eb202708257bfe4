"""What a stack costs, for the planner.

Measured with torch 2.13 on one thread of a 2.4 GHz AMD EPYC (AVX2), plain gradient descent, 72 shapes of 2 to 32 runs,
tanh and gelu: all within 25 %, most within 10 %, while nothing else ran. Ratios between shapes travel to other
machines better than microseconds: `slowness` says how long these are here.
"""

import time
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import torch

from mlpexp.engine.torch.engine import Engine
from mlpexp.nn.optimizers import UpdateSettings

GELU_US = 95  # for each layer, forward and backward: oneDNN prepares anew each time
FORWARD = 0.4  # of a sample's training
TRIED_S, TRIED_RUNS, TRIED_STEPS = 0.04, 8, 8


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
    """Microseconds for a look at so many samples of every run."""
    return FORWARD * (step_cost_us(sizes, samples, num_runs) - step_cost_us(sizes, 0, num_runs))


@cache
def slowness(sizes: tuple[int, ...], batch_size: int) -> float:
    """How many times more of the processor than `step_cost_us` says a few runs of this shape take here, tried out."""
    generator = torch.Generator().manual_seed(0)
    samples = TRIED_STEPS * batch_size
    inputs = torch.randn(samples, sizes[0], generator=generator)
    labels = torch.randint(sizes[-1], (samples,), generator=generator)
    rates = torch.full((TRIED_RUNS,), 0.1, dtype=torch.float64)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            engine = Engine(
                weights=[torch.randn(TRIED_RUNS, o, i, generator=generator) / i**0.5 for i, o in pairwise(sizes)],
                biases=[torch.zeros(TRIED_RUNS, o) for o in sizes[1:]],
                activations=["tanh"] * TRIED_RUNS,
                update=UpdateSettings(),
            )
            order = torch.arange(samples)
            engine.train_epoch(inputs, labels, order, batch_size, rates)  # tries the products
            # not by the clock: a trial this short may be spared the waiting that a stack is not
            count, started = 0, time.process_time()
            while (elapsed := time.process_time() - started) < TRIED_S:
                engine.train_epoch(inputs, labels, order, batch_size, rates)
                count += TRIED_STEPS
    finally:
        torch.set_num_threads(threads)
    return 1e6 * elapsed / count / step_cost_us(sizes, batch_size, TRIED_RUNS)
