"""An ensemble of the runs of a sweep.

Letters: B batch, I inputs, C classes.
"""

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlpexp.api.predictor import Predictor, prepared_inputs
from mlpexp.api.tables import Records
from mlpexp.runtime.errors import writing

if TYPE_CHECKING:
    from torch import nn

    from mlpexp.evaluation.ensemble import Ensemble
    from mlpexp.evaluation.export_formats import Format


class EnsembleResults(Predictor):
    """The mean of the probabilities of several networks, in a regression of their values."""

    def __init__(self, ensemble: "Ensemble") -> None:
        self._ensemble, self.directory = ensemble, ensemble.sweep

    @property
    def members(self) -> Records:
        """A record for each member: `name`, `picks` (1 but for greedy selection), and the validation metric."""
        ensemble = self._ensemble
        return Records({"name": m.name, "picks": m.picks, ensemble.metric: m.validation} for m in ensemble.members)

    @property
    def class_names(self) -> list[str]:
        return list(self._ensemble.data.class_names)

    def scores(self, part: Literal["train", "val", "test", "all"] | None = None, data: Path | None = None) -> Records:
        """The ensemble's and each member's scores on the same samples, with 95 % intervals `NAME_low`, `NAME_high`.

        Args:
            part: of the sweep's data, by default the test part.
            data: a file of other samples instead.

        Raises:
            UserError: the data has changed, or does not fit.
        """
        from mlpexp.evaluation import evaluate_ensemble

        return Records(evaluate_ensemble.evaluate(self._ensemble, part, None if data is None else Path(data)).rows())

    def model(self) -> "nn.Module":
        """As a module of torch: prepared inputs (B, I) to the logarithms of the mean probabilities (B, C)."""
        return self._ensemble.module

    @writing()
    def export(self, path: Path | str, kind: "Format" = "onnx") -> Path:
        """Write a file with preprocessing and all networks, compared with the ensemble before; see docs/evaluate.md.

        Raises:
            UserError: there is a file already, or a package is missing.
        """
        from mlpexp.evaluation import export

        return export.export_ensemble(self._ensemble, kind, Path(path)).path

    def _outputs(self, samples: Any) -> NDArray[np.float64]:
        return self._ensemble.outputs(prepared_inputs(samples, self._ensemble.data))

    def __repr__(self) -> str:
        return f"<{self._ensemble.weights_description}, of {self._ensemble.sweep}>"

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self)[1:-1])}</p>{self.members._repr_html_()}"
