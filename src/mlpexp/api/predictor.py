"""Predictions of trained networks for raw samples.

Letters: R runs, N samples, J number columns, K category columns, I inputs, C classes, T values of a regression.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlpexp.data import data_frames
from mlpexp.data.array_files import checked_inputs, plain_array
from mlpexp.data.data_config import DataConfig
from mlpexp.runtime.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from mlpexp.data.data_description import Description


class Predictor(ABC):
    """A run, an ensemble, or the R runs of a sweep, whose arrays begin with R.

    Attributes:
        directory: of the run or of the sweep.
    """

    directory: Path

    @property
    @abstractmethod
    def class_names(self) -> list[str]:
        """The classes in the order of the probabilities, C; empty in a regression."""

    @abstractmethod
    def _outputs(self, samples: Any) -> NDArray[np.float64]:
        """Probabilities (N, C) or (R, N, C) of raw samples; in a regression values (N, T) or (R, N, T)."""

    def predict_proba(self, samples: Any) -> NDArray[np.float64]:
        """Probabilities (N, C) of raw samples, a DataFrame or an array (N, J); classes as `class_names` lists them.

        Of a sweep (R, N, C), of all runs at once in the order of `table`; NaN for runs without finite numbers.

        Raises:
            UserError: the samples do not fit, the network predicts values, or runs have other classes than each other.
        """
        if not self.class_names:
            raise UserError(f"{self.directory} predicts values, which have no probabilities; use predict")
        return self._outputs(samples)

    def predict(self, samples: Any) -> NDArray[Any]:
        """The name of the class of each raw sample, (N,); in a regression its value, (N,), or values, (N, T).

        Of a sweep (R, N) or (R, N, T); the name is "" and a value NaN for runs without finite numbers.
        """
        outputs = self._outputs(samples)
        if self.class_names:
            classes = np.where(np.isnan(outputs).any(-1), -1, np.nan_to_num(outputs).argmax(-1))
            return np.array([*self.class_names, ""])[classes]
        return outputs[..., 0] if outputs.shape[-1] == 1 else outputs


def prepared_inputs(samples: Any, data: "Description") -> "Tensor":
    """(N, I) float32, of samples in the units of the training data: a DataFrame, or an array (N, J).

    Raises:
        UserError: a column is missing, or a value is no number.
    """
    import torch

    from mlpexp.evaluation import sample_files

    features = data.features
    if data_frames.is_frame(samples):
        text, _ = data_frames.to_csv(samples)
        samples_read = sample_files.parse(Path("X"), text.encode(), data, DataConfig(), labelled=False)
        return torch.from_numpy(features.transform(samples_read.numbers, samples_read.categories))
    if features.category_names:
        raise UserError(f"X needs the columns {', '.join(features.category_names)} of texts; give a DataFrame")
    values = checked_inputs(plain_array(samples, "X"), "X")
    if values.shape[1] != len(features.names):
        raise UserError(f"X has {values.shape[1]} columns, the network was trained on {len(features.names)}")
    return torch.from_numpy(features.transform(values))
