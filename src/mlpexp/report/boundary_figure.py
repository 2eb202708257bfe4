"""What the best run says everywhere in the plane, where a sample is two numbers."""

import numpy as np

from mlpexp.analysis.sweep_analysis import Analysis
from mlpexp.config.schema import GENERATED
from mlpexp.nn.metrics import column_label, higher_is_better
from mlpexp.report.figure_entry import Picture
from mlpexp.runtime.errors import UserError
from mlpexp.store import file_names, run_files

MOST = 400  # samples in the picture


def boundary(analysis: Analysis) -> Picture | None:
    """Of the best configuration's best run; None where the data has no two numbers, or the run no checkpoint."""
    study, by = analysis.study, analysis.ranking.by
    members = study.members[analysis.best] if analysis.best is not None else np.empty(0, np.intp)
    members = members[study.ok[members] & np.isfinite(study.values[by][members])]
    if not len(members):
        return None
    values = study.values[by][members]
    name = study.names[members[values.argmax() if higher_is_better(by) else values.argmin()]]
    directory = run_files.place(study.directory, name)
    settings = run_files.configuration(study.directory, name)
    group = settings.get("data")
    kind = group.get("name") if isinstance(group, dict) else None
    # a ready-made table has more columns; only for a file of one's own its checkpoint has to tell
    if directory is None or kind not in (*GENERATED, "csv"):
        return None
    checkpoint = directory / (file_names.LAST if settings.get("test_weights") == "last" else file_names.BEST)
    if not checkpoint.is_file():
        return None
    from mlpexp.training import decision_boundary  # torch: late, other sweeps do without it

    try:
        figure = decision_boundary.draw_run(checkpoint, MOST)
    except UserError:  # damaged: the page can do without
        return None
    if figure is None:
        return None
    caption = (
        f"The run of the best configuration with the best {column_label(by)}: {name}. At most {MOST} samples are drawn."
    )
    return Picture(name="boundary", title="What the best run says in the plane", caption=caption, figure=figure)
