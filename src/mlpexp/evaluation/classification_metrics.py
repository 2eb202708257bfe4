"""Metrics of a classifier: overall, by class, and how well its confidence is calibrated."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from mlpexp.analysis.variation import binomial_interval
from mlpexp.evaluation.network_outputs import Outputs

BINS = 15  # of confidence, equally wide: the usual number for the expected calibration error
EDGES = np.linspace(0, 1, BINS + 1)


@dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """Metrics of one class; 0/0, such as the precision of a class that is never predicted, is NaN."""

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
class Metrics:
    """All metrics; shares in [0, 1], loss in nats.

    Attributes:
        acc_low, acc_high: Wilson's 95 % interval of the accuracy.
        balanced_acc: the mean recall of the classes that occur.
        macro_f1: the mean of the classes that occur, 0 where a class has none.
        brier: mean squared distance of the probabilities from the one-hot labels, summed over classes.
        ece: expected calibration error over `bins`.
        confusion: (C, C), `confusion[t, p]` samples of class t predicted as p.
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
    classes: list[ClassMetrics]
    bins: list[Bin]
    confusion: NDArray[np.int64]

    def frequent_mistakes(self) -> list[tuple[str, str, int]]:
        """The three most frequent mistakes: (true class, predicted class, how often)."""
        mistakes = self.confusion - np.diag(np.diag(self.confusion))
        pairs = [divmod(int(i), len(mistakes)) for i in np.argsort(-mistakes, axis=None, kind="stable")[:3]]
        names = [entry.name for entry in self.classes]
        return [(names[t], names[p], int(mistakes[t, p])) for t, p in pairs if mistakes[t, p]]


def compute_metrics(outputs: Outputs, class_names: Sequence[str]) -> Metrics:
    """The metrics of at least one sample."""
    labels, predicted = outputs.labels, outputs.predicted
    classes = np.arange(len(class_names))
    by_class = precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=np.nan)
    precision, recall, f1, support = (np.asarray(column) for column in by_class)
    counts = np.bincount(predicted, minlength=len(classes))
    low, high = binomial_interval(float((labels == predicted).mean()), len(outputs))
    bins = reliability(outputs.confidence, labels == predicted)
    occurs = support > 0
    return Metrics(
        samples=len(outputs),
        loss=outputs.measured["loss"],
        acc=outputs.measured["acc"],
        acc_low=low,
        acc_high=high,
        balanced_acc=float(recall[occurs].mean()),
        macro_f1=float(np.nan_to_num(f1[occurs]).mean()),
        brier=float(((outputs.probabilities - np.eye(len(classes))[labels]) ** 2).sum(-1).mean()),
        ece=expected_calibration_error(bins),
        classes=[
            ClassMetrics(name=name, precision=float(p), recall=float(r), f1=float(f), support=int(s), predicted=int(c))
            for name, p, r, f, s, c in zip(class_names, precision, recall, f1, support, counts, strict=True)
        ],
        bins=bins,
        confusion=confusion_matrix(labels, predicted, labels=classes),
    )


def reliability(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> list[Bin]:
    """Accuracy by confidence."""
    bins = bin_of(confidence)
    counts = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(bins, weights=values, minlength=BINS) / counts for values in (confidence, correct)]
    return [
        Bin(low=float(a), high=float(b), count=int(count), confidence=float(mean), accuracy=float(share))
        for a, b, count, mean, share in zip(EDGES[:-1], EDGES[1:], counts, *means, strict=True)
    ]


def bin_of(confidence: NDArray[np.float64]) -> NDArray[np.intp]:
    """The number of the bin of each confidence, from 0."""
    return np.clip(np.searchsorted(EDGES, confidence, side="left") - 1, 0, BINS - 1)


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """The mean difference between confidence and accuracy, weighted by samples."""
    total = sum(entry.count for entry in bins)
    return sum(entry.count * abs(entry.confidence - entry.accuracy) for entry in bins if entry.count) / total
