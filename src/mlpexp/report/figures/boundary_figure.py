"""The decision boundary of the best run, where a sample is two numbers."""

from mlpexp.analysis import run_files
from mlpexp.analysis.ranking import best_run
from mlpexp.analysis.sweep_analysis import Analysis
from mlpexp.data.data_sets import DATA_SETS
from mlpexp.nn.metric_columns import label
from mlpexp.report.report_figure import FIGURES, Entry, ReportFigure
from mlpexp.runtime.errors import UserError
from mlpexp.store import file_names

MOST = 400  # samples in the figure


def boundary(analysis: Analysis) -> ReportFigure | None:
    """From a checkpoint; None where samples are not two numbers, or the run has no checkpoint that can be read."""
    study = analysis.study
    run = best_run(study, analysis.ranking)
    if run is None:
        return None
    name = study.names[run]
    directory = run_files.run_path(study.directory, name)
    settings = run_files.configuration(study.directory, name)
    group = settings.get("data")
    kind = group.get("name") if isinstance(group, dict) else None
    # scikit-learn's tables have more columns; a user's file is known by its checkpoint only
    if directory is None or kind not in DATA_SETS or DATA_SETS[str(kind)].features not in (2, None):
        return None
    checkpoint = directory / (file_names.LAST if settings.get("test_weights") == "last" else file_names.BEST)
    if not checkpoint.is_file():
        return None
    from mlpexp.training import decision_boundary  # torch: late, other sweeps do without it

    try:
        figure = decision_boundary.draw_run(checkpoint, MOST)
    except UserError:  # damaged: the report can do without this figure
        return None
    if figure is None:
        return None
    caption = f"{name}, the run of the best configuration with the best {label(analysis.ranking.by)}. "
    caption += f"At most {MOST} samples are drawn."
    return ReportFigure(title="Decision boundary of the best run", caption=caption, figure=figure)


FIGURES.register("boundary", Entry(80, boundary))
