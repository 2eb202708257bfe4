"""What costs least for what it gives."""

import numpy as np


def front(cost: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """(C,) whether nothing else costs as little or less and gives as much or more; the first of equals counts."""
    best = -np.inf
    on_front = np.zeros(len(cost), bool)
    for place in np.lexsort((-gain, cost)):  # NaNs come last
        if np.isfinite(cost[place]) and gain[place] > best:
            on_front[place], best = True, gain[place]
    return on_front
