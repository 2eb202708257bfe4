"""The outputs of a trained network, sample by sample.

Letters: N samples, I inputs, C classes, H units of the last hidden layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlpexp.data.batches import Batches
from mlpexp.models.classifier import Classifier
from mlpexp.nn.metric_columns import measure
from mlpexp.nn.network import forward
from mlpexp.nn.outcomes import Outcomes
from mlpexp.runtime.errors import UserError

BATCH = 65_536  # samples at once, as in validation and test while training, so that the bits agree


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Labels and outputs of N samples.

    Attributes:
        index: the samples' rows in the whole data set, (N,).
        inputs: (N, I), after preprocessing.
        labels: (N,), probabilities: (N, C), predicted: (N,).
        hidden: outputs of the last hidden layer, (N, H); the logits where there is no hidden layer.
        measured: the metrics that the run records, loss and accuracy among them.
    """

    index: NDArray[np.int64]
    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    predicted: NDArray[np.int64]
    hidden: NDArray[np.float32]
    measured: dict[str, float]

    @property
    def confidence(self) -> NDArray[np.float64]:
        """The probability of the predicted class, (N,)."""
        confidence: NDArray[np.float64] = self.probabilities[np.arange(len(self.predicted)), self.predicted]
        return confidence

    def __len__(self) -> int:
        return len(self.labels)


@torch.inference_mode()
def compute_outputs(module: Classifier, inputs: Tensor, labels: Tensor, index: NDArray[np.int64]) -> Outputs:
    """Outputs, loss and accuracy, computed as in the test of a training.

    Raises:
        UserError: the logits are not finite.
    """
    inputs, raw = inputs.to(next(module.parameters()).dtype), inputs  # double precision where trained so
    logits = _logits(module, _batches(inputs, labels))
    predicted = logits.argmax(-1)
    return Outputs(
        index=index,
        inputs=raw.numpy(),
        labels=labels.numpy(),
        probabilities=_softmax(logits).numpy(),
        predicted=predicted.numpy(),
        hidden=last_hidden(module, inputs).float().numpy(),
        measured=_measured(module, logits, labels),
    )


@torch.inference_mode()
def measure_network(module: Classifier, inputs: Tensor, labels: Tensor) -> dict[str, float]:
    """The metrics that the run of a network records, computed as in the test of its training.

    Raises:
        UserError: the outputs are not finite.
    """
    inputs = inputs.to(next(module.parameters()).dtype)
    return _measured(module, _logits(module, _batches(inputs, labels)), labels)


@torch.inference_mode()
def value_outputs(module: Classifier, inputs: Tensor) -> Tensor:
    """The outputs (N, T) of a regression for inputs (N, I), in standard deviations.

    Raises:
        UserError: they are not finite.
    """
    return _logits(module, inputs.to(next(module.parameters()).dtype).split(BATCH))


def _batches(inputs: Tensor, labels: Tensor) -> list[Tensor]:
    return [batch[0] for batch in Batches(inputs, labels, BATCH)]


def _measured(module: Classifier, logits: Tensor, labels: Tensor) -> dict[str, float]:
    losses = torch.cat([module.losses(*pair) for pair in zip(logits.split(BATCH), labels.split(BATCH), strict=True)])
    predicted = None if labels.is_floating_point() else logits.argmax(-1)
    outcomes = Outcomes(losses, predicted, labels, logits.shape[-1], outputs=logits)
    if module.target_scale is not None:
        outcomes = outcomes.in_target_units(module.target_scale, module.loss.entry.power)
    metrics = measure("test", outcomes, names=module.cfg.metric_names)
    return {column.removeprefix("test/"): value.item() for column, value in metrics.items()}


@torch.inference_mode()
def classify(module: Classifier, inputs: Tensor) -> Tensor:
    """The probability of each class, (N, C) float64, for inputs (N, I).

    Raises:
        UserError: the logits are not finite.
    """
    return _softmax(_logits(module, inputs.to(next(module.parameters()).dtype).split(BATCH)))


def last_hidden(module: Classifier, inputs: Tensor) -> Tensor:
    """Outputs of the last hidden layer, (N, H); the logits where no hidden layer is known."""
    if module.network.user_module is not None:  # its layers are not known
        outputs: Tensor = module(inputs)
        return outputs
    trace = forward(module.network, module.parameter_values(), inputs)
    last, _ = module.network.linear[-1]
    return trace.values[last] if last > 0 else trace.logits


def _logits(module: Classifier, batches: Sequence[Tensor]) -> Tensor:
    logits = torch.cat([module(batch) for batch in batches])
    if not torch.isfinite(logits).all():
        raise UserError("the network's logits are not finite: the run has diverged, or an input is too large")
    return logits


def _softmax(logits: Tensor) -> Tensor:
    """In double precision, so that confident predictions remain distinguishable."""
    return logits.double().softmax(-1)
