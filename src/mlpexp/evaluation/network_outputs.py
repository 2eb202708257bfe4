"""What a network answers to samples, sample by sample.

Letters: N samples, I inputs, C classes, H units of the last hidden layer.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlpexp.data.batches import Batches
from mlpexp.models.classifier import Classifier
from mlpexp.nn.functional import forward
from mlpexp.nn.metrics import Outcomes, measure
from mlpexp.runtime.errors import UserError

BATCH = 65_536  # samples at once, as in training's own validation and test: the bits then agree


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Labels and answers of N samples, in their order.

    Attributes:
        index: the samples' places in the whole data set, (N,).
        inputs: (N, I), as the network sees them.
        labels: (N,), probabilities: (N, C), predicted: (N,), confidence: (N,) in [0, 1].
        hidden: the last hidden layer's output, (N, H); the logits where there is no hidden layer.
        loss: the mean cross-entropy in nats; acc: the share that is right.
    """

    index: NDArray[np.int64]
    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    predicted: NDArray[np.int64]
    hidden: NDArray[np.float32]
    loss: float
    acc: float

    @property
    def confidence(self) -> NDArray[np.float64]:
        found: NDArray[np.float64] = self.probabilities[np.arange(len(self.predicted)), self.predicted]
        return found

    def __len__(self) -> int:
        return len(self.labels)


@torch.inference_mode()
def ask(module: Classifier, inputs: Tensor, labels: Tensor, index: NDArray[np.int64]) -> Answers:
    """Every sample's answer; loss and accuracy by the same steps as in a run's own test.

    Raises:
        UserError: the answers are not finite.
    """
    logits = torch.cat([_logits(module, some) for some, _ in Batches(inputs, labels, BATCH)])
    if not torch.isfinite(logits).all():
        raise UserError("the network's answers are not finite, its weights are too large: the run has diverged")
    losses = torch.cat([module.losses(*pair) for pair in zip(logits.split(BATCH), labels.split(BATCH), strict=True)])
    predicted = logits.argmax(-1)
    metrics = measure("test", Outcomes(losses, predicted, labels, logits.shape[-1]))
    return Answers(
        index=index,
        inputs=inputs.numpy(),
        labels=labels.numpy(),
        probabilities=probabilities(logits).numpy(),
        predicted=predicted.numpy(),
        hidden=last_hidden(module, inputs).float().numpy(),
        loss=metrics["test/loss"].item(),
        acc=metrics["test/acc"].item(),
    )


@torch.inference_mode()
def classify(module: Classifier, inputs: Tensor) -> Tensor:
    """The probability of each class, (N, C), of samples without labels (N, I).

    Raises:
        UserError: the answers are not finite.
    """
    logits = torch.cat([_logits(module, some) for some in inputs.split(BATCH)])
    if not torch.isfinite(logits).all():
        raise UserError("the network's answers are not finite: an input, or a weight, is too large")
    return probabilities(logits)


def probabilities(logits: Tensor) -> Tensor:
    """Softmax in double precision, (N, C): in single, the most confident could not be told apart."""
    return logits.double().softmax(-1)


def last_hidden(module: Classifier, inputs: Tensor) -> Tensor:
    """The last hidden layer's output (N, H), or the logits where there is no hidden layer."""
    trace = forward(module.parameter_layers(), _as_weights(module, inputs), module.activation)
    return trace.hidden[-1] if trace.hidden else trace.logits


def _logits(module: Classifier, inputs: Tensor) -> Tensor:
    found: Tensor = module(_as_weights(module, inputs))
    return found


def _as_weights(module: Classifier, inputs: Tensor) -> Tensor:
    return inputs.to(next(module.parameters()).dtype)  # double where trained so
