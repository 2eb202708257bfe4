"""The two implementations by hand share this: bare parameters, own loss, own update."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, autograd, nn

from mlpexp.config.training_config import OptimizerConfig
from mlpexp.models.classifier import Classifier
from mlpexp.nn import network
from mlpexp.nn.gradient_clipping import clip_run_
from mlpexp.nn.layers import LayerSpec
from mlpexp.nn.losses import batch_mean
from mlpexp.nn.network import Trace, training_tensors, update_statistics_
from mlpexp.nn.parametrization import is_decoupled, parameter_settings


class HandMadeLayer(nn.Module):
    """A layer's parameters and running statistics, and with momentum the velocities of the parameters."""

    def __init__(self, layer: LayerSpec, initial: Mapping[str, Tensor], momentum: bool) -> None:
        super().__init__()
        for name, tensor in initial.items():
            if name in layer.buffers:
                self.register_buffer(name, tensor)
                continue
            self.register_parameter(name, nn.Parameter(tensor))
            # buffers, so that they follow the parameters to another device; not persistent, because the state_dict
            # of every implementation holds the same names
            velocity = torch.zeros_like(tensor) if momentum else None
            self.register_buffer(f"{name}_velocity", velocity, persistent=False)


class HandMadeMLP(Classifier):
    """Own loss, own gradient descent; the subclasses differ in how they compute gradients.

    Class attributes:
        needs_graph: the forward pass of a training step is recorded by autograd.
    """

    needs_graph: ClassVar[bool] = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.automatic_optimization = False

    def _add_layer(self, k: int, layer: LayerSpec, initial: Mapping[str, Tensor]) -> None:
        if initial:
            self._register_layer(layer, HandMadeLayer(layer, initial, self.cfg.optimizer.momentum > 0))

    def velocity(self, name: str) -> Tensor | None:
        """The momentum buffer of a parameter; None without momentum."""
        layer, _, short = name.rpartition(".")
        velocity: Tensor | None = getattr(self.get_submodule(layer), f"{short}_velocity")
        return velocity

    def forward(self, inputs: Tensor) -> Tensor:
        return self.trace(inputs).logits

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        loss = self.loss.without_smoothing
        return loss.by_hand(logits, loss.dense(labels, logits))

    def trace(self, inputs: Tensor) -> Trace:
        """The forward pass of an evaluation with its intermediate values; with a graph where autograd is on."""
        return network.forward(self.network, self.tensors(), inputs)

    def training_step(self, batch: tuple[Tensor, ...], batch_index: int) -> None:
        inputs, labels, *batch_weights = batch
        weights, tensors = self.sample_weights(labels, batch_weights), self.tensors()
        step_tensors = training_tensors(self.network, tensors, inputs, self.cfg.seed, self.current_epoch, batch_index)
        with torch.set_grad_enabled(self.needs_graph):
            trace = network.forward(self.network, step_tensors, inputs)
            targets = self.loss.dense(labels, trace.logits)
            losses = self.loss.by_hand(trace.logits, targets)
            gradients = self.gradients(step_tensors, trace, targets, losses, weights)
        with torch.no_grad():
            update_statistics_(self.network, tensors, trace)
        cfg = self.cfg.optimizer
        if self.pruning is not None:
            self.pruning.mask(gradients)
        clip_run_(list(gradients.values()), cfg.clip_norm, cfg.clip_value)
        settings_by_name = parameter_settings(self.cfg.model, cfg, self.network) or {}
        factor = self.rate_factor(batch_index, int(self.trainer.num_training_batches))
        for name, gradient in gradients.items():
            lr, decay = settings_by_name.get(name, (cfg.lr, cfg.weight_decay))
            sgd_(self.get_parameter(name), gradient, self.velocity(name), cfg, lr * factor, decay)
        self.record_batch("train", trace.logits, labels, losses if weights is None else losses * weights, weights)
        # Lightning counts the steps of torch's optimizers, and its callbacks read that count; there is none here
        steps = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        steps.increment_ready()
        steps.increment_completed()

    def gradients(
        self, tensors: Mapping[str, Tensor], trace: Trace, targets: Tensor, losses: Tensor, weights: Tensor | None
    ) -> dict[str, Tensor]:
        """The gradient of the weighted mean of the losses, by parameter.

        Args:
            tensors: what the forward pass has read, see `training_tensors`.
            targets, losses, weights: dense (B, C), and of each sample (B,).
        """
        raise NotImplementedError

    def _forget_state(self) -> None:
        for name in self.network.shapes:
            if (velocity := self.velocity(name)) is not None:
                velocity.zero_()

    def configure_optimizers(self) -> None:
        """None: `training_step` updates the parameters."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["velocities"] = [
            [self.velocity(names[name]) for name in layer.shapes]
            for layer, names in zip(self.network.layers, self.network.names, strict=True)
            if layer.shapes
        ]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if "velocities" not in checkpoint:  # of another implementation: its weights, without momentum
            return
        saved = [tensor for layer in checkpoint["velocities"] for tensor in layer]
        for name, tensor in zip(self.network.shapes, saved, strict=True):
            if (velocity := self.velocity(name)) is not None:
                velocity.copy_(tensor)


class AutogradMLP(HandMadeMLP):
    """The implementation autograd, the notebook's second part: autograd derives the gradients."""

    needs_graph = True

    def gradients(
        self, tensors: Mapping[str, Tensor], trace: Trace, targets: Tensor, losses: Tensor, weights: Tensor | None
    ) -> dict[str, Tensor]:
        parameters = dict(self.named_parameters())
        gradients = autograd.grad(batch_mean(losses, weights), list(parameters.values()))
        return dict(zip(parameters, gradients, strict=True))


class BackpropMLP(HandMadeMLP):
    """The implementation backprop, the course's first notebook: no autograd, the chain rule written out."""

    def gradients(
        self, tensors: Mapping[str, Tensor], trace: Trace, targets: Tensor, losses: Tensor, weights: Tensor | None
    ) -> dict[str, Tensor]:
        logits_gradient = self.loss.by_hand_gradient(trace.logits, targets, weights)
        return network.backward(self.network, tensors, trace, logits_gradient).parameters


@torch.no_grad()
def sgd_(
    parameter: Tensor,
    gradient: Tensor,
    velocity: Tensor | None,
    cfg: OptimizerConfig,
    lr: float,
    decay: float,
) -> None:
    """One step of stochastic gradient descent in place, as `torch.optim.SGD` defines it.

    Args:
        velocity: the momentum buffer, zeros at first, also changed in place; None without momentum.
        decay: the weight decay of this parameter.
    """
    if decay > 0 and is_decoupled(cfg):
        parameter *= 1 - lr * decay
    elif decay > 0:
        gradient = gradient + decay * parameter
    if velocity is not None:
        velocity.mul_(cfg.momentum).add_(gradient)
        gradient = gradient + cfg.momentum * velocity if cfg.nesterov else velocity
    parameter -= lr * gradient
