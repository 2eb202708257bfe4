"""The implementation torch_nn: modules of `torch.nn`, optimizers of `torch.optim`, automatic optimization."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mlpexp.config.schema import Config
from mlpexp.models.classifier import Classifier
from mlpexp.nn.gradient_clipping import clip_run_
from mlpexp.nn.layers import Add, LayerSpec
from mlpexp.nn.network import NetworkSpec
from mlpexp.nn.optimizers import OPTIMIZERS
from mlpexp.nn.optimizers.weight_decay import WeightDecay
from mlpexp.nn.parametrization import has_own_decay, is_decoupled, parameter_settings
from mlpexp.nn.schedules import SCHEDULES, changes_by_step, is_constant, rate_factor
from mlpexp.nn.torch_modules import Draws, DropoutModule
from mlpexp.nn.user_module import UserModule, draws_of
from mlpexp.runtime.distributed import mean_over_batch


class TorchMLP(Classifier):
    """`nn.Linear` and the activations of torch, its losses on logits, `torch.optim`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._steps: list[Callable[..., Tensor]] = []
        self._skips: dict[int, int] = {}  # from the place of an addition to that of the value that is added
        self._dropouts: list[DropoutModule | Draws] = []
        self._base_rates: list[float] = []
        self._recorded_batch: int | None = None  # the batch whose outcomes were kept last
        super().__init__(*args, **kwargs)

    def _add_layer(self, k: int, layer: LayerSpec, initial: Mapping[str, Tensor]) -> None:
        step = layer.module()
        if isinstance(layer, UserModule):
            assert isinstance(step, nn.Module)
            self.add_module(layer.group, step)
            with torch.no_grad():
                for name, tensor in (*step.named_parameters(), *step.named_buffers()):
                    tensor.copy_(initial.get(name, tensor))
            self._dropouts.append(draws_of(step))
        elif isinstance(step, nn.Module):
            step.load_state_dict(dict(initial))
            self._register_layer(layer, step)
        if isinstance(layer, Add):
            self._skips[k] = layer.source
        if isinstance(step, DropoutModule):
            self._dropouts.append(step)
        self._steps.append(step)

    def forward(self, inputs: Tensor) -> Tensor:
        h = inputs
        if not self._skips:
            for step in self._steps:
                h = step(h)
            return h  # (B, C)
        values = [h]
        for k, step in enumerate(self._steps):
            h = step(h, values[self._skips[k]]) if k in self._skips else step(h)
            values.append(h)
        return h  # (B, C)

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self._recorded_batch = None

    def on_train_batch_start(self, batch: Any, batch_index: int) -> None:
        if SCHEDULES[self.cfg.optimizer.schedule].follows_monitor:
            factor = self.rate_factor(batch_index, int(self.trainer.num_training_batches))
            for optimizer in self.trainer.optimizers:
                set_rates(optimizer, self._base_rates, factor)

    def training_step(self, batch: tuple[Tensor, ...], batch_index: int) -> Tensor:
        inputs, labels, *batch_weights = batch
        for dropout in self._dropouts:
            dropout.seed, dropout.epoch, dropout.step = self.cfg.seed, self.current_epoch, batch_index
        logits = self(inputs)
        losses, weights = self.loss.samples(logits, labels), self.sample_weights(labels, batch_weights)  # (B,)
        if weights is not None:
            losses = losses * weights
        if batch_index != self._recorded_batch:  # L-BFGS comes several times in a step
            self._recorded_batch = batch_index
            self.record_batch("train", logits, labels, losses, weights)
        return mean_over_batch(losses, weights)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip and mask the gradients, and apply a weight decay that torch's optimizer does not have."""
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        settings = self.cfg.optimizer
        all_gradients = {name: self.get_parameter(name).grad for name in self.network.shapes}  # a stack's order
        gradients = {name: gradient for name, gradient in all_gradients.items() if gradient is not None}
        if self.pruning is not None:
            self.pruning.mask(gradients)
        clip_run_(list(gradients.values()), settings.clip_norm, settings.clip_value)
        if settings.weight_decay == 0 or has_own_decay(settings):
            return
        settings_by_name = parameter_settings(self.cfg.model, settings, self.network) or {}
        rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        decoupled = torch.tensor([is_decoupled(settings)])
        for name in self.network.shapes:
            parameter = self.get_parameter(name)
            decay = torch.tensor(
                [settings_by_name[name][1] if settings_by_name else settings.weight_decay], dtype=torch.float64
            )
            values, gradient = parameter.detach().unsqueeze(0), parameter.grad
            assert gradient is not None
            penalty = WeightDecay(decay, decoupled, [values])
            penalty.shrink(0, torch.tensor([rates[id(parameter)]], dtype=torch.float64))
            penalty.add_to(0, gradient.unsqueeze(0))

    def _forget_state(self) -> None:
        settings = self.cfg.optimizer
        initial_state = OPTIMIZERS[settings.name].further_state(settings, 0)
        for optimizer in self.trainer.optimizers:
            for state in optimizer.state.values():
                for name, value in state.items():
                    value.copy_(initial_state.get(name, torch.zeros(())))

    def configure_optimizers(self) -> Any:
        by_step, steps = changes_by_step(self.cfg.optimizer), 1
        if by_step:
            trainer = self.trainer
            trainer.fit_loop.setup_data()  # for the number of batches
            steps = -(-int(trainer.num_training_batches) // trainer.accumulate_grad_batches)
        optimizer, schedule = self.make_optimizer(steps)
        if schedule is None:
            return optimizer
        return [optimizer], [{"scheduler": schedule, "interval": "step" if by_step else "epoch"}]

    def make_optimizer(self, steps: int) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR | None]:
        """See the function of this name.

        Args:
            steps: per epoch; any number where the rate does not change within epochs.
        """
        parameters = {name: self.get_parameter(name) for name in self.network.shapes}
        optimizer, schedule = make_optimizer(self.cfg, parameters, self.network, steps)
        self._base_rates = [group["lr"] for group in optimizer.param_groups]
        return optimizer, schedule


def make_optimizer(
    cfg: Config, parameters: Mapping[str, nn.Parameter], network: NetworkSpec, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR | None]:
    """The optimizer of `cfg` and its schedule, stepped once per epoch, or once per step where the rate
    `changes_by_step`; None for a constant rate and for one that follows the monitor.

    Args:
        parameters: by name; the optimizer numbers them in this order.
        steps: per epoch.
    """
    settings = cfg.optimizer
    rule = OPTIMIZERS[settings.name]
    shared: dict[str, Any] = {"lr": settings.lr} | rule.arguments(settings)
    is_own_decay = has_own_decay(settings)
    if rule.has_decay:
        shared["weight_decay"] = settings.weight_decay if is_own_decay else 0.0
    settings_by_name = parameter_settings(cfg.model, settings, network)
    groups: Any = list(parameters.values())
    if settings_by_name is not None:
        groups = [
            {
                "params": [parameter],
                "lr": settings_by_name[name][0],
                "weight_decay": settings_by_name[name][1] if is_own_decay else 0.0,
            }
            | rule.group_options(network, name)
            for name, parameter in parameters.items()
        ]
    optimizer = rule.torch_class()(groups, **shared)
    if (is_constant(settings) and cfg.swa.lr is None) or SCHEDULES[settings.schedule].follows_monitor:
        return optimizer, None
    epochs, by_step = cfg.trainer.max_epochs, changes_by_step(settings)

    def factor(count: int) -> float:
        epoch, step = divmod(count, steps) if by_step else (count, 0)
        return rate_factor(settings, epoch, epochs, cfg.swa, step=step, steps=steps)

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def advance_optimizer(
    cfg: Config,
    optimizer_and_schedule: tuple[torch.optim.Optimizer, Any],
    epochs: int,
    steps: int,
    total_steps: int,
    reduced: float,
) -> None:
    """Set the optimizer and schedule of `make_optimizer` to their state after `epochs` epochs.

    Args:
        epochs, steps: finished epochs, and steps in each.
        total_steps: of all epochs.
        reduced: the factor of the plateaus of the epochs before the last one.
    """
    settings, (optimizer, schedule) = cfg.optimizer, optimizer_and_schedule
    if SCHEDULES[settings.schedule].follows_monitor:
        place = epochs - 1, cfg.trainer.max_epochs, cfg.swa
        factor = rate_factor(settings, *place, step=steps - 1, steps=steps, reduced=reduced)
        set_rates(optimizer, [group["lr"] for group in optimizer.param_groups], factor)
    if schedule is not None:
        count = total_steps if changes_by_step(settings) else epochs
        schedule.last_epoch, schedule._step_count = count - 1, count
        with warnings.catch_warnings():
            # the optimizer has not made a step: its first one imports torch's compiler, two seconds
            warnings.simplefilter("ignore", UserWarning)
            schedule.step()


def set_rates(optimizer: torch.optim.Optimizer, base_rates: Sequence[float], factor: float) -> None:
    """Give each group of parameters its rate before the schedule times `factor`."""
    for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
        group["lr"] = rate * factor
