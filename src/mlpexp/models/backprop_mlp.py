"""The implementation backprop, the course's first notebook: forward and backward pass derived by hand."""

import torch
from torch import Tensor

from mlpexp.models.handmade_mlp import HandMadeMLP
from mlpexp.nn.network import backward


class BackpropMLP(HandMadeMLP):
    """No autograd: the chain rule, written out."""

    @torch.no_grad()
    def learn(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        trace = self.trace(inputs)
        logits_gradient = self.loss.by_hand_gradient(trace.logits, targets, self.class_weights)
        gradients = backward(self.network, self.parameter_values(), trace, logits_gradient)
        return trace.logits, self.loss.by_hand(trace.logits, targets), gradients.parameters
