"""What the tests share: the real command line, called inside this process, in an empty directory."""

import contextlib
import functools
import gc
import hashlib
import io
import logging
import os
import random
import re
import runpy
import shlex
import shutil
import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from unittest import mock

import compositions
import pytest
from hydra.core.global_hydra import GlobalHydra

from mlpexp.config import checks
from mlpexp.runtime import fast_imports, signals, user_code
from mlpexp.runtime.errors import ConfigError

fast_imports.install()  # as the entry points do

SCRIPTS = Path(__file__).parents[1] / "scripts"
ENTRY_POINTS = sorted(path.name for path in SCRIPTS.glob("*.py") if path.stem != "require_environment")
sys.path.insert(0, str(SCRIPTS))  # as Python does when it runs one of them
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # as in an active environment


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """What was said on stderr."""
        return self.err.splitlines()

    @property
    def line(self) -> str:
        """The one line that was said on stderr."""
        assert len(self.lines) == 1, self.err
        return self.lines[0]


@pytest.fixture(scope="session", autouse=True)
def _heard_signals() -> None:
    """Whoever started the tests may ignore signals (nohup, a shell's `&`); programs that they start would, too."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _nothing_waits_for_the_disk() -> Iterator[None]:
    """Nobody cuts the power meanwhile, and a small sweep would wait for a fifth of its time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def train(here: Path) -> Callable[..., Outcome]:
    """Call `scripts/train.py` as a person would: `train("model.depth=2 seed=1")` or `train(["a=1", "b=2"])`."""

    def call(arguments: str | list[str] = "") -> Outcome:
        words = shlex.split(arguments) if isinstance(arguments, str) else arguments
        return run_script("train.py", words)

    return call


@pytest.fixture(scope="session")
def _two_epochs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        quick = ["trainer.max_epochs=2", "tracking.figures=false"]
        ended = run_script("train.py", ["hydra.run.dir=run", *quick])
    assert ended.code == 0, ended.err
    return place / "run"


@pytest.fixture
def finished(_two_epochs: Path, here: Path) -> Path:
    """`run`, the directory of a run of two epochs, one's own to spoil."""
    shutil.copytree(_two_epochs, here / "run")
    return here / "run"


COMPOSED: dict[bytes, bytes] = {}  # what Hydra has read in this process


def run_script(name: str, arguments: list[str]) -> Outcome:
    """The script's `__main__`, inside this process; nothing global is changed afterwards."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with (
        _kept_state(),
        compositions.remembered(COMPOSED),
        _packages_read_once(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        sys.argv = [f"scripts/{name}", *arguments]
        try:
            runpy.run_path(str(SCRIPTS / name), run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
        finally:
            _close_logs()
    assert isinstance(code, int), code
    return Outcome(code, out.getvalue(), err.getvalue())


_entry_points = functools.cache(entry_points)


@contextlib.contextmanager
def _packages_read_once() -> Iterator[None]:
    """Lightning reads the files of all installed packages for each Trainer: a tenth of a small sweep's time."""
    if (registry := sys.modules.get("lightning.fabric.utilities.registry")) is None:
        yield
    else:
        with mock.patch.object(registry, "entry_points", _entry_points):
            yield


# files that start processes or train many runs: three quarters of the tests' time
SLOW = {
    *(
        "test_backends",
        "test_documentation",
        "test_extending",
        "test_fast_imports",
        "test_faults",
        "test_halving",
        "test_recipes",
    ),
    *("test_advice", "test_hydra_neighbours", "test_resume", "test_search", "test_standing"),
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem in SLOW:
            item.add_marker(pytest.mark.slow)
    if "MLPEXP_THOROUGH" in os.environ or any("::" in word for word in config.args):  # all, or one by its name
        return
    draws: dict[tuple[str, int], list[pytest.Item]] = defaultdict(list)
    for item in items:
        if marker := item.get_closest_marker("thorough"):
            draws[item.nodeid.partition("[")[0], marker.kwargs.get("sample", 0)].append(item)
    # the workers of pytest-xdist must draw the same
    seed = os.environ.get("PYTEST_XDIST_TESTRUNUID") or str(random.SystemRandom().random())
    for (name, number), drawn in draws.items():
        order = random.Random(seed + name).sample(drawn, len(drawn))
        for item in order[number:]:
            item.add_marker(pytest.mark.skip(reason="make test-thorough runs it"))


gc.disable()  # what the collection of the tests makes stays


def pytest_collection_finish() -> None:
    """Leave the modules and the collected tests to no further garbage collection: it took half of the tests' time."""
    gc.freeze()
    gc.enable()


def _collect() -> None:
    gc.collect()
    if len(sys.modules) > _frozen_modules[0]:  # a library has been imported
        _frozen_modules[0] = len(sys.modules)
        gc.freeze()


_frozen_modules = [0]


@contextlib.contextmanager
def _kept_state() -> Iterator[None]:
    argv, environment, random_state = sys.argv, os.environ.copy(), random.getstate()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    former = {number: signal.getsignal(number) for number in signals.EXIT_CODES}
    try:
        yield
    finally:
        GlobalHydra.instance().clear()
        _collect()  # Hydra's objects hold each other, and a sweep's holds the lock of its directory
        root.handlers[:], root.level = handlers, level
        for number, handler in former.items():
            signal.signal(number, handler)
        random.setstate(random_state)
        sys.argv = argv
        os.environ.clear()
        os.environ.update(environment)


def _close_logs() -> None:
    for handler in logging.getLogger().handlers:
        if type(handler) is logging.FileHandler:
            handler.close()


def train_as_new_processes(train: Callable[[str], Outcome]) -> Callable[[str], Outcome]:
    """`train` as a new process would: a sweep's directory is free once nothing refers to the sweep any more."""

    def call(arguments: str) -> Outcome:
        gc.collect()
        return train(arguments)

    return call


def assert_problem(given: dict[str, object], message: str) -> None:
    """A configuration is refused, and one of the problems that are named holds `message`."""
    with pytest.raises(ConfigError) as caught:
        checks.parse(given)
    assert any(message in problem for problem in caught.value.problems), caught.value.problems
    assert all("\n" not in problem for problem in caught.value.problems)


def sections_with_code(page: Path, heading: str) -> dict[str, tuple[str, list[str]]]:
    """Of each section of a page its title, its one block of Python, and the commands of its one console block."""
    _, *sections = re.split(rf"^{heading} ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = {}
    for section in sections:
        (code,) = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
        (commands,) = re.findall(r"^```console\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
        found[section.partition("\n")[0]] = code, commands.splitlines()
    return found


def tree(directory: Path) -> dict[str, str]:
    """Every path below `directory` with a digest of its content."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(directory.rglob("*"))
    }


@pytest.fixture
def no_plugins_left() -> Iterator[None]:
    """Plugins that the test loads are forgotten after it."""
    before, path = dict(user_code._loaded), list(sys.path)
    yield
    for name, known in list(user_code._loaded.items()):
        if name not in before:
            user_code._forget(name, known.files)
    user_code._cache.clear()
    sys.path[:] = path
