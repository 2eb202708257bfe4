"""The implementations of one network, as LightningModules, by name."""

from mlpexp.config.schema import Config
from mlpexp.data.data_description import Description
from mlpexp.models.classifier import Classifier


def build(cfg: Config, num_features: int, num_classes: int, data: Description | None = None) -> Classifier:
    """The implementation `cfg.model.variant` with its initial weights; `data` is written into its checkpoints."""
    from mlpexp.models.handmade_mlp import AutogradMLP, BackpropMLP
    from mlpexp.models.torch_mlp import TorchMLP

    variants = {"torch_nn": TorchMLP, "autograd": AutogradMLP, "backprop": BackpropMLP}
    return variants[cfg.model.variant](cfg, num_features, num_classes, data)
