"""What a sweep leaves behind and gives back through our launcher, beside what Hydra's basic launcher does."""

import functools
import gc
import logging
import os
import shutil
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import compositions
import pytest
from conftest import COMPOSED, tree
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from mlpexp.cli import hydra_app
from mlpexp.runtime.errors import Interrupted, RunsFailed
from mlpexp.sweep.jobs import Job, Outcome

CONF = Path(__file__).parents[1] / "conf"
MULTIRUN = "hydra.mode=MULTIRUN"
Trainer = Callable[[Sequence[Job]], list[Outcome]]


def outcome(job: Job) -> Outcome:
    return Outcome(result=SimpleNamespace(objective=job.config.seed / 10))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _kept_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if type(handler) is logging.FileHandler:
            handler.close()
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs that are handed over for training, which takes no time."""
    jobs: list[Job] = []

    def train_jobs(_: Any, some: Sequence[Job], writing: object) -> list[Outcome]:
        jobs.extend(some)
        return [outcome(job) for job in some]

    monkeypatch.setattr("mlpexp.sweep.hydra_sweep.Sweep.train_jobs", train_jobs)
    return jobs


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any, Any], Any]], None]:
    """Every job trains alone, by the given function in place of `training.train`."""

    def install(train: Callable[[Any, Any], Any]) -> None:
        from mlpexp.sweep.run_outcomes import train_alone

        monkeypatch.setattr("mlpexp.sweep.run_outcomes.single_run.train", train)
        monkeypatch.setattr(
            "mlpexp.sweep.hydra_sweep.Sweep.train_jobs", lambda _, jobs, writing: [train_alone(job) for job in jobs]
        )

    return install


def multirun(*overrides: str, task: Callable[[DictConfig], Any] = lambda cfg: cfg.seed / 10) -> list[JobReturn]:
    """Hydra's multirun in this process, with a task that trains nothing."""
    hydra_app.register()
    version.setbase("1.3")
    hydra = Hydra.create_main_hydra2("train", create_config_search_path(str(CONF)))
    try:
        with compositions.remembered(COMPOSED):
            batches = hydra.multirun("train", task, [*overrides, MULTIRUN])
    finally:
        GlobalHydra.instance().clear()
    return [ended for batch in batches for ended in batch]


def test_a_run_more_costs_a_few_kilobytes_until_the_sweep_ends(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []

    def train_jobs(_: Any, jobs: Sequence[Job], writing: object) -> list[Outcome]:
        gc.collect()
        held.append(tracemalloc.get_traced_memory()[0])
        return [outcome(job) for job in jobs]

    monkeypatch.setattr("mlpexp.sweep.hydra_sweep.Sweep.train_jobs", train_jobs)
    tracemalloc.start()
    try:
        for runs in (20, 120):
            multirun(f"seed=range({runs})", f"name=of_{runs}", "record=table", "hydra/launcher=stacked")
    finally:
        tracemalloc.stop()
    assert (held[1] - held[0]) / 100 < 4500


@functools.cache
def loaded(text: str) -> Any:
    """The content of a YAML file, of which the two launchers write many that are equal."""
    return as_if_basic(OmegaConf.create(text))


def as_if_basic(config: Any) -> Any:
    """A configuration without what is allowed to differ: the launcher's own entries."""
    content = OmegaConf.to_container(config)
    if isinstance(content, dict) and "hydra" in content:
        node = content["hydra"]
        del node["launcher"], node["runtime"]["choices"]["hydra/launcher"]
        node["overrides"]["hydra"] = [one for one in node["overrides"]["hydra"] if "hydra/launcher" not in one]
    return content


def contents(directory: Path) -> dict[str, Any]:
    return {
        str(path.relative_to(directory)): loaded(path.read_text()) if path.suffix == ".yaml" else path.read_text()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def described(ended: JobReturn) -> list[Any]:
    return [
        ended.overrides,
        OmegaConf.to_container(ended.cfg),
        as_if_basic(ended.hydra_cfg),
        ended.working_dir,
        ended.task_name,
        ended.status,
        ended.return_value,
    ]


@pytest.mark.thorough(sample=2)
@pytest.mark.parametrize(
    "overrides",
    [
        ["seed=1,2,3"],
        ["model.width=[8],16", "data.seed=${seed}", "experiment=notebook", "+trainer.gradient_clip_val=0.5"],
        [
            "seed=1,2",
            "hydra/job_logging=disabled",
            "+hydra.job.env_set.MLPEXP_X='7'",
            "hydra.output_subdir=conf",
            "hydra.sweep.subdir='run ${hydra.job.num}'",
        ],
    ],
    ids=["seeds", "groups and lists", "hydra's settings"],
)
def test_every_file_and_return_is_what_the_basic_launcher_gives(
    overrides: list[str], here: Path, trained: list[Job]
) -> None:
    basic = [described(ended) for ended in multirun(*overrides, "name='a study'", "hydra/launcher=basic")]
    files = contents(here)
    assert trained == []
    shutil.rmtree(here / "multirun")
    ours = multirun(*overrides, "name='a study'", "hydra/launcher=stacked")
    assert [described(ended) for ended in ours] == basic
    assert [job.number for job in trained] == list(range(len(basic)))
    assert contents(here).items() >= files.items()
    assert len(files) >= 1 + 3 * len(basic)


def test_our_launcher_is_the_default(here: Path, trained: list[Job]) -> None:
    multirun("seed=1,2")
    assert [job.config.seed for job in trained] == [1, 2]


def test_batches_of_a_sweeper_are_numbered_on(here: Path, trained: list[Job]) -> None:
    ended = multirun("seed=range(5)", "hydra.sweeper.max_batch_size=2")
    assert [job.number for job in trained] == [0, 1, 2, 3, 4]
    assert [one.hydra_cfg.hydra.job.num for one in ended] == [0, 1, 2, 3, 4]
    assert [one.return_value for one in ended] == [0.0, 0.1, 0.2, 0.3, 0.4]


def test_hydra_composes_a_choice_of_files_once(here: Path, trained: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    composed: list[list[str]] = []
    by_hydra = ConfigLoaderImpl.load_sweep_config

    def counted(loader: ConfigLoaderImpl, master: DictConfig, overrides: list[str]) -> DictConfig:
        composed.append(overrides)
        return by_hydra(loader, master, overrides)

    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", counted)
    multirun("seed=range(5)", "optimizer=sgd,adam", "model.width=3,4")
    assert len(trained) == 20
    assert sorted(composed) == [["optimizer=adam"], ["optimizer=sgd"]]


class Listener(Callback):
    """Takes down what Hydra tells a callback about jobs."""

    heard: list[tuple[Any, ...]] = []  # noqa: RUF012 - Hydra makes the instance

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        self.take("start", config, os.environ.get("MLPEXP_X"))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        self.take("end", config, job_return.return_value)

    def take(self, event: str, config: DictConfig, seen: Any) -> None:
        output_dir = HydraConfig.get().runtime.output_dir
        assert Path(output_dir).is_dir()
        assert output_dir == config.hydra.runtime.output_dir
        self.heard.append((config.hydra.job.num, event == "end", config.seed, seen))


def test_callbacks_hear_of_every_job(here: Path, trained: list[Job]) -> None:
    listening = (f"+hydra.callbacks.mine._target_={__name__}.Listener", "+hydra.job.env_set.MLPEXP_X='7'", "seed=1,2")
    heard = {}
    for launcher in ("basic", "stacked"):
        Listener.heard.clear()
        multirun(*listening, f"hydra/launcher={launcher}", f"name={launcher}")
        heard[launcher] = Listener.heard[:]
    assert sorted(heard["stacked"]) == sorted(heard["basic"])
    assert len(heard["basic"]) == 4
    assert [event for event in heard["stacked"] if not event[1]] == heard["stacked"][:2]  # all start, then all end


def test_a_job_alone_finds_what_hydra_promises(here: Path, alone: Any) -> None:
    seen = []

    def train(cfg: Any, directory: Path, **_: Any) -> Any:
        seen.append((os.environ["MLPEXP_X"], HydraConfig.get().job.num, HydraConfig.get().runtime.output_dir))
        assert str(directory) == HydraConfig.get().runtime.output_dir
        logging.getLogger("somebody").info("seed %d", cfg.seed)
        return SimpleNamespace(objective=1.5)

    alone(train)
    ended = multirun("seed=4,5", "+hydra.job.env_set.MLPEXP_X='7'", "name=s")
    assert [one.return_value for one in ended] == [1.5, 1.5]
    assert [entry[:2] for entry in seen] == [("7", 0), ("7", 1)]
    assert "MLPEXP_X" not in os.environ
    for seed in (4, 5):
        text = (here / f"multirun/s/seed={seed}/train.log").read_text()
        assert text.endswith(f"[somebody][INFO] - seed {seed}\n")
        assert text.count("\n") == 1


def test_a_job_that_raises_leaves_its_traceback_and_the_others_alone(
    here: Path, alone: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    done = []

    def train(cfg: Any, directory: Path, **_: Any) -> Any:
        if cfg.seed == 1:
            raise ValueError("broken")
        if cfg.seed == 2:
            raise SystemExit(0)
        done.append(cfg.seed)
        return SimpleNamespace(objective=1.0)

    alone(train)
    with pytest.raises(RunsFailed, match="2 of 4 runs failed; the same command tries them again"):
        multirun("seed=range(4)", "name=s")
    assert done == [0, 3]
    logs = [(here / f"multirun/s/seed={seed}/train.log").read_text() for seed in range(4)]
    assert logs[0] == logs[3] == ""
    assert logs[1].startswith("Traceback") and logs[1].endswith("ValueError: broken\n")
    assert logs[2].startswith("Traceback") and "SystemExit" in logs[2]
    assert "Traceback" not in "".join(capfd.readouterr())


def test_an_interruption_ends_the_sweep(here: Path, alone: Any) -> None:
    def train(cfg: Any, directory: Path, **_: Any) -> Any:
        raise Interrupted("stopped", 130)

    alone(train)
    with pytest.raises(Interrupted):
        multirun("seed=1,2")


def test_jobs_that_change_directory_are_hydras(here: Path, trained: list[Job]) -> None:
    places = []

    def task(cfg: DictConfig) -> float:
        places.append((Path.cwd(), cfg.seed, HydraConfig.get().job.num))
        if cfg.seed == 2:
            raise SystemExit(0)
        return 1.0

    with pytest.raises(RunsFailed, match=r"1 of 3 runs failed \(RuntimeError: SystemExit: 0\)"):
        multirun("seed=1,2,3", "hydra.job.chdir=true", "name=s", task=task)
    assert places == [(here / f"multirun/s/seed={seed}", seed, seed - 1) for seed in (1, 2, 3)]
    assert Path.cwd() == here
    assert trained == []


def test_equal_jobs_are_trained_once(here: Path, trained: list[Job]) -> None:
    ended = multirun("seed=1,2,1")
    assert [job.config.seed for job in trained] == [1, 2]
    assert [one.return_value for one in ended] == [0.1, 0.2, 0.1]
    assert all(one.status is JobStatus.COMPLETED for one in ended)


REFUSED = {
    "-m model.depth=-1,1 optimizer.lr=0,0.1 seed=range(3) name=x": [
        "model.depth=-1 is out of range: it must be >= 0",
        "(6 of 12 runs)",
        "optimizer.lr=0 is out of range: it must be > 0",
        "(6 of 12 runs)",
    ],
    "-m optimizer=adm,sgd model.depth=1,-1": ["unknown optimizer 'adm'", "(2 of 4 runs)", "model.depth=-1", "(1 of 4"],
    "-m optimizer.momentu=range(100)": ["did you mean optimizer.momentum?", "(8 of the first 8 runs)"],
    "-m model.dept=range(100)": ["did you mean model.depth?", "(100 of 100 runs)"],
    "-m 'data.seed=${nope}' seed=1,2": ["data.seed: Interpolation key 'nope' not found", "(2 of 2 runs)"],
    "-m seed=1,2 hydra.sweep.subdir=same": ["different runs would write to", "(2 of 2 runs)"],
    "-m seed=1,2 resume=there": ["resume"],
    "-m 'seed=range(200000)'": ["200,000 runs", "hydra.launcher.max_runs=200000"],
    "-m 'optimizer=glob(x*)'": ["names no value at all"],
}


@pytest.mark.parametrize("command", REFUSED)
def test_a_sweep_with_bad_values_is_refused_as_a_whole(
    command: str, train: Any, here: Path, trained: list[Job]
) -> None:
    ended = train(command)
    assert ended.code == 2
    said = ended.err
    for part in REFUSED[command]:
        assert part in said
        said = said[said.index(part) + len(part) :]
    assert "Traceback" not in ended.err
    assert trained == []
    assert tree(here) == {}
