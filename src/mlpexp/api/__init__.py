"""mlpexp from Python: `run`, `sweep`, `load_run`, `load_sweep`.

The same schema, files and messages as the command line: a sweep that one has started, the other continues.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from mlpexp.api.python_settings import Grid, Settings, choice_overrides, grid_overrides, setting_overrides
from mlpexp.runtime import signals

if TYPE_CHECKING:
    from mlpexp.api.run_results import RunResults
    from mlpexp.api.sweep_plan import Plan
    from mlpexp.api.sweep_results import SweepResults
    from mlpexp.sweep.jobs import DryRun

__all__ = ["load_run", "load_sweep", "run", "sweep"]


@overload
def run(
    *settings: Settings, data: Any = ..., target: str | Sequence[str] | None = ..., dry_run: Literal[True], **more: Any
) -> "Plan": ...
@overload
def run(
    *settings: Settings,
    data: Any = ...,
    target: str | Sequence[str] | None = ...,
    dry_run: Literal[False] = ...,
    **more: Any,
) -> "RunResults": ...
def run(
    *settings: Settings,
    data: Any = None,
    target: str | Sequence[str] | None = None,
    dry_run: bool = False,
    **more: Any,
) -> "RunResults | Plan":
    """Train one network, as `train.py` does, in `outputs/DATE/TIME` below the working directory.

    Args:
        settings: mappings of keys to Python values (`{"model.depth": 2}` or `{"model": {"depth": 2}}`), or texts as on
            the command line (`"model.depth=2"`). A list is one value: `{"model.width": [64, 32]}` has two layers.
        data: the name of a data set, a DataFrame or mapping of columns with `target`, arrays `(X, y)`, or a file.
            DataFrames and arrays are kept in `outputs/data`, named by their content.
        target: the column of classes; with `data.task=regression` of values, or several such columns.
        dry_run: check everything, train nothing, and return the plan.
        more: settings by keyword: `model={"depth": 2}`, `seed=3`, `optimizer="adam"`, `resume="outputs/DATE/TIME"`.

    Raises:
        UserError: the settings or the data are wrong; the message is the command line's.
        KeyboardInterrupt: stopped; what was reached is kept.
    """
    with signals.importing():
        from mlpexp.api import hydra_session
        from mlpexp.api.run_results import RunResults

    overrides, is_dry_run = _without_dry_run(setting_overrides(*_joined(settings, data, target, more)))
    if dry_run or is_dry_run:
        return _plan(hydra_session.plan_of_run(overrides))
    return RunResults(hydra_session.train(_train, overrides))


@overload
def sweep(
    grid: Grid | None = ...,
    *settings: Settings,
    data: Any = ...,
    target: str | Sequence[str] | None = ...,
    zip: Mapping[str, Any] | Sequence[Mapping[str, Any]] | str | None = ...,
    skip: str | Sequence[str] | None = ...,
    limit: int | None = ...,
    dry_run: Literal[True],
    **more: Any,
) -> "Plan": ...
@overload
def sweep(
    grid: Grid | None = ...,
    *settings: Settings,
    data: Any = ...,
    target: str | Sequence[str] | None = ...,
    zip: Mapping[str, Any] | Sequence[Mapping[str, Any]] | str | None = ...,
    skip: str | Sequence[str] | None = ...,
    limit: int | None = ...,
    dry_run: Literal[False] = ...,
    **more: Any,
) -> "SweepResults": ...
def sweep(
    grid: Grid | None = None,
    *settings: Settings,
    data: Any = None,
    target: str | Sequence[str] | None = None,
    zip: Mapping[str, Any] | Sequence[Mapping[str, Any]] | str | None = None,
    skip: str | Sequence[str] | None = None,
    limit: int | None = None,
    dry_run: bool = False,
    **more: Any,
) -> "SweepResults | Plan":
    """Train every combination of the values in `grid`, as `train.py -m` does, in `multirun/NAME`.

    Args:
        grid: for each key its values: a list, tuple, range or array. `{"model.width": [32, 64]}` trains two networks,
            `{"model.width": [[64, 32], [128]]}` two networks whose widths are lists. Or texts as on the command line
            (`"seed=range(5)"`). A list of mappings is several grids, each with keys of its own; equal combinations are
            trained once.
        zip: keys that vary together: `{"model.width": [32, 64], "optimizer.lr": [0.1, 0.05]}` is two pairs, each
            combined with every point of the grid. Or a list of such mappings, or a list of points
            `[{"model.width": 32, "optimizer.lr": 0.1}, {"model.width": 64, "optimizer.lr": 0.05}]`.
        skip: combinations that are left out, e.g. `"model.depth > 3 and model.width > 128"`; or a list of conditions.
        limit: train so many combinations, chosen at random, the same ones each time.
        dry_run: train nothing, and return the plan: which runs are new, done or under way, and how they are stacked.
        settings, data, target, more: of all runs, see `run`; `name="mine"` names the directory. The same name and a
            larger grid train only what is new.

    Raises:
        UserError: all that is wrong with the sweep; nothing has been trained then.
        RunsFailed: some runs failed; its `directory` has the results of the others.
        KeyboardInterrupt: stopped; finished runs are kept, the same call continues.
    """
    with signals.importing():
        from mlpexp.api import hydra_session
        from mlpexp.api.sweep_results import SweepResults

    swept = [*grid_overrides(() if grid is None else grid), *choice_overrides(zip, skip, limit)]
    common, is_dry_run = _without_dry_run(setting_overrides(*_joined(settings, data, target, more)))
    if dry_run or is_dry_run:
        return _plan(hydra_session.plan_of_sweep([*common, "dry_run=true", *swept]))
    return SweepResults(hydra_session.sweep([*common, *swept]))


def load_sweep(directory: str | Path) -> "SweepResults":
    """The results of a sweep, e.g. `load_sweep("multirun/NAME")`; also of one that still trains.

    Raises:
        UserError: there is no sweep.
    """
    from mlpexp.api.sweep_results import SweepResults

    return SweepResults(Path(directory))


def load_run(directory: str | Path) -> "RunResults":
    """The results of one run, e.g. `load_run("outputs/DATE/TIME")`.

    Raises:
        UserError: there is no finished run.
    """
    from mlpexp.api.run_results import RunResults

    return RunResults(Path(directory))


def _train(cfg: Any) -> None:
    with signals.importing():
        from mlpexp.cli import train_job  # torch and lightning: late

    train_job.train_alone(cfg)


def _without_dry_run(overrides: list[str]) -> tuple[list[str], bool]:
    """The settings without `dry_run`, and whether it is among them."""
    settings = [text for text in overrides if text not in ("dry_run=true", "dry_run=false")]
    return settings, "dry_run=true" in overrides


def _plan(dry_run: "DryRun") -> "Plan":
    from mlpexp.api.sweep_plan import Plan

    return Plan(dry_run)


def _joined(
    settings: tuple[Settings, ...], data: Any, target: str | Sequence[str] | None, more: Mapping[str, Any]
) -> tuple[Settings, ...]:
    """All settings, in the order in which they count."""
    if data is None and target is not None:
        return (*settings, {"data.target": target}, more)
    if data is None:
        return (*settings, more)
    from mlpexp.api import given_data

    return (*settings, given_data.settings(data, target), more)
