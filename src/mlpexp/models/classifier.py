"""What all variants share: the parameter layout, and loss and accuracy measured once per epoch."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from mlpexp.config.schema import Config, plain
from mlpexp.data.data_description import Description
from mlpexp.nn.activations import ACTIVATIONS
from mlpexp.nn.functional import Layer, sample_losses
from mlpexp.nn.initialisation import initialise
from mlpexp.nn.parametrization import initial_factors
from mlpexp.runtime.distributed import share, total


def hyperparameters(cfg: Config, num_features: int, num_classes: int, data: Description | None) -> dict[str, Any]:
    """What a checkpoint says of its network; the data is left out where it is not known."""
    found: dict[str, Any] = {"config": plain(cfg), "num_features": num_features, "num_classes": num_classes}
    return found | ({"data": data.to_plain()} if data is not None else {})


class Classifier(LightningModule):
    """A multilayer perceptron; the variants say how it computes and how it learns.

    Parameters are named `layers.{i}.weight` (outputs, inputs) and `layers.{i}.bias` (outputs,) in every
    variant, so that checkpoints interchange.

    Attributes:
        metrics: of the latest epoch, by name, double precision: train/loss, train/acc, val/loss, …
        class_weights: what each class counts in training, (C,); None where all count alike.
    """

    class_weights: Tensor | None

    def __init__(
        self, cfg: Config, num_features: int, num_classes: int, data: Description | Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        if isinstance(data, Mapping):  # as Lightning's own load_from_checkpoint hands it back
            data = Description.from_plain(data)
        # plain builtins only: anything else would make the checkpoint unloadable with weights_only=True
        self.save_hyperparameters(hyperparameters(cfg, num_features, num_classes, data))
        self.cfg = cfg
        given = data.class_weights if data is not None else None
        if cfg.data.class_weight is not None and given is None:
            raise ValueError("data.class_weight: the weights of the classes belong into the description of the data")
        # a buffer, to follow the parameters to a device; not persistent, because it is in the hyperparameters
        weights = torch.tensor(given) if given is not None else None
        self.register_buffer("class_weights", weights, persistent=False)
        self.sizes = [num_features, *cfg.model.hidden_sizes, num_classes]
        self.activation = ACTIVATIONS[cfg.model.activation]
        self.metrics: dict[str, float] = {}
        self._seen: dict[str, list[tuple[Tensor, Tensor, Tensor | None]]] = {"train": [], "val": [], "test": []}
        self.layers = self._make_layers(
            initialise(
                self.sizes,
                cfg.model.init,
                cfg.seed,
                sigma_w=cfg.model.sigma_w,
                sigma_b=cfg.model.sigma_b,
                factors=initial_factors(cfg.model, self.sizes),
            )
        )

    def _make_layers(self, initial: list[Layer]) -> nn.ModuleList:
        """The variant's own kind of layer, holding the initial values."""
        raise NotImplementedError

    def parameter_layers(self) -> list[Layer]:
        """The parameters as tensors without a graph, (O, I) and (O,) for each layer."""
        return [
            Layer(layer.get_parameter("weight").detach(), layer.get_parameter("bias").detach()) for layer in self.layers
        ]

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (B, C) of `inputs` (B, I)."""
        raise NotImplementedError

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of each sample in nats, (B,)."""
        return sample_losses(logits, labels)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        self._evaluate("test", batch)

    def on_train_epoch_start(self) -> None:
        self._seen["train"].clear()

    def on_validation_epoch_start(self) -> None:
        self._seen["val"].clear()

    def on_test_epoch_start(self) -> None:
        self._seen["test"].clear()

    def on_train_epoch_end(self) -> None:
        self._summarise("train")

    def on_validation_epoch_end(self) -> None:
        self._summarise("val")

    def on_test_epoch_end(self) -> None:
        self._summarise("test")

    def sample_weights(self, labels: Tensor) -> Tensor | None:
        """What each sample counts in training, (B,); None where all count alike."""
        return None if self.class_weights is None else self.class_weights[labels]

    def note(self, part: str, logits: Tensor, labels: Tensor, losses: Tensor, weights: Tensor | None = None) -> None:
        """Keep a batch's losses and hits for the epoch's end; nothing waits for the device here.

        Args:
            weights: of the samples, by which `losses` are multiplied already.
        """
        self._seen[part].append((losses.detach(), logits.detach().argmax(-1) == labels, weights))

    def _evaluate(self, part: str, batch: tuple[Tensor, Tensor]) -> None:
        inputs, labels = batch
        logits = self(inputs)
        self.note(part, logits, labels, self.losses(logits, labels))

    def _summarise(self, part: str) -> None:
        losses = torch.cat([losses for losses, _, _ in self._seen[part]])
        hits = torch.cat([hits for _, hits, _ in self._seen[part]])
        weights = [weights for _, _, weights in self._seen[part] if weights is not None]
        count = torch.tensor(len(hits), dtype=torch.float64, device=hits.device)
        weight = torch.cat(weights).sum(dtype=torch.float64) if weights else count
        counted = total(torch.stack([losses.sum(dtype=torch.float64), hits.sum().double(), count, weight]))
        loss, correct, seen, weighed = counted.tolist()
        found = {f"{part}/loss": loss / weighed, f"{part}/acc": correct / seen}
        self.metrics |= found
        # to Lightning too, for callbacks and loggers that a person adds
        self.log_dict(found, batch_size=int(seen), sync_dist=share().ranks > 1)
