"""When a run has learned nothing: its numbers are those of guessing, within what chance allows.

Guessing means to know nothing but how common each class is: always to name the commonest one gives its share as
accuracy, always to predict the shares gives their entropy as loss, and no constant answer does better in either.
"""

import math
from collections.abc import Mapping, Sequence

MARK = "at chance level"  # how the message of such a run begins
# so that of ten thousand runs that do learn a little, hardly one is taken for one that does not
SURELY = 1e-6
LOSS_MARGIN = 0.01


def level(
    history: Sequence[Mapping[str, float]], class_counts: Sequence[int], class_weights: Sequence[float] | None = None
) -> str | None:
    """Why a finished training has learned nothing; None where it has.

    Both must hold in the last epoch, on the training samples: accuracy is not above the commonest class's share by
    more than chance explains, and loss is not below the entropy of the shares. So a network that learns slowly is
    told from one that does not learn.

    Args:
        history: metrics of each epoch, all finite.
        class_counts: training samples of each class.
        class_weights: what each counted in train/loss, where not all counted alike.
    """
    total = sum(class_counts)
    share, entropy = max(class_counts) / total, _entropy(class_counts)
    if class_weights is not None:
        entropy = _entropy([n * weight for n, weight in zip(class_counts, class_weights, strict=True)])
    loss, accuracy = history[-1]["train/loss"], history[-1]["train/acc"]
    if is_better(accuracy, share, total) or loss < (1 - LOSS_MARGIN) * entropy:
        return None
    return (
        f"{MARK}: in the last epoch train/acc {accuracy:.3f} and train/loss {loss:.3f} are no better than guessing "
        f"({share:.3f} and {entropy:.3f})"
    )


def is_better(accuracy: float, share: float, samples: int) -> bool:
    """Whether a guesser that is right with probability `share` would hardly reach `accuracy` on so many samples.

    By Chernoff's bound of the binomial tail, exp(-n KL(accuracy || share)), which is never below the tail itself.
    """
    if accuracy <= share:
        return False
    divergence = accuracy * math.log(accuracy / share)
    if accuracy < 1:
        divergence += (1 - accuracy) * math.log((1 - accuracy) / (1 - share))
    return samples * divergence > -math.log(SURELY)


def _entropy(counts: Sequence[float]) -> float:
    """Of the shares, in nats."""
    total = sum(counts)
    return sum(-n / total * math.log(n / total) for n in counts if n)
