"""The test of the runs of a stack: the tested weights, and the records beside the metrics.

Letters: R runs.
"""

import math
from collections.abc import Sequence

from torch import Tensor

from mlpexp.config.schema import Config
from mlpexp.data.prepared_data import Prepared
from mlpexp.models.training_state import RunRecord, Snapshot
from mlpexp.nn.outcomes import Outcomes, confusion
from mlpexp.store import test_hits


def tested_weights(
    configs: Sequence[Config], records: Sequence[RunRecord], best: Snapshot, last: Snapshot
) -> dict[str, Tensor]:
    """The weights that each run is tested with, by name, (R, ...): of its best or of its last epoch."""
    best_epochs = [record.progress.best_epoch for record in records]
    best = best.averaged([e is not None and cfg.uses_average(e) for cfg, e in zip(configs, best_epochs, strict=True)])
    last = last.averaged(
        [cfg.uses_average(len(record.history) - 1) for cfg, record in zip(configs, records, strict=True)]
    )
    use_best = [
        cfg.test_weights == "best" and epoch is not None for cfg, epoch in zip(configs, best_epochs, strict=True)
    ]
    return Snapshot.chosen(best, last, use_best).parameters


def record_hits(
    configs: Sequence[Config], records: Sequence[RunRecord], tested: Outcomes, data: Sequence[Prepared]
) -> None:
    """Record which test samples were classified right, for the runs that record it."""
    if not any(cfg.tracking.test_hits for cfg in configs):
        return
    hits = (tested.classes() == tested.labels).cpu().numpy()
    for run, (cfg, prepared) in enumerate(zip(configs, data, strict=True)):
        if cfg.tracking.test_hits:
            records[run].test_hits = test_hits.encode(hits[run], prepared.split.test, len(prepared.labels))


def record_confusion(records: Sequence[RunRecord], tested: Outcomes) -> None:
    """Record the confusion matrices of the runs whose test metrics are finite; regressions have none."""
    if tested.predictions is None:
        return
    for record, matrix in zip(records, confusion(tested).tolist(), strict=True):
        if all(math.isfinite(value) for value in record.tested.values()):
            record.confusion = matrix
