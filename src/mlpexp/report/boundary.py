"""What the best run says everywhere in the plane, where a sample is two numbers."""

import numpy as np

from mlpexp import runs
from mlpexp.config import GENERATED
from mlpexp.errors import UserError
from mlpexp.report import rundirs
from mlpexp.report.analysis import Analysis
from mlpexp.report.picture import Picture
from mlpexp.report.sentences import NAMES

MOST = 400  # samples in the picture


def boundary(analysis: Analysis) -> Picture | None:
    """Of the best configuration's best run; None where the data has no two numbers, or the run no checkpoint."""
    study, by = analysis.study, analysis.ranking.by
    members = study.members[analysis.best] if analysis.best is not None else np.empty(0, np.intp)
    members = members[study.ok[members] & np.isfinite(study.values[by][members])]
    if not len(members):
        return None
    values = study.values[by][members]
    name = study.names[members[values.argmin() if by == "val/loss" else values.argmax()]]
    directory = rundirs.place(study.directory, name)
    settings = rundirs.configuration(study.directory, name)
    group = settings.get("data")
    kind = group.get("name") if isinstance(group, dict) else None
    # a ready-made table has more columns; only for a file of one's own its checkpoint has to tell
    if directory is None or kind not in (*GENERATED, "csv"):
        return None
    checkpoint = directory / (runs.LAST if settings.get("test_weights") == "last" else runs.BEST)
    if not checkpoint.is_file():
        return None
    from mlpexp import plane  # torch: late, other sweeps do without it

    try:
        figure = plane.draw_run(checkpoint, MOST)
    except UserError:  # damaged: the page can do without
        return None
    if figure is None:
        return None
    caption = f"The run of the best configuration with the best {NAMES[by]}: {name}. At most {MOST} samples are drawn."
    return Picture(name="boundary", title="What the best run says in the plane", caption=caption, figure=figure)
