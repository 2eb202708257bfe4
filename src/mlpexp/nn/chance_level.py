"""Whether a trained network is better than guessing, by its accuracy and loss on the training samples.

A guesser knows only how common each class is. Its best accuracy is the share of the commonest class, and its best
cross-entropy the entropy of the class shares.
"""

import math
from collections.abc import Mapping, Sequence

MARK = "no better than guessing"  # start of the message of a run with status `chance`
LIKELY_CAUSES = (
    "likely causes: model.depth, model.activation or model.init (vanishing gradients), optimizer.lr, too few epochs"
)
FALSE_ALARM = 1e-6  # probability that a guesser passes for a network that has learned something
LOSS_MARGIN = 0.01  # relative


def chance_message(
    history: Sequence[Mapping[str, float]], class_counts: Sequence[int], class_weights: Sequence[float] | None = None
) -> str | None:
    """Why a finished training is at chance level; None where it is not.

    Two conditions must hold in the last epoch on the training samples: the accuracy is not significantly above the
    share of the commonest class, and the loss is not below the entropy of the shares. Both together tell a network
    that does not learn from one that learns slowly.

    Args:
        history: metrics of each epoch, all finite.
        class_counts: training samples of each class.
        class_weights: weight of each class in train/loss; None where all weigh the same.
    """
    total = sum(class_counts)
    share, entropy = max(class_counts) / total, _entropy(class_counts)
    if class_weights is not None:
        entropy = _entropy([n * weight for n, weight in zip(class_counts, class_weights, strict=True)])
    loss, accuracy = history[-1]["train/loss"], history[-1]["train/acc"]
    if is_better(accuracy, share, total) or loss < (1 - LOSS_MARGIN) * entropy:
        return None
    return (
        f"{MARK}: train/acc {accuracy:.3f} and train/loss {loss:.3f} in the last epoch "
        f"(guessing: {share:.3f} and {entropy:.3f})"
    )


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


def _entropy(counts: Sequence[float]) -> float:
    """Entropy of the shares in nats."""
    total = sum(counts)
    return sum(-n / total * math.log(n / total) for n in counts if n)
