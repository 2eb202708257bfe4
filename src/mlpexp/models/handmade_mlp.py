"""What the two hand-made variants share: bare parameters, own loss, parameters moved by hand."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlpexp.config.schema import OptimizerConfig
from mlpexp.models.classifier import Classifier
from mlpexp.nn import functional
from mlpexp.nn.functional import Layer, Trace
from mlpexp.nn.parametrization import Factors, rate_factors
from mlpexp.nn.schedules import learning_rate


class HandMadeLayer(nn.Module):
    """A weight and a bias, and with momentum their velocities; how they are used is the network's business."""

    weight_velocity: Tensor | None
    bias_velocity: Tensor | None

    def __init__(self, initial: Layer, momentum: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(initial.weight)  # (O, I)
        self.bias = nn.Parameter(initial.bias)  # (O,)
        # buffers, so that they follow the parameters to another device; not persistent, because every
        # variant's state_dict holds the same names
        for name, tensor in initial._asdict().items():
            self.register_buffer(f"{name}_velocity", torch.zeros_like(tensor) if momentum else None, persistent=False)


class HandMadeMLP(Classifier):
    """Own softmax and cross-entropy, own gradient descent; the subclass says where gradients come from."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.automatic_optimization = False

    @property
    def hand_made(self) -> list[HandMadeLayer]:
        """The layers by their own type, which `nn.ModuleList` forgets."""
        return cast(list[HandMadeLayer], list(self.layers))

    def _make_layers(self, initial: list[Layer]) -> nn.ModuleList:
        return nn.ModuleList(HandMadeLayer(layer, self.cfg.optimizer.momentum > 0) for layer in initial)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.trace(inputs).logits

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        targets = F.one_hot(labels, self.sizes[-1]).to(logits.dtype)
        return self.loss.by_hand(logits, targets)

    def trace(self, inputs: Tensor) -> Trace:
        """The forward pass with its intermediate values; with a graph where autograd is on."""
        layers = [Layer(layer.weight, layer.bias) for layer in self.hand_made]
        return functional.forward(layers, inputs, self.activation)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        inputs, labels = batch
        targets = F.one_hot(labels, self.sizes[-1]).to(inputs.dtype)  # (B, C)
        logits, losses, gradients = self.learn(inputs, targets)
        cfg, epoch, epochs = self.cfg.optimizer, self.current_epoch, self.cfg.trainer.max_epochs
        factors = rate_factors(self.cfg.model, cfg.name, self.sizes) or [Factors(1.0, 1.0)] * len(gradients)
        for layer, gradient, (by_weight, by_bias) in zip(self.hand_made, gradients, factors, strict=True):
            rates = learning_rate(cfg, epoch, epochs, by_weight), learning_rate(cfg, epoch, epochs, by_bias)
            sgd_(layer.weight, gradient.weight, layer.weight_velocity, cfg, rates[0], by_weight)
            sgd_(layer.bias, gradient.bias, layer.bias_velocity, cfg, rates[1], by_bias)
        weights = self.sample_weights(labels)
        self.note("train", logits, labels, losses if weights is None else losses * weights, weights)
        # there is no torch optimizer whose steps Lightning could count, and its own callbacks go by that count
        steps = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        steps.increment_ready()
        steps.increment_completed()

    def learn(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, list[Layer]]:
        """Logits (B, C), unweighted loss of each sample (B,), the gradient of the weighted mean for each layer."""
        raise NotImplementedError

    def configure_optimizers(self) -> None:
        """None: the parameters are moved by hand."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["velocities"] = [[layer.weight_velocity, layer.bias_velocity] for layer in self.hand_made]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for layer, (weight, bias) in zip(self.hand_made, checkpoint["velocities"], strict=True):
            if layer.weight_velocity is not None and layer.bias_velocity is not None:
                layer.weight_velocity.copy_(weight)
                layer.bias_velocity.copy_(bias)


@torch.no_grad()
def sgd_(
    parameter: Tensor,
    gradient: Tensor,
    velocity: Tensor | None,
    cfg: OptimizerConfig,
    lr: float,
    factor: float = 1.0,
) -> None:
    """One step of stochastic gradient descent in place, as `torch.optim.SGD` defines it.

    Args:
        velocity: the momentum buffer, zeros at first, also changed in place; None without momentum.
        factor: is contained in `lr` already, and divides the weight decay, see `parametrization`.
    """
    if cfg.weight_decay > 0:
        gradient = gradient + (cfg.weight_decay / factor) * parameter
    if velocity is not None:
        velocity.mul_(cfg.momentum).add_(gradient)
        gradient = gradient + cfg.momentum * velocity if cfg.nesterov else velocity
    parameter -= lr * gradient
