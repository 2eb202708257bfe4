"""A trained network with its preprocessing as one module, and the description that goes with it.

Letters: B batch, J number columns, K category columns, I inputs, C classes.
"""

import json
from typing import Any

import torch
from torch import Tensor, nn

from mlpexp.evaluation.trained_run import TrainedModel
from mlpexp.runtime import software_versions
from mlpexp.store.identity import SCHEMA_VERSION


class ExportModule(nn.Module):
    """Preprocessing, network and what makes answers of its outputs as one module, which ONNX and .pt2 files hold.

    Numbers are NaN where a value is missing. A category is given by its index in the list of values of its column,
    from 0; any other index, such as -1, stands for a value that did not occur in training.
    """

    shift: Tensor
    scale: Tensor
    fill: Tensor | None
    target_shift: Tensor | None
    target_scale: Tensor | None

    def __init__(self, run: TrainedModel) -> None:
        super().__init__()
        features = run.data.features
        # double precision: float32 would lose the digits of values whose offset is large against their spread
        self.register_buffer("shift", torch.tensor(features.shift, dtype=torch.float64))  # (J,)
        self.register_buffer("scale", torch.tensor(features.scale, dtype=torch.float64))
        self.register_buffer("fill", torch.tensor(features.fill, dtype=torch.float64) if features.fill else None)
        self.num_values = [len(values) for values in features.values]
        targets = run.data.target_names
        for name, numbers in (("target_shift", run.data.target_shift), ("target_scale", run.data.target_scale)):
            self.register_buffer(name, torch.tensor(numbers, dtype=torch.float64) if targets else None)
        self.network = run.module
        self.dtype = next(run.module.parameters()).dtype

    def forward(self, numbers: Tensor, categories: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits and probabilities, each (B, C) float32, of numbers (B, J) and categories (B, K) int64.

        In a regression outputs in standard deviations, and values in the units of the targets as float64.
        """
        x = numbers.double()
        if self.fill is not None:
            x = torch.where(torch.isnan(x), self.fill, x)
        columns = [(x - self.shift) / self.scale]
        if categories is not None:
            for k, count in enumerate(self.num_values):
                columns.append((categories[:, k : k + 1] == torch.arange(count)).double())  # (B, values)
        logits = self.network(torch.cat(columns, dim=1).float().to(self.dtype)).float()
        if self.target_scale is not None and self.target_shift is not None:
            return logits, logits.double() * self.target_scale + self.target_shift
        return logits, torch.softmax(logits, dim=-1)


def output_names(run: TrainedModel) -> tuple[str, str]:
    """The names of the two outputs."""
    return ("outputs", "values") if run.data.target_names else ("logits", "probabilities")


def number_type(run: TrainedModel) -> torch.dtype:
    """The type of the input `numbers`: float32 for pixels, float64 for tables, whose values may need the digits."""
    return torch.float32 if run.data.image_shape else torch.float64


def metadata(run: TrainedModel) -> dict[str, str]:
    """The description that each format carries, as JSON texts; all lists and mappings in the order of the inputs."""
    description = run.data
    features = description.features
    inputs: dict[str, Any] = {
        "numbers": {"type": str(number_type(run)).removeprefix("torch."), "columns": features.names}
    }
    if features.category_names:
        inputs["categories"] = {"type": "int64", "columns": features.category_names}
    content: dict[str, Any] = {
        "class_names": description.class_names,
        **({"target_names": description.target_names} if description.target_names else {}),
        "inputs": inputs,
        "number_columns": features.names,
        "category_columns": dict(zip(features.category_names, features.values, strict=True)),
        "data": {
            "name": description.name,
            "sha256": description.digest,
            "image_shape": list(description.image_shape) if description.image_shape else None,
        },
        "features": features.to_plain(),
        **run.origin(),
        "versions": software_versions.versions(),
        "schema_version": SCHEMA_VERSION,
    }
    return {key: json.dumps(value, ensure_ascii=False) for key, value in content.items()}
