"""How good answers are: as a whole, by class, and whether the confidence can be believed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from mlpexp.evaluation.network_outputs import Answers

BINS = 15  # of confidence, equally wide, as is usual for the expected calibration error
Z = 1.959963984540054  # two-sided 95 %


@dataclass(frozen=True, kw_only=True)
class ClassMeasures:
    """One class; what is 0/0 (e.g. the precision of a class that is never predicted) is NaN."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int
    predicted: int


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Samples whose confidence lies in (low, high]; means are NaN where there are none."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Measures:
    """Everything; shares in [0, 1], loss in nats.

    Attributes:
        acc_low, acc_high: Wilson's 95 % interval of the accuracy.
        balanced_acc: the mean recall of the classes that occur.
        macro_f1: the mean of the classes that occur, 0 where a class has none.
        brier: mean squared distance of the probabilities from the truth, summed over classes.
        ece: expected calibration error over `bins`.
        confusion: (C, C), `confusion[t, p]` samples of class t taken for p.
    """

    samples: int
    loss: float
    acc: float
    acc_low: float
    acc_high: float
    balanced_acc: float
    macro_f1: float
    brier: float
    ece: float
    classes: list[ClassMeasures]
    bins: list[Bin]
    confusion: NDArray[np.int64]

    def mix_ups(self, limit: int = 3) -> list[tuple[str, str, int]]:
        """The most frequent mistakes: (true class, taken for, how often)."""
        off = self.confusion - np.diag(np.diag(self.confusion))
        order = np.argsort(-off, axis=None, kind="stable")[:limit]
        pairs = [divmod(int(place), len(off)) for place in order]
        names = [one.name for one in self.classes]
        return [(names[t], names[p], int(off[t, p])) for t, p in pairs if off[t, p]]


def measure(answers: Answers, class_names: Sequence[str]) -> Measures:
    """Of at least one sample."""
    true, predicted, n = answers.labels, answers.predicted, len(answers)
    every = np.arange(len(class_names))
    by_class = precision_recall_fscore_support(true, predicted, labels=every, zero_division=np.nan)
    precision, recall, f1, support = (np.asarray(column) for column in by_class)
    guesses = np.bincount(predicted, minlength=len(every))
    low, high = wilson(int((true == predicted).sum()), n)
    bins = reliability(answers.confidence, true == predicted)
    one_hot = np.eye(len(every))[true]
    occurs = support > 0
    return Measures(
        samples=n,
        loss=answers.loss,
        acc=answers.acc,
        acc_low=low,
        acc_high=high,
        balanced_acc=float(recall[occurs].mean()),
        macro_f1=float(np.nan_to_num(f1[occurs]).mean()),
        brier=float(((answers.probabilities - one_hot) ** 2).sum(-1).mean()),
        ece=expected_calibration_error(bins),
        classes=[
            ClassMeasures(
                name=name,
                precision=float(precision[c]),
                recall=float(recall[c]),
                f1=float(f1[c]),
                support=int(support[c]),
                predicted=int(guesses[c]),
            )
            for c, name in enumerate(class_names)
        ],
        bins=bins,
        confusion=confusion_matrix(true, predicted, labels=every),
    )


def reliability(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = BINS) -> list[Bin]:
    """How often the network is right, by how sure it is."""
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, weights=values, minlength=bins) / counts for values in (confidence, right)]
    return [
        Bin(low=float(a), high=float(b), count=int(count), confidence=float(mean), accuracy=float(share))
        for a, b, count, mean, share in zip(edges[:-1], edges[1:], counts, *means, strict=True)
    ]


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """The mean gap between confidence and accuracy, weighted by samples."""
    total = sum(one.count for one in bins)
    return sum(one.count * abs(one.confidence - one.accuracy) for one in bins if one.count) / total


def wilson(right: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share: unlike the usual one it stays in [0, 1], and is honest near the ends."""
    share, z2 = right / n, Z * Z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
