"""A network out of a checkpoint: every value is checked before anything is built."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlpexp import models
from mlpexp.config.schema import Config
from mlpexp.data.data_description import Description
from mlpexp.models.classifier import Classifier
from mlpexp.store import checkpoint_files


@dataclass(frozen=True, kw_only=True)
class Network:
    """Attributes:
    module: in evaluation, with the checkpoint's weights.
    data: what it was trained on, and how raw samples become its inputs.
    """

    cfg: Config
    module: Classifier
    data: Description


def network(path: Path, content: Mapping[str, Any]) -> Network:
    """The network that a checkpoint's content (see `checkpoints.load`) describes; `path` is named in messages.

    Raises:
        UserError: it is damaged, hostile, or of another version.
    """
    cfg, num_features, num_classes = checkpoint_files.described(path, content)
    data = checkpoint_files.described_data(path, content)
    network = cfg.model.network(num_features, num_classes)
    state = checkpoint_files.check_weights(path, content["state_dict"], network)
    module = models.build(cfg, num_features, num_classes, data)
    if cfg.trainer.flags.get("precision") in (64, "64", "64-true", "double"):
        module = module.double()
    module.load_state_dict(state)
    module.eval().requires_grad_(False)
    return Network(cfg=cfg, module=module, data=data)
