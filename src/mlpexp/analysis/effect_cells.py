"""What a key does on average, and cells of two or three keys: means over everything else, intervals over seeds."""

from collections.abc import Sequence

import numpy as np

from mlpexp.analysis.intervals import Estimate, marginal


def cells(levels: np.ndarray, table: np.ndarray, keys: Sequence[int]) -> dict[tuple[int, ...], Estimate]:
    """The mean in each combination of levels of some keys that has a run.

    Args:
        levels: (C, F) which level each configuration has of each key.
        table: (C, B) the metric by configuration and seed; NaN where there is none.
        keys: columns of `levels`; none of them gives the mean of all under ().
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for configuration, combination in enumerate(map(tuple, levels[:, list(keys)].tolist())):
        groups.setdefault(combination, []).append(configuration)
    found = {combination: marginal(table[members]) for combination, members in sorted(groups.items())}
    return {combination: estimate for combination, estimate in found.items() if estimate.runs}
