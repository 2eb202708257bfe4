"""A trained network with everything around it as one plain `nn.Module`: raw samples in, probabilities out.

Letters: B batch, J number columns, K category columns, I inputs, C classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlpexp.evaluation.trained_run import Trained
from mlpexp.nn.activations import ACTIVATIONS


class Whole(nn.Module):
    """What is exported: fills, shifts and scales numbers, one-hot encodes categories, then the layers and softmax.

    Numbers are float32, and NaN where a value is missing. A category is given by its place among the values that
    the metadata lists for its column, from 0; any other number, such as -1, is a value that training did not know.
    """

    shift: Tensor
    scale: Tensor
    fill: Tensor | None

    def __init__(self, run: Trained) -> None:
        super().__init__()
        features = run.data.features
        self.activation = ACTIVATIONS[run.cfg.model.activation].function
        # double precision, as when it was fitted: large numbers of small spread would lose their digits
        self.register_buffer("shift", torch.tensor(features.shift, dtype=torch.float64))  # (J,)
        self.register_buffer("scale", torch.tensor(features.scale, dtype=torch.float64))
        self.register_buffer("fill", torch.tensor(features.fill, dtype=torch.float64) if features.fill else None)
        self.num_values = [len(values) for values in features.values]
        for i, (weight, bias) in enumerate(run.module.parameter_layers()):
            self.register_buffer(f"weight_{i}", weight.clone())  # (O, I)
            self.register_buffer(f"bias_{i}", bias.clone())  # (O,)
        self.num_layers = len(run.module.layers)
        self.dtype = run.module.parameter_layers()[0].weight.dtype

    def forward(self, numbers: Tensor, categories: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits and probabilities, each (B, C) float32, of numbers (B, J) and categories (B, K) int64."""
        x = numbers.double()
        if self.fill is not None:
            x = torch.where(torch.isnan(x), self.fill, x)
        parts = [(x - self.shift) / self.scale]
        if categories is not None:
            for k, count in enumerate(self.num_values):
                parts.append((categories[:, k : k + 1] == torch.arange(count)).double())  # (B, values)
        h = torch.cat(parts, dim=1).float().to(self.dtype)  # (B, I)
        for i in range(self.num_layers):
            h = F.linear(h, getattr(self, f"weight_{i}"), getattr(self, f"bias_{i}"))
            if i < self.num_layers - 1:
                h = self.activation(h)
        return h.float(), torch.softmax(h.float(), dim=-1)
