"""The implementation torch_nn: modules of `torch.nn`, optimizers of `torch.optim`, automatic optimization."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mlpexp.config.schema import Config
from mlpexp.models.classifier import Classifier
from mlpexp.nn.layers import LayerSpec
from mlpexp.nn.network import NetworkSpec
from mlpexp.nn.optimizers import OPTIMIZERS
from mlpexp.nn.parametrization import own_decay, parameter_settings
from mlpexp.nn.schedules import is_constant, rate_factor
from mlpexp.runtime.distributed import mean_over_batch


class TorchMLP(Classifier):
    """`nn.Linear` and the activations of torch, its losses on logits, `torch.optim`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._steps: list[Callable[[Tensor], Tensor]] = []
        super().__init__(*args, **kwargs)

    def _add_layer(self, k: int, layer: LayerSpec, initial: Mapping[str, Tensor]) -> None:
        step = layer.module()
        if isinstance(step, nn.Module):
            step.load_state_dict(dict(initial))
            self._register_layer(layer, step)
        self._steps.append(step)

    def forward(self, inputs: Tensor) -> Tensor:
        h = inputs
        for step in self._steps:
            h = step(h)
        return h  # (B, C)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        inputs, labels = batch
        logits = self(inputs)
        losses, weights = self.loss.samples(logits, labels), self.sample_weights(labels)  # (B,)
        if weights is not None:
            losses = losses * weights
        self.note("train", logits, labels, losses, weights)
        return mean_over_batch(losses, weights)

    def configure_optimizers(self) -> Any:
        optimizer, schedule = make_optimizer(
            self.cfg, {name: self.get_parameter(name) for name in self.network.shapes}, self.network
        )
        return optimizer if schedule is None else ([optimizer], [schedule])


def make_optimizer(
    cfg: Config, parameters: Mapping[str, nn.Parameter], network: NetworkSpec
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR | None]:
    """The optimizer of `cfg` and its schedule, stepped once per epoch; None for a constant rate.

    Args:
        parameters: by name; the optimizer numbers them in this order.
    """
    settings = cfg.optimizer
    rule = OPTIMIZERS[settings.name]
    shared: dict[str, Any] = {"lr": settings.lr} | rule.arguments(settings)
    has_own_decay = rule.has_decay and own_decay(settings)
    if rule.has_decay:
        shared["weight_decay"] = settings.weight_decay if has_own_decay else 0.0
    each = parameter_settings(cfg.model, settings, network)
    groups: Any = list(parameters.values())
    if each is not None:
        groups = [
            {"params": [parameter], "lr": each[name][0], "weight_decay": each[name][1] if has_own_decay else 0.0}
            | rule.group_options(network, name)
            for name, parameter in parameters.items()
        ]
    optimizer = rule.torch_class()(groups, **shared)
    if is_constant(settings):
        return optimizer, None
    epochs = cfg.trainer.max_epochs
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: rate_factor(settings, epoch, epochs))
