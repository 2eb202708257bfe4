"""A sweep is the same to the bit and to the file wherever its stacks are trained, and whichever worker dies.

Starting workers costs seconds: `make test` does it once with a worker killed; `make test-thorough` does the rest.
"""

import contextlib
import errno
import gc
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf
from sweeps_away import Killer, at_work, numbers

from mlpexp import data as datasets
from mlpexp import load_results
from mlpexp.config import checks
from mlpexp.config.launcher_settings import Settings
from mlpexp.config.overrides import RunSpec
from mlpexp.config.schema import Config
from mlpexp.models.stack_module import StackModule
from mlpexp.runtime.errors import ConfigError, RunsFailed
from mlpexp.store.worker_session import Progress, open_session
from mlpexp.sweep import executor
from mlpexp.sweep.backends.remote_workers import MAX_IDLE_LOSSES, Lost, LostWorkers, RemoteWorker
from mlpexp.sweep.jobs import Job
from mlpexp.sweep.sweep_console import Screen
from mlpexp.sweep.work_unit import Unit
from mlpexp.training import single_run
from mlpexp.training.planner import plan

TRAIN = Path(__file__).parents[1] / "scripts" / "train.py"
GRID = "-m seed=range(6) model.depth=1,2 model.width=8 trainer.max_epochs=40 "
thorough = pytest.mark.thorough


@pytest.fixture
def undisturbed(train: Callable[..., Any], here: Path) -> dict[str, Any]:
    ended = train(GRID + "name=here")
    assert ended.code == 0, ended.err
    return numbers(here / "multirun/here")


@pytest.mark.parametrize(
    ("seconds", "can_fork", "workers", "wanted"),
    [(1.0, True, None, "process"), (60.0, True, None, "fork"), (60.0, False, None, "process"), (1.0, True, 2, "fork")],
)
def test_workers_are_copied_where_that_pays_and_can_be(seconds, can_fork, workers, wanted, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    jobs: Any = [SimpleNamespace(config=Config(threads=1 if can_fork else 2))]
    assert executor._with_backend_chosen(Settings(workers=workers), jobs, seconds, Screen()).backend == wanted


@pytest.mark.parametrize("backend", ["fork", pytest.param("loky", marks=thorough)])
def test_a_killed_worker_loses_its_stack_only_and_the_sweep_is_the_same(
    backend: str, undisturbed: dict[str, Any], train: Callable[..., Any], here: Path
) -> None:
    with Killer(here / "multirun/away") as killer:
        ended = train(GRID + f"name=away hydra.launcher.backend={backend} hydra.launcher.workers=2")
    assert ended.code == 0, ended.err
    assert len(killer.killed) == 1
    assert "a worker process was lost" in ended.err
    assert "tried again" in ended.err
    assert numbers(here / "multirun/away") == undisturbed
    assert at_work(here / "multirun/away") == []


@thorough
@pytest.mark.parametrize("backend", ["dask", "submitit hydra.launcher.executor=local"])
def test_a_cluster_on_this_machine_trains_the_same_sweep_though_a_worker_is_killed(
    backend: str, undisturbed: dict[str, Any], here: Path
) -> None:
    with Killer(here / "multirun/away") as killer:
        ended = command(f"name=away hydra.launcher.workers=2 hydra.launcher.backend={backend}")
    assert ended.returncode == 0, ended.stderr
    assert len(killer.killed) == 1
    assert numbers(here / "multirun/away") == undisturbed


@thorough
def test_two_dask_workers_of_a_running_scheduler_of_which_one_is_killed(
    undisturbed: dict[str, Any], here: Path
) -> None:
    with scheduler(here) as address, Killer(here / "multirun/away") as killer:
        ended = command(f"name=away hydra.launcher.backend=dask hydra.launcher.address={address}")
    assert ended.returncode == 0, ended.stderr
    assert len(killer.killed) == 1
    assert "was lost" in ended.stderr
    assert numbers(here / "multirun/away") == undisturbed


@thorough
@pytest.mark.parametrize("backend", ["loky", "dask", "submitit hydra.launcher.executor=local"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_its_sweep_and_the_same_command_carries_on(
    backend: str, number: signal.Signals, here: Path, train: Callable[..., Any]
) -> None:
    longer = f"name=away trainer.max_epochs=1000 hydra.launcher.workers=2 hydra.launcher.backend={backend}"
    process = subprocess.Popen([sys.executable, TRAIN, *(GRID + longer).split()], stderr=subprocess.PIPE, text=True)
    workers = wait_for(lambda: at_work(here / "multirun/away"))
    process.send_signal(number)
    said = process.communicate(timeout=180)[1]
    assert process.returncode == (143 if number == signal.SIGTERM else -9), said
    time.sleep(5)
    assert [worker for worker in workers if alive(worker)] == []
    (here / "multirun/away/sweep.json").unlink()  # another number of epochs makes another study
    ended = train(GRID + "name=away")
    assert ended.code == 0, ended.err
    assert not (here / "multirun/away/.workers").exists()


@thorough
def test_the_run_that_kills_its_workers_is_found_and_named(here: Path) -> None:
    (here / "deadly.py").write_text(
        "import os\nfrom lightning.pytorch import Callback\n"
        "class Deadly(Callback):\n"
        "    def on_train_start(self, trainer, module):\n"
        "        if module.cfg.seed == 1:\n            os.kill(os.getpid(), 9)\n"
    )
    ended = command(
        "name=away trainer.max_epochs=1 hydra.launcher.workers=2 hydra.launcher.backend=loky "
        "model.depth=1 seed=0,1,2 +callbacks.deadly._target_=deadly.Deadly",
        env={"PYTHONPATH": str(here)},
    )
    assert ended.returncode == 1, ended.stderr
    assert re.search(r"its run \S*seed=1\S* is given up", ended.stderr.replace("\n", " ")), ended.stderr
    assert [row["status"] for row in load_results(here / "multirun/away")].count("failed") == 1


def test_what_another_worker_has_finished_is_not_trained_again(tmp_path: Path) -> None:
    unit = made(tmp_path, [1, 2, 3])
    with open_session(tmp_path / "sweep") as session:
        away = RemoteWorker(session=session, home=str(tmp_path), prepare=None, is_ours=False)
        first = dict(away(unit))
        torn, kept = unit.jobs[0].directory, unit.jobs[1].directory
        before = (kept / "result.json").stat().st_mtime_ns
        (torn / "result.json").unlink()
        (torn / ".metrics.csv.123.partial").write_text("half")
        second = dict(away(unit))
    assert (kept / "result.json").stat().st_mtime_ns == before
    assert len(list(torn.glob("events*"))) == 1
    assert not list(torn.glob(".*partial"))
    for place in unit.places:
        assert first[place].result.metrics == second[place].result.metrics


def test_an_error_that_cannot_travel_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__(f"{one} and {two}")

    def fails(*_: Any, **__: Any) -> Any:
        raise Odd(1, 2)

    monkeypatch.setattr("mlpexp.sweep.work_unit.train_stack", fails)
    unit = made(tmp_path, [1])
    with open_session(tmp_path / "sweep") as session:
        away = RemoteWorker(session=session, home=str(tmp_path), prepare=None, is_ours=False)
        ended = pickle.loads(pickle.dumps(away(unit)))
    assert str(ended[0][1].error) == "Odd: 1 and 2"


def test_a_worker_whose_sweep_has_gone_does_nothing(tmp_path: Path) -> None:
    unit = made(tmp_path, [1])
    with open_session(tmp_path / "sweep") as session:
        pass
    with pytest.raises(Lost, match="has ended"):
        RemoteWorker(session=session, home=str(tmp_path), prepare=None, is_ours=False)(unit)
    assert list(unit.jobs[0].directory.iterdir()) == []


class Warnings(list[str]):
    """A watcher that keeps what it is told."""

    def progress(self, unit: int, trained: float, written: int = 0, seconds: float | None = None) -> None: ...

    def warn(self, line: str) -> None:
        self.append(line)


def test_a_unit_whose_workers_die_is_tried_again_then_halved_down_to_the_run(tmp_path: Path) -> None:
    unit, said = made(tmp_path, [1, 2, 3]), Warnings()
    with open_session(tmp_path / "sweep") as session:
        lost = LostWorkers(session, said, "a worker")

        def loses(unit: Unit) -> Any:
            with session.writing(unit.origin) as note:
                note(Progress(0.5, 0, 1.0))
            return lost.retry(unit, "no memory")

        [once], none = loses(unit)
        assert (once.jobs, once.losses, none) == (unit.jobs, 1, [])
        pieces, none = loses(once)
        assert [piece.places for piece in pieces] == [(10,), (11, 12)]
        assert none == []
        nothing, [(place, outcome)] = loses(pieces[0])
    assert (nothing, place) == ([], 10)
    assert isinstance(outcome.error, Lost)
    assert said == [
        "a worker was lost (no memory); its 3 runs are tried again",
        "a worker was lost (no memory); its 3 runs are tried again in halves",
        "a worker was lost (no memory); its run 0 is given up",
    ]


@pytest.mark.parametrize("poisonous", [range(7), range(0, 8, 2), range(8)], ids=["first", "every other", "all"])
@pytest.mark.thorough(sample=1)
def test_runs_that_kill_their_workers_are_found_and_all_others_finish(
    poisonous: range, train: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary = StackModule.on_train_start

    def start(self: StackModule) -> None:
        if any(cfg.seed in poisonous for cfg in self.configs):
            os.kill(os.getpid(), signal.SIGKILL)
        ordinary(self)

    monkeypatch.setattr(StackModule, "on_train_start", start)
    words = "-m seed=range(8) data=iris model.width=4 trainer.max_epochs=1 name=s hydra.launcher.workers=2"
    ended = train(f"{words} hydra.launcher.backend=fork")
    assert ended.code == 1
    assert {row["seed"]: row["status"] == "failed" for row in load_results(here / "multirun/s")} == {
        seed: seed in poisonous for seed in range(8)
    }
    [lost] = (here / "multirun/s").glob("*seed=0/result.json")
    assert "its worker was lost" in lost.read_text()
    monkeypatch.undo()
    monkeypatch.chdir(here)
    gc.collect()
    again = train(f"{words} hydra.launcher.backend=fork")
    assert again.code == 0, again.err
    assert {row["status"] for row in load_results(here / "multirun/s")} <= {"ok", "chance"}


def test_single_runs_that_kill_their_workers_do_not_keep_the_others_from_training(
    train: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary = single_run.train

    def kill(cfg: Any, *more: Any, **options: Any) -> Any:
        if cfg.seed < 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return ordinary(cfg, *more, **options)

    monkeypatch.setattr(single_run, "train", kill)
    ended = train(
        "-m seed=range(9) data=iris model.variant=backprop model.width=4 trainer.max_epochs=1 name=s "
        "hydra.launcher.workers=2 hydra.launcher.backend=fork"
    )
    assert ended.code == 1
    assert {row["seed"]: row["status"] == "failed" for row in load_results(here / "multirun/s")} == {
        seed: seed < 7 for seed in range(9)
    }


def test_a_worker_that_was_stopped_after_it_had_saved_more_is_not_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = replace(made(tmp_path, [1, 2]), sweep=tmp_path / "sweep")
    saved = iter([3, 5, 5, 5])
    monkeypatch.setattr("mlpexp.sweep.backends.remote_workers._epochs_saved", lambda unit: next(saved))
    with open_session(tmp_path / "sweep") as session:
        lost = LostWorkers(session, Warnings(), "a job")
        for losses in (0, 0, 1):
            with session.writing(unit.origin) as note:
                note(Progress(0.5, 0, 1.0))
            [unit], none = lost.retry(unit, "time limit")
            assert (unit.losses, none) == (losses, [])


def no_semaphores(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_without_room_for_semaphores_auto_trains_in_this_process_and_says_so(
    train: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", no_semaphores)
    words = "-m seed=0,1 model.width=4 trainer.max_epochs=1 name=s hydra.launcher.workers=2"
    ended = train(words)
    assert ended.code == 0, ended.err
    assert "need semaphores in /dev/shm (No space left on device); the sweep trains in this process" in ended.err
    assert len(load_results(here / "multirun/s")) == 2
    refused = train(words.replace("name=s", "name=t") + " hydra.launcher.backend=fork")
    assert refused.code == 2
    assert "hydra.launcher.backend=fork needs semaphores" in refused.line
    assert "hydra.launcher.backend=process" in refused.line


def test_workers_that_die_before_they_begin_end_the_sweep(tmp_path: Path) -> None:
    unit = made(tmp_path, [1, 2])
    with open_session(tmp_path / "sweep") as session:
        lost = LostWorkers(session, Warnings(), "a worker")
        for _ in range(MAX_IDLE_LOSSES - 1):
            assert lost.retry(unit, "no memory") == ([unit], [])
        with pytest.raises(RunsFailed, match="before they began to train: no memory"):
            lost.retry(unit, "no memory")


def test_a_plan_for_workers_leaves_none_of_them_idle() -> None:
    data = datasets.prepare(checks.parse({}).data)
    for lengths, workers in [((100,), 4), ((7,), 3), ((120, 1, 1), 2), ((2, 2), 4)]:
        configs = [
            checks.parse({"model": {"width": 10 + group}, "seed": seed})
            for group, length in enumerate(lengths)
            for seed in range(length)
        ]
        whole, divided = (plan(configs, [data] * len(configs), workers=count) for count in (1, workers))
        assert sorted(run for stack in divided.stacks for run in stack.runs) == list(range(sum(lengths)))
        assert len(whole.stacks) == len(lengths)
        assert len(divided.stacks) >= min(workers, sum(length // 2 for length in lengths))
        largest = max(stack.cost for stack in divided.stacks)
        smallest = max(3 * stack.cost / len(stack.runs) for stack in whole.stacks)  # a piece has two or three runs
        assert largest <= max(whole.cost / workers, smallest) * 1.01


REFUSED = {
    "backend=ray": "unknown backend 'ray'; choose one of auto, process, fork, loky, dask, submitit",
    "backend=loky hydra.launcher.workers=0": "hydra.launcher.workers=0 is out of range",
    "backend=process hydra.launcher.workers=2": "hydra.launcher.backend=fork",
    "backend=submitit hydra.launcher.executor=pbs": "unknown executor 'pbs'; choose one of slurm, local",
    "address=tcp://127.0.0.1:1": "hydra.launcher.address is for hydra.launcher.backend=dask",
    "backend=dask hydra.launcher.address=nowhere": "is no address of a dask scheduler",
    "backend=dask hydra.launcher.address=tcp://127.0.0.1:1": "does not answer (Connection refused)",
    "backend=loky +hydra.launcher.slurm.mem_gb=1": "hydra.launcher.slurm is for",
}


@pytest.mark.parametrize("setting", REFUSED)
def test_wrong_settings_are_one_line_before_anything_is_written(
    setting: str, train: Callable[..., Any], here: Path
) -> None:
    ended = train(f"-m seed=1,2 hydra.launcher.{setting}")
    assert ended.code == 2
    assert REFUSED[setting] in ended.line
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("answer", [None, b"HTTP/1.0 400 Bad request\r\n\r\n"], ids=["mute", "http"])
def test_a_server_that_is_no_dask_scheduler_is_refused_in_one_line(
    answer: bytes | None, train: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("mlpexp.sweep.backends.dask_backend.CONNECT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = server.accept()
                    if answer is not None:
                        peer.sendall(answer)
                    peers.append(peer)

        peers: list[socket.socket] = []
        threading.Thread(target=serve, daemon=True).start()
        started = time.monotonic()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        refused = train(f"-m seed=1,2 hydra.launcher.backend=dask hydra.launcher.address={address} name=s")
    assert refused.code == 2
    assert f"hydra.launcher.address={address} is not the address of a dask scheduler" in refused.line
    assert time.monotonic() - started < 60
    for peer in peers:
        peer.close()


def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlpexp.config.launcher_settings.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs distributed; install it with: pip install 'mlpexp\[dask\]'"):
        Settings(backend="dask").check()


def made(place: Path, seeds: list[int]) -> Unit:
    def job(number: int, seed: int) -> Job:
        directory = place / "sweep" / str(number)
        directory.mkdir(parents=True)
        return Job(
            spec=RunSpec(number, ()),
            overrides=(),
            output_dir=str(directory),
            config=replace(checks.parse({"trainer": {"max_epochs": 1}}), seed=seed),
            place=str(directory),
            log_name="train.log",
            env_set={},
            hydra=lambda spec: OmegaConf.create({}),
        )

    jobs = tuple(job(i, seed) for i, seed in enumerate(seeds))
    return Unit(places=tuple(range(10, 10 + len(seeds))), jobs=jobs).packed()


def command(words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    overrides = words.split()
    keys = {word.partition("=")[0] for word in overrides}
    grid = [word for word in GRID.split() if word.partition("=")[0] not in keys]
    return subprocess.run(
        [sys.executable, TRAIN, *grid, *overrides],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=os.environ | (env or {}),
    )


@contextlib.contextmanager
def scheduler(place: Path) -> Iterator[str]:
    """A dask scheduler and two workers, each a process of its own, on the loopback interface."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    worker = ["worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    commands = [["scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"], worker, worker]
    with (place / "dask.log").open("w") as logs:
        processes = [
            subprocess.Popen([sys.executable, "-m", "dask", *words], stdout=logs, stderr=logs) for words in commands
        ]
    try:
        wait_for(lambda: (place / "dask.log").read_text().count("Registered to") >= 2)
        yield address
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def wait_for(there: Callable[[], Any], timeout_s: float = 120) -> Any:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := there():
            return found
        time.sleep(0.05)
    raise AssertionError("it never happened")


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
