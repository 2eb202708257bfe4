"""The network as torch tells it: `nn.Linear` layers, torch optimizers, automatic optimization."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from mlpexp.config.schema import Config
from mlpexp.models.classifier import Classifier
from mlpexp.nn.functional import Layer
from mlpexp.nn.optimizers import OPTIMIZERS
from mlpexp.nn.parametrization import rate_factors
from mlpexp.nn.schedules import is_constant, rate_factor
from mlpexp.runtime.distributed import mean_over_batch


class TorchMLP(Classifier):
    """`nn.Linear`, `F.cross_entropy` on logits, `torch.optim`."""

    def _make_layers(self, initial: list[Layer]) -> nn.ModuleList:
        layers = nn.ModuleList()
        for weight, bias in initial:
            linear = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0])
            linear.weight.data.copy_(weight)
            linear.bias.data.copy_(bias)
            layers.append(linear)
        return layers

    def forward(self, inputs: Tensor) -> Tensor:
        h = inputs
        for layer in self.layers[:-1]:
            h = self.activation.function(layer(h))  # (B, O)
        return self.layers[-1](h)  # (B, C)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        inputs, labels = batch
        logits = self(inputs)
        losses, weights = self.loss.samples(logits, labels), self.sample_weights(labels)  # (B,)
        if weights is not None:
            losses = losses * weights
        self.note("train", logits, labels, losses, weights)
        return mean_over_batch(losses, weights)

    def configure_optimizers(self) -> Any:
        optimizer, schedule = make_optimizer(self.cfg, list(self.parameters()), self.sizes)
        return optimizer if schedule is None else ([optimizer], [schedule])


def make_optimizer(
    cfg: Config, parameters: Sequence[nn.Parameter], sizes: Sequence[int]
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR | None]:
    """torch's optimizer as `cfg` says, and its schedule, stepped once per epoch; None for a constant rate.

    Args:
        parameters: weight and bias of each layer in turn.
        sizes: units of inputs, hidden layers, classes.
    """
    settings = cfg.optimizer
    rule = OPTIMIZERS[settings.name]
    shared: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    shared |= {key: getattr(settings, key) for key in rule.keys}
    factors = rate_factors(cfg.model, settings.name, sizes)
    groups: Any = parameters
    if factors is not None:  # every parameter at a rate of its own
        groups = [
            {"params": [parameter], "lr": settings.lr * factor, "weight_decay": settings.weight_decay / factor}
            for parameter, factor in zip(parameters, chain.from_iterable(factors), strict=True)
        ]
    optimizer = rule.torch_class()(groups, **shared)
    if is_constant(settings):
        return optimizer, None
    epochs = cfg.trainer.max_epochs
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: rate_factor(settings, epoch, epochs))
