"""A stratified split with the indices of scikit-learn's `train_test_split`, without its import of a second.

The algorithm is that of `StratifiedShuffleSplit`; a test compares them.
"""

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def stratified_split(labels: Integers, num_taken: int, seed: int) -> tuple[Integers, Integers]:
    """Positions in `labels` (N,): those that are kept, and `num_taken` that are taken, in the shares of the classes.

    Raises:
        ValueError: a class has fewer than two samples, or a part would have fewer samples than there are classes.
    """
    _, places, counts = np.unique(labels, return_inverse=True, return_counts=True)  # counts (K,), one for each class
    num_kept = len(labels) - num_taken
    if min(counts) < 2 or min(num_kept, num_taken) < len(counts):
        raise ValueError(f"{num_kept} and {num_taken} samples of {len(counts)} classes, the rarest with {min(counts)}")
    generator = np.random.RandomState(seed)  # as scikit-learn's; splits of earlier versions stay as they are
    kept_counts = _shares(counts, num_kept, generator)
    taken_counts = _shares(counts - kept_counts, num_taken, generator)
    kept, taken = [], []
    members = np.split(np.argsort(places, kind="stable"), np.cumsum(counts)[:-1])
    for indices, kept_count, taken_count in zip(members, kept_counts, taken_counts, strict=True):
        shuffled = indices[generator.permutation(len(indices))]
        kept.append(shuffled[:kept_count])
        taken.append(shuffled[kept_count : kept_count + taken_count])
    return generator.permutation(np.concatenate(kept)), generator.permutation(np.concatenate(taken))


def _shares(counts: Integers, total: int, generator: np.random.RandomState) -> Integers:
    """The number of samples of each class among `total`, (K,): its share, rounded to that sum, ties at random."""
    exact = counts / counts.sum() * total
    shares = np.floor(exact)
    remainder = exact - shares
    missing = int(total - shares.sum())
    for value in np.unique(remainder)[::-1]:
        if missing <= 0:
            break
        (tied,) = np.where(remainder == value)
        shares[generator.choice(tied, size=min(len(tied), missing), replace=False)] += 1
        missing -= min(len(tied), missing)
    return shares.astype(np.int64)
