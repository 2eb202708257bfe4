"""Whether a trained network is better than guessing, by its accuracy and loss on the training samples.

A guesser uses only the shares of the classes. Its best accuracy is the share of the commonest class, and its best
cross-entropy the entropy of the class shares. In a regression it answers with a constant.

Letters: n samples, T targets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

from mlpexp.nn.lazy_torch import Tensor, torch
from mlpexp.nn.losses import CROSS_ENTROPY, LossFunction

MARK = "no better than guessing"  # start of the message of a run with status `chance`
LIKELY_CAUSES = (
    "likely causes: model.depth, model.activation or model.init (vanishing gradients), optimizer.lr, too few epochs"
)
FALSE_ALARM = 1e-6  # probability that a guesser passes for a network that has learned something
LOSS_MARGIN = 0.01  # relative


def chance_message(
    history: Sequence[Mapping[str, float]],
    class_counts: Sequence[int],
    class_weights: Sequence[float] | None = None,
    loss: LossFunction = CROSS_ENTROPY,
) -> str | None:
    """Why a finished training of a classification is at chance level; None where it is not.

    Two conditions must hold in the last epoch on the training samples: the accuracy is not significantly above the
    share of the commonest class, and the loss is not below the entropy of the shares. Both together distinguish a
    network that does not learn from one that learns slowly.

    Args:
        history: metrics of each epoch, all finite.
        class_counts: training samples of each class.
        class_weights: weight of each class in train/loss; None where all weigh the same.
        loss: the one that was minimised.
    """
    total = sum(class_counts)
    share = max(class_counts) / total
    weighted: tuple[float, ...] = tuple(class_counts)
    if class_weights is not None:
        weighted = tuple(n * weight for n, weight in zip(class_counts, class_weights, strict=True))
    guessed = _loss_of_constant_classes(weighted, loss)
    reached, accuracy = history[-1]["train/loss"], history[-1]["train/acc"]
    if is_better(accuracy, share, total) or reached < (1 - LOSS_MARGIN) * guessed:
        return None
    return (
        f"{MARK}: train/acc {accuracy:.3f} and train/loss {reached:.3f} in the last epoch "
        f"(guessing: {share:.3f} and {guessed:.3f})"
    )


def value_chance_message(history: Sequence[Mapping[str, float]], guessed: float) -> str | None:
    """Why a finished training of a regression is no better than a constant; None where it is.

    Args:
        history: metrics of each epoch, with finite losses.
        guessed: the least loss that a constant has on the training samples, see `loss_of_constant`.
    """
    reached = history[-1]["train/loss"]
    if reached < (1 - LOSS_MARGIN) * guessed:
        return None
    return f"{MARK}: train/loss {reached:.4g} in the last epoch (the best constant: {guessed:.4g})"


def loss_of_constant(values: Tensor, loss: LossFunction, weights: Tensor | None = None) -> float:
    """The least mean loss of values (n, T) that equal outputs for all samples can have; weights of the samples (n,)."""
    values = values.double()
    low, high = values.amin(0), values.amax(0)
    sample_weights = torch.ones(len(values), dtype=torch.float64) if weights is None else weights.double()

    def cost(outputs: Tensor) -> Tensor:  # (T,) -> (T,)
        columns = [
            loss.samples(c.expand(len(values), 1), v.unsqueeze(1)) for c, v in zip(outputs, values.T, strict=True)
        ]
        return torch.stack([(sample_weights * column).sum() / sample_weights.sum() for column in columns])

    for _ in range(80):  # ternary search: the loss is a convex function of each output
        below, above = low + (high - low) / 3, high - (high - low) / 3
        falls = cost(below) > cost(above)
        low, high = torch.where(falls, below, low), torch.where(falls, high, above)
    return cost((low + high) / 2).mean().item()


@lru_cache(maxsize=32)
def _loss_of_constant_classes(counts: tuple[float, ...], loss: LossFunction) -> float:
    """The least loss of equal outputs for all samples, with these (weighted) counts of samples by class."""
    if loss.entry.of_shares is None:
        encoded = loss.dense(torch.arange(len(counts)), torch.zeros(1, len(counts), dtype=torch.float64))
        return loss_of_constant(encoded, loss, torch.tensor(counts, dtype=torch.float64))
    total, smoothing = sum(counts), loss.label_smoothing
    return loss.entry.of_shares([n / total for n in counts], smoothing)


def is_better(accuracy: float, share: float, samples: int) -> bool:
    """Whether a guesser who is right with probability `share` reaches `accuracy` with probability < FALSE_ALARM.

    Chernoff's bound of the binomial tail, exp(-n KL(accuracy || share)), which is never below the tail itself.
    """
    if accuracy <= share:
        return False
    divergence = accuracy * math.log(accuracy / share)
    if accuracy < 1:
        divergence += (1 - accuracy) * math.log((1 - accuracy) / (1 - share))
    return samples * divergence > -math.log(FALSE_ALARM)
