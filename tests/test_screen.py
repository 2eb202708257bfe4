"""What a person sees of a sweep."""

import csv
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import run_script
from rich.console import Console

from mlpexp.config.overrides import RunSpec
from mlpexp.config.schema import Config
from mlpexp.store.run_directory import Result
from mlpexp.sweep.jobs import Job, Outcome
from mlpexp.sweep.sweep_console import Screen, plan_line
from mlpexp.training.planner import Plan, Stack


def jobs(*overrides: Sequence[str]) -> list[Job]:
    return [
        Job(
            spec=RunSpec(number, ()),
            overrides=tuple(one),
            config=Config(),
            output_dir="",
            place=f"multirun/it/{number}",
            log_name=None,
            env_set={},
            hydra=lambda spec: None,  # type: ignore[arg-type,return-value]
        )
        for number, one in enumerate(overrides)
    ]


def grid(seeds: int, *more: str) -> list[Job]:
    return jobs(
        *(
            [f"model.depth={depth}", f"model.activation={name}", f"seed={seed}", *more]
            for depth in (1, 2)
            for name in ("tanh", "relu")
            for seed in range(seeds)
        )
    )


def ended(value: float, number: int = 0, status: str = "ok") -> Outcome:
    result = Result(
        status=status,  # type: ignore[arg-type]
        metrics={"val/loss": value, "val/acc": 0.9, "test/acc": 0.8, "train/loss": value, "train/acc": 0.9},
        objective=value,
        monitor="val/loss",
        epoch=0,
        epochs=1,
        identity=f"{number + 1:064x}",
        data_digest="",
        seconds={"fit": 1.0},
        versions={},
    )
    return Outcome(result=result)


def concluded(sweep: list[Job], width: int) -> list[str]:
    screen = Screen()
    screen._console = Console(file=(text := io.StringIO()), width=width)
    screen.conclude(
        sweep, [ended(0.1 + 0.01 * run.number, run.number) for run in sweep], Path("multirun/it").absolute()
    )
    return text.getvalue().splitlines()


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        (grid(40), "160 runs: 4 architectures x 40 seeds, in 1 stack"),
        (grid(1), "4 runs: 4 architectures, in 1 stack"),
        (jobs(["seed=1"], ["seed=2"]), "2 runs: 1 configuration x 2 seeds, in 1 stack"),
        (jobs(["data.fold=0"], ["data.fold=1"]), "2 runs: 1 configuration x 2 folds, in 1 stack"),
        (jobs(["optimizer.lr=1"], ["optimizer.lr=2"]), "2 runs: 2 configurations, in 1 stack"),
        (jobs(["seed=1"]), "1 run: 1 configuration, in 1 stack"),
    ],
)
def test_the_plan_is_one_line(sweep: list[Job], said: str) -> None:
    runs = list(range(len(sweep)))
    planned = Plan(stacks=[Stack(runs=runs, cost=12.0, memory_bytes=1)], alone={})
    assert plan_line(sweep, planned) == said


@pytest.mark.parametrize("width", [70, 80, 200])
def test_the_table_of_the_best_is_whole_at_any_width(width: int) -> None:
    lines = concluded(grid(5, "+model.width=100", "optimizer.lr=0.125"), width)
    said = "\n".join(lines)
    assert lines[0] == "best of 4 configurations by mean val/loss, with 95 % intervals"
    assert "Each interval covers initialisation and batch order; fixed: training sample, test sample." in lines
    for word in ("configuration", "runs", "val/loss", "test/acc", "depth=1 tanh", "0.1200 ± 0.0196"):
        assert word in said
    assert "…" not in said
    assert ("val/acc" in said) is (width >= 100)


def test_one_configuration_needs_no_column_and_one_run_no_interval() -> None:
    assert concluded(jobs(["seed=1"], ["seed=2"]), 80)[0] == "mean over the runs, with 95 % intervals"
    said = "\n".join(concluded(grid(1), 80))
    assert "best of 4 configurations by val/loss\n" in said
    assert "±" not in said and "interval" not in said
    assert " runs " not in said.partition("results.csv")[0]


def test_what_a_person_typed_is_no_markup() -> None:
    sweep: Any = jobs(["model.width=[8,4]"], ["model.width=[9]"])
    assert "width=[8,4]" in "\n".join(concluded(sweep, 80))


def test_a_configuration_that_alone_has_numbers_is_the_best_of_all() -> None:
    sweep = jobs(["model.depth=1"], ["model.depth=2"])
    screen = Screen()
    screen._console = Console(file=(text := io.StringIO()), width=80)
    outcomes = [ended(0.1, 0), ended(math.nan, 1, "diverged")]
    screen.conclude(sweep, outcomes, Path("multirun/it").absolute())
    assert text.getvalue().splitlines()[0] == "best of 2 configurations, 1 of them with diverged runs, by val/loss"


def test_terminal_and_report_name_the_same_winner_where_runs_are_at_chance_level(train: Any, here: Path) -> None:
    ended = train("-m name=ch data=iris seed=range(6) model.width=4,8 trainer.max_epochs=3 optimizer=adam")
    assert ended.code == 0
    title, *lines = ended.out[ended.out.index("best of") :].splitlines()
    first = next(line for line in lines if "width=" in line)
    report = run_script("report.py", ["multirun/ch"])
    width = re.search(r"width=\d+", report.out)
    assert width is not None
    assert width[0] in first
    [row, *_] = csv.DictReader((here / "multirun/ch/report/tables/ranking.csv").read_text().splitlines())
    assert f"{float(row['val/loss']):.4f} ± {float(row['val/loss ±']):.4f}" in first
    assert row["finished"] == "6"
    assert "of them at chance level" in title
