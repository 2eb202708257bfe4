"""What a step of a stack costs, for the planner."""

from collections.abc import Sequence


def step_cost_us(sizes: Sequence[int], batch_size: int, num_runs: int) -> float:
    """Microseconds."""
    return 1.0 * sum(sizes) * batch_size * num_runs
