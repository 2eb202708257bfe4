"""Raw samples that a program gives for prediction, as a network's inputs.

Letters: N samples, J number columns, K category columns, I inputs.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlpexp.data import data_frames
from mlpexp.data.array_files import checked_inputs
from mlpexp.data.data_config import DataConfig
from mlpexp.data.data_description import Description
from mlpexp.evaluation import sample_files
from mlpexp.runtime.errors import UserError


def prepared(samples: Any, data: Description) -> Tensor:
    """(N, I) float32, of samples in the units of the training data: a DataFrame, or an array (N, J).

    Raises:
        UserError: a column is missing, or a value is none that the network knows.
    """
    features = data.features
    if data_frames.is_frame(samples):
        text, _ = data_frames.to_csv(samples)
        found = sample_files.parse(Path("X"), text.encode(), data, DataConfig(), labelled=False)
        return torch.from_numpy(features.transform(found.numbers, found.categories))
    if features.category_names:
        raise UserError(f"X needs the columns {', '.join(features.category_names)} of texts; give a DataFrame")
    values = checked_inputs(np.asarray(samples), "X")
    if values.shape[1] != len(features.names):
        raise UserError(f"X has {values.shape[1]} columns, the network was trained on {len(features.names)}")
    return torch.from_numpy(features.transform(values))
