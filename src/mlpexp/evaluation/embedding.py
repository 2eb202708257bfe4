"""The last hidden layer in two dimensions: by PCA (a shadow, true to scale) and by t-SNE (neighbourhoods only)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlpexp.evaluation.network_outputs import Answers

MOST = 2_000  # samples; t-SNE of more takes a minute
FEWEST = 5  # samples of which t-SNE makes sense
SEED = 0


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """Points for some of the samples.

    Attributes:
        chosen: which samples, as places among the answers, sorted, (n,).
        pca: (n, 2); explained: the share of the variance along its two axes.
        tsne: (n, 2); None where there are too few different samples.
    """

    chosen: NDArray[np.int64]
    pca: NDArray[np.float64]
    explained: tuple[float, float]
    tsne: NDArray[np.float64] | None


def embed(answers: Answers) -> Embedding:
    """A pure function of the answers: what is drawn at random has a seed of its own."""
    chosen = sample(len(answers), MOST)
    hidden = answers.hidden[chosen].astype(np.float64)  # (n, H)
    pca, explained = _pca(hidden)
    return Embedding(chosen=chosen, pca=pca, explained=explained, tsne=_tsne(hidden))


def sample(total: int, most: int) -> NDArray[np.int64]:
    """All of `total` places, or `most` of them drawn at random."""
    if total <= most:
        return np.arange(total)
    return np.sort(np.random.default_rng(SEED).choice(total, most, replace=False))


def _pca(hidden: NDArray[np.float64]) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Plane and shares of variance; a second axis of zeros where there is only one unit or one sample."""
    from sklearn.decomposition import PCA

    count = min(2, *hidden.shape)
    points, shares = np.zeros((len(hidden), 2)), [0.0, 0.0]
    if np.ptp(hidden, axis=0).any():
        found = PCA(count, svd_solver="full").fit(hidden)
        points[:, :count] = found.transform(hidden)
        shares[:count] = found.explained_variance_ratio_.tolist()
    return points, (shares[0], shares[1])


def _tsne(hidden: NDArray[np.float64]) -> NDArray[np.float64] | None:
    from sklearn.manifold import TSNE

    if len(hidden) < FEWEST or not np.ptp(hidden, axis=0).any():
        return None
    perplexity = min(30.0, (len(hidden) - 1) / 3)
    start = "pca" if hidden.shape[1] >= 2 else "random"
    found = TSNE(2, perplexity=perplexity, init=start, random_state=SEED).fit_transform(hidden)
    return np.asarray(found, dtype=np.float64) if np.isfinite(found).all() else None
