"""Rebuilds a network from a checkpoint; every value is checked before anything is built."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlpexp import models
from mlpexp.config.schema import Config
from mlpexp.data.data_description import Description
from mlpexp.models.classifier import Classifier
from mlpexp.nn.network import NetworkSpec
from mlpexp.store import checkpoint_files

DOUBLE = (64, "64", "64-true", "double")  # values of trainer.precision


@dataclass(frozen=True, kw_only=True)
class Network:
    """Attributes:
    weights: by full name, running statistics too, in the precision in which they were trained.
    data: what it was trained on, and how raw samples become its inputs.
    """

    cfg: Config
    network: NetworkSpec
    weights: dict[str, Tensor]
    data: Description

    def module(self) -> Classifier:
        """The network in evaluation mode."""
        module = models.build(self.cfg, self.data.features.num_inputs, self.data.num_outputs, self.data)
        if next(iter(self.weights.values())).dtype == torch.float64:
            module = module.double()  # not to float32, in which the scale of targets would be rounded
        module.load_state_dict(self.weights)
        module.eval().requires_grad_(False)
        return module


def network(path: Path, content: Mapping[str, Any]) -> Network:
    """The network that a checkpoint's content (see `checkpoint_files.load`) describes; `path` is named in messages.

    Raises:
        UserError: it is damaged, hostile, or of another version.
    """
    cfg, num_features, num_classes = checkpoint_files.described(path, content)
    data = checkpoint_files.described_data(path, content)
    network = cfg.model.network(num_features, num_classes)
    state = checkpoint_files.check_weights(path, content["state_dict"], network)
    dtype = torch.float64 if cfg.trainer.flags.get("precision") in DOUBLE else torch.float32
    weights = {name: value.to(dtype) for name, value in state.items()}
    return Network(cfg=cfg, network=network, weights=weights, data=data)
