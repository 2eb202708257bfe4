"""The network of the course's first notebook: forward and backward pass derived by hand."""

import torch
from torch import Tensor

from mlpexp.models.handmade_mlp import HandMadeMLP
from mlpexp.nn.functional import Layer, backward


class BackpropMLP(HandMadeMLP):
    """No autograd at all: the chain rule, written out."""

    @torch.no_grad()
    def learn(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, list[Layer]]:
        layers = self.parameter_layers()
        trace = self.trace(inputs)
        logits_gradient = self.loss.by_hand_gradient(trace.logits, targets, self.class_weights)
        gradients = backward(layers, inputs, trace, logits_gradient, self.activation)
        return trace.logits, self.loss.by_hand(trace.logits, targets), gradients
