"""The LightningModule that the three implementations share: parameters by name, metrics once per epoch."""

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from mlpexp.config import checks
from mlpexp.config.model_config import ModelConfig
from mlpexp.config.schema import Config, plain
from mlpexp.data.data_description import Description
from mlpexp.models.run_average import AVERAGED_WEIGHTS, RunAverage
from mlpexp.models.run_pruning import RunPruning
from mlpexp.nn.initialisation import initialise
from mlpexp.nn.layers import LayerSpec
from mlpexp.nn.metric_columns import measure
from mlpexp.nn.network import NetworkSpec
from mlpexp.nn.outcomes import Outcomes, joined
from mlpexp.nn.schedules import Plateau, rate_factor
from mlpexp.runtime.distributed import share, total

log = logging.getLogger(__name__)


def hyperparameters(cfg: Config, num_features: int, num_classes: int, data: Description | None) -> dict[str, Any]:
    """The hyperparameters in a checkpoint; without `data` where the data is not known."""
    values: dict[str, Any] = {"config": plain(cfg), "num_features": num_features, "num_classes": num_classes}
    return values | ({"data": data.to_plain()} if data is not None else {})


def warn_without_effect(model: ModelConfig, network: NetworkSpec) -> None:
    """Warn once of keys of the model that have no effect."""
    if not model.hidden_sizes:
        dropout = model.dropout if isinstance(model.dropout, float) else 0.0  # a list is as long as the layers
        keys = [f"model.dropout={dropout:g}"] * (dropout > 0) + [f"model.norm={model.norm}"] * (model.norm != "none")
        if keys:
            _warn(f"model.depth=0 has no hidden layers, so that {' and '.join(keys)} have no effect")
    if model.residual and not network.sources:
        _warn(
            f"model.residual=true adds nothing here: no block of model.block_depth={model.block_depth} hidden layers "
            f"has as many inputs as outputs; give model.depth={2 * model.block_depth} or more, or "
            f"model.width={network.sizes[0]}, the number of inputs"
        )


def warn_long_warmup(cfg: Config, steps: int) -> None:
    """Warn once if the warm-up does not end before the training, which has `steps` steps in an epoch."""
    settings, epochs = cfg.optimizer, cfg.trainer.max_epochs
    if settings.warmup_epochs * steps + settings.warmup_steps >= epochs * steps:
        key = "warmup_epochs" if settings.warmup_epochs else "warmup_steps"
        count, unit = (epochs, "epoch") if settings.warmup_epochs else (epochs * steps, "step")
        _warn(
            f"optimizer.{key}={getattr(settings, key)} is as long as the training of {count:,} {unit}"
            f"{'s' * (count != 1)} or longer, so that the learning rate never reaches optimizer.lr={settings.lr:g}"
        )


@cache
def _warn(message: str) -> None:
    log.warning("%s", message)


class Classifier(LightningModule):
    """A multilayer perceptron; the subclasses are its implementations.

    Parameters are named as in `NetworkSpec.shapes` in every implementation, so that a checkpoint of one loads into
    another.

    Attributes:
        network: the layers as data.
        loss: the one that is minimised.
        metrics: of the latest epoch, by column, double precision: train/loss, train/acc, val/loss, ...
        class_weights: the weight of each class in training, (C,); None where all are 1.
        target_scale: by which the targets of a regression were divided, (C,); None in a classification.
    """

    class_weights: Tensor | None
    target_scale: Tensor | None

    def __init__(
        self,
        config: Config | Mapping[str, Any],
        num_features: int,
        num_classes: int,
        data: Description | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        # `load_from_checkpoint` gives the plain builtins that are saved as hyperparameters
        cfg = checks.from_plain(config) if isinstance(config, Mapping) else config
        if isinstance(data, Mapping):
            data = Description.from_plain(data)
        # plain builtins only: anything else would make the checkpoint unloadable with weights_only=True
        self.save_hyperparameters(hyperparameters(cfg, num_features, num_classes, data))
        self.cfg = cfg
        class_weights = data.class_weights if data is not None else None
        if cfg.data.class_weight is not None and class_weights is None:
            raise ValueError("data.class_weight: the weights of the classes belong into the description of the data")
        # a buffer, to follow the parameters to a device; not persistent, because it is in the hyperparameters
        weights = torch.tensor(class_weights) if class_weights is not None else None
        self.register_buffer("class_weights", weights, persistent=False)
        scale = torch.tensor(data.target_scale, dtype=torch.float64) if data is not None and data.target_scale else None
        self.register_buffer("target_scale", scale, persistent=False)
        self.network = cfg.model.network(num_features, num_classes)
        self.loss = cfg.loss_function
        self.metrics: dict[str, float] = {}
        self.plateau = Plateau(cfg.optimizer, cfg.monitor)
        self._outcomes: dict[str, list[Outcomes]] = {"train": [], "val": [], "test": []}
        initial = initialise(self.network, cfg.model, cfg.seed)
        for k, (layer, names) in enumerate(zip(self.network.layers, self.network.names, strict=True)):
            self._add_layer(k, layer, {name: initial[full] for name, full in names.items() if full in initial})
        self._average: RunAverage | None = None  # while it trains
        self._saved_average: Mapping[str, Tensor] | None = None
        self.pruning: RunPruning | None = None
        if cfg.prune.fraction is not None:
            self.pruning = RunPruning(cfg, self.network, self.state_dict, self._forget_state)

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **options: Any) -> "Classifier":
        """Lightning's method, reading the file as data: nothing in it is executed.

        Args:
            options: as of Lightning's method; `cfg` replaces the configuration in the file.

        Raises:
            ConfigError: the configuration in the file is impossible.
        """
        if "cfg" in options:
            options["config"] = options.pop("cfg")
        module: Classifier = super().load_from_checkpoint(checkpoint_path, *args, **options | {"weights_only": True})
        return module

    def _add_layer(self, k: int, layer: LayerSpec, initial: Mapping[str, Tensor]) -> None:
        """Make the k-th layer in the implementation's own way, with its tensors' initial values by short name."""
        raise NotImplementedError

    def _register_layer(self, layer: LayerSpec, module: nn.Module) -> None:
        """Keep a layer's module under the name that its parameters have in `NetworkSpec.shapes`."""
        if not hasattr(self, layer.group):
            self.add_module(layer.group, nn.ModuleList())
        self.get_submodule(layer.group).append(module)  # type: ignore[operator]

    def parameter_values(self) -> dict[str, Tensor]:
        """The parameters and running statistics by name, without a graph."""
        return {name: tensor.detach() for name, tensor in self.tensors().items()}

    def tensors(self) -> dict[str, Tensor]:
        """The parameters and running statistics by name."""
        by_name: dict[str, Tensor] = dict(self.named_parameters())
        if len(self.network.tensors) > len(by_name):
            by_name |= dict(self.named_buffers())
        return {name: by_name[name] for name in self.network.tensors}

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, C) of `inputs` (B, I)."""
        raise NotImplementedError

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of each sample without label smoothing, (B,)."""
        return self.loss.without_smoothing.samples(logits, labels)

    def on_fit_start(self) -> None:
        warn_without_effect(self.cfg.model, self.network)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        self._evaluate("test", batch)

    def _forget_state(self) -> None:
        """Make the optimizer's state that of a new one."""
        raise NotImplementedError

    def on_train_start(self) -> None:
        warn_long_warmup(self.cfg, int(self.trainer.num_training_batches))
        if self.pruning is not None:
            self.pruning.begin()
        if self.cfg.ema.decay is not None or self.cfg.swa.start is not None:
            parameters = {name: self.get_parameter(name) for name in self.network.shapes}
            self._average = RunAverage(self.cfg, parameters, self._saved_average)
            self._counted_steps = self.trainer.global_step

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_index: int) -> None:
        if self.pruning is not None:
            self.pruning.mask_parameters()
        if self._average is None:
            return
        if self.trainer.global_step > self._counted_steps:  # not while gradients accumulate
            self._counted_steps = self.trainer.global_step
            self._average.after_step(self._counted_steps)
        if batch_index + 1 == self.trainer.num_training_batches:
            self._average.after_epoch(self.current_epoch)

    def use_average(self, epoch: int) -> None:
        """Replace the weights by their averages, if there are any, after the last epoch `epoch` of the training."""
        if self._average is not None:
            self._average.replace_weights(epoch)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._average is not None:
            self._average.save(checkpoint, self.current_epoch)
        if self.pruning is not None:
            self.pruning.save(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._saved_average = checkpoint.get(AVERAGED_WEIGHTS)
        if self.pruning is not None:
            self.pruning.load(checkpoint)

    def on_train_epoch_start(self) -> None:
        self._outcomes["train"].clear()
        if self.pruning is not None:
            self.pruning.begin_epoch(self.current_epoch)

    def on_validation_epoch_start(self) -> None:
        self._outcomes["val"].clear()
        if self._average is not None:
            self._average.replace_weights(self.current_epoch)

    def on_test_epoch_start(self) -> None:
        self._outcomes["test"].clear()

    def on_train_epoch_end(self) -> None:
        self._summarise("train")
        if self.cfg.monitor in self.metrics:
            self.plateau.update(self.metrics[self.cfg.monitor])

    def on_validation_epoch_end(self) -> None:
        self._summarise("val")
        if self._average is not None:
            self._average.restore_weights()

    def on_test_epoch_end(self) -> None:
        self._summarise("test")

    def begin(self, history: Sequence[Mapping[str, float]]) -> None:
        """Go on after epochs with these metrics."""
        self.plateau = Plateau(self.cfg.optimizer, self.cfg.monitor, [row[self.cfg.monitor] for row in history])

    def rate_factor(self, step: int = 0, steps: int = 1) -> float:
        """The factor of the learning rates in a step of the present epoch."""
        cfg = self.cfg
        epochs, reduced = cfg.trainer.max_epochs, self.plateau.factor
        epoch = self.current_epoch
        return rate_factor(cfg.optimizer, epoch, epochs, cfg.swa, step=step, steps=steps, reduced=reduced)

    def sample_weights(self, labels: Tensor, batch_weights: Sequence[Tensor] = ()) -> Tensor | None:
        """The weight of each sample in training, (B,); None where all are 1.

        Args:
            batch_weights: the further items of a batch: none, or the weights of its samples.
        """
        weights = None if self.class_weights is None else self.class_weights[labels]
        for factor in batch_weights:
            weights = factor if weights is None else weights * factor
        return weights

    def record_batch(
        self, part: str, logits: Tensor, labels: Tensor, losses: Tensor, weights: Tensor | None = None
    ) -> None:
        """Record a batch's losses and predictions for the epoch's end, without waiting for the device.

        Args:
            weights: of the samples, by which `losses` are multiplied already.
        """
        logits = logits.detach()
        classifies = not labels.is_floating_point()
        outcomes = Outcomes(
            losses=losses.detach(),
            predictions=logits.argmax(-1) if classifies else None,
            labels=labels,
            num_classes=logits.shape[-1],
            weights=weights,
            outputs=logits if self.cfg.keeps_outputs or not classifies else None,
        )
        self._outcomes[part].append(outcomes)

    def outcomes(self, part: str) -> Outcomes:
        """Losses and predictions of the latest pass over a part, in its order."""
        return joined(self._outcomes[part])

    def _evaluate(self, part: str, batch: tuple[Tensor, Tensor]) -> None:
        inputs, labels = batch
        logits = self(inputs)
        self.record_batch(part, logits, labels, self.losses(logits, labels))

    def _summarise(self, part: str) -> None:
        outcomes = self.outcomes(part)
        if self.target_scale is not None:
            outcomes = outcomes.in_target_units(self.target_scale, self.loss.entry.power)
        measured = measure(part, outcomes, total, self.cfg.metric_names)
        values = {column: value.item() for column, value in measured.items()}
        self.metrics |= values
        # to Lightning too, for callbacks and loggers that a person adds
        self.log_dict(values, batch_size=outcomes.losses.shape[-1], sync_dist=share().ranks > 1)
