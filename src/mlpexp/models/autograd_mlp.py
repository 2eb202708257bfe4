"""The implementation autograd, the notebook's second part: parameters by hand, gradients by autograd."""

from torch import Tensor, autograd

from mlpexp.models.handmade_mlp import HandMadeMLP
from mlpexp.nn.losses import batch_mean


class AutogradMLP(HandMadeMLP):
    """Own parameters, own softmax and cross-entropy; autograd derives the gradients."""

    def learn(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        logits = self.trace(inputs).logits
        losses = self.loss.by_hand(logits, targets)
        parameters = dict(self.named_parameters())
        mean = batch_mean(losses, targets, self.class_weights)
        gradients = autograd.grad(mean, list(parameters.values()))
        return logits, losses, dict(zip(parameters, gradients, strict=True))
