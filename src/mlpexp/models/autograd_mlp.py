"""The notebook's second part: hand-made parameters, gradients by autograd."""

from torch import Tensor, autograd

from mlpexp.models.handmade_mlp import HandMadeMLP
from mlpexp.nn.functional import Layer
from mlpexp.nn.losses import batch_mean


class AutogradMLP(HandMadeMLP):
    """Own parameters, own softmax and cross-entropy; autograd derives the gradients."""

    def learn(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, list[Layer]]:
        logits = self.trace(inputs).logits
        losses = self.loss.by_hand(logits, targets)
        parameters = [tensor for layer in self.hand_made for tensor in (layer.weight, layer.bias)]
        found = autograd.grad(batch_mean(losses, targets, self.class_weights), parameters)
        gradients = [Layer(*pair) for pair in zip(found[::2], found[1::2], strict=True)]
        return logits, losses, gradients
