"""mlpexp beside other Hydra applications and plugins, and Hydra's other launchers in mlpexp."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra.version
import pytest
from conftest import SCRIPTS, run_script
from hydra._internal.utils import get_args_parser
from hydra.test_utils.launcher_common_tests import IntegrationTestSuite, LauncherTestSuite
from hydra.version import VersionBase

from mlpexp.config import plugin_keys

SOURCE = Path(__file__).parents[1] / "src"

pytestmark = pytest.mark.filterwarnings("default")  # Hydra's own tests and plugins warn


@pytest.fixture
def no_version_base() -> Iterator[None]:
    """Programs that other tests have run in this process set Hydra's version base; its own tests set none."""
    base = VersionBase.instance()
    former, base.version_base = base.version_base, hydra.version._UNSPECIFIED_
    yield
    base.version_base = former


@pytest.mark.usefixtures("no_version_base")
@pytest.mark.parametrize(("launcher_name", "overrides"), [("basic", [])])
class TestHydrasLauncherTests(LauncherTestSuite):
    """Having mlpexp installed changes nothing for the launcher of another application."""


@pytest.mark.thorough(sample=1)
@pytest.mark.parametrize(
    ("task_launcher_cfg", "extra_flags"),
    [({}, ["-m"]), ({"defaults": [{"override hydra/launcher": "basic"}]}, ["-m"])],
)
class TestHydrasIntegrationTests(IntegrationTestSuite):
    """The same, as programs."""


APPLICATION = """
import hydra
from omegaconf import DictConfig

@hydra.main(version_base="1.3", config_path=None)
def main(cfg: DictConfig) -> None:
    print("the application's own function:", cfg)

main()
"""


def run(directory: Path, *arguments: str, program: str = APPLICATION, **environment: str) -> Any:
    (directory / "app.py").write_text(program)
    return subprocess.run(
        [sys.executable, "app.py", *arguments],
        cwd=directory,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def train(directory: Path, command: str, **environment: str) -> Any:
    """Our own application."""
    words = [sys.executable, str(SCRIPTS / "train.py"), *command.split()]
    return subprocess.run(
        words, cwd=directory, env=os.environ | environment, capture_output=True, text=True, check=False
    )


@pytest.mark.thorough(sample=1)
@pytest.mark.parametrize("choice", ["hydra/launcher=stacked", "hydra/sweeper=optuna", "hydra/sweeper=grid"])
def test_our_plugins_are_no_choice_in_another_application(choice: str, tmp_path: Path) -> None:
    ended = run(tmp_path, "-m", "+seed=1,2", choice)
    group, name = choice.split("=")
    assert ended.returncode != 0
    assert f"Could not find '{group}/{name}'" in ended.stderr
    assert "the application's own function" not in ended.stdout


@pytest.mark.thorough(sample=1)
@pytest.mark.parametrize("choice", ["hydra/launcher=stacked", "hydra/sweeper=optuna", "hydra/sweeper=grid"])
def test_our_plugins_refuse_to_train_in_the_place_of_another_application(choice: str, tmp_path: Path) -> None:
    group, name = choice.split("=")
    node = plugin_keys.PLUGINS[group.removeprefix("hydra/"), name]
    stored = "from hydra.core.config_store import ConfigStore\n"
    stored += f"ConfigStore.instance().store(group={group!r}, name={name!r}, node={node!r})\n"
    ended = run(tmp_path, "-m", "+seed=1,2", choice, program=stored + APPLICATION)
    assert ended.returncode != 0
    assert f"{choice} trains mlpexp's networks, and this application is another one" in ended.stderr
    assert "the application's own function" not in ended.stdout
    assert not (tmp_path / "multirun").exists()


OTHER_OPTUNA = """
from dataclasses import dataclass
from hydra.core.config_store import ConfigStore
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

@dataclass
class Conf:
    _target_: str = "hydra_plugins.hydra_other_optuna.sweeper.OtherSweeper"

ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=Conf, provider="other")

class OtherSweeper(BasicSweeper):
    def __init__(self):
        super().__init__(None)

    def sweep(self, arguments):
        print("the other sweeper")
        return super().sweep(arguments)
"""


@pytest.fixture
def other_optuna(tmp_path: Path) -> str:
    """A path with a plugin of another package that has the same name as ours."""
    package = tmp_path / "other" / "hydra_plugins" / "hydra_other_optuna"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "sweeper.py").write_text(OTHER_OPTUNA)
    return str(tmp_path / "other")


def test_another_packages_optuna_sweeper_is_used_in_other_applications(tmp_path: Path, other_optuna: str) -> None:
    ended = run(tmp_path, "-m", "+seed=1,2", "hydra/sweeper=optuna", PYTHONPATH=other_optuna)
    assert ended.returncode == 0, ended.stderr
    assert "the other sweeper" in ended.stdout
    assert ended.stdout.count("the application's own function") == 2


def test_our_optuna_sweeper_is_used_in_ours_beside_another_packages(tmp_path: Path, other_optuna: str) -> None:
    ended = train(tmp_path, "-m hydra/sweeper=optuna seed=0 model.width=2,3 dry_run=true", PYTHONPATH=other_optuna)
    assert ended.returncode == 0, ended.stderr
    assert "the other sweeper" not in ended.stdout
    assert "trials" in ended.stdout


SMALL = "data=iris trainer.max_epochs=1 tracking.tensorboard=false stack.engine=torch name=s"


@pytest.mark.parametrize(
    "choice", ["hydra/launcher=basic", "hydra/sweeper=basic hydra/launcher=basic", "hydra/sweeper=basic"]
)
def test_hydras_basic_launcher_and_sweeper_train_a_sweep(choice: str, here: Path) -> None:
    ended = run_script("train.py", f"-m {choice} {SMALL} seed=1,2".split())
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.err
    assert_trained(here / "multirun/s", [1, 2])


# in processes of their own: one job in `make test`, two side by side in `make test-thorough`
LAUNCHERS = {
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "hydra/launcher=joblib hydra.launcher.n_jobs=2"),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", "hydra/launcher=submitit_local"),
}
SEEDS = [1, 2] if "MLPEXP_THOROUGH" in os.environ else [1]


@pytest.mark.thorough(sample=1)
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_hydras_other_launchers_train_a_sweep(launcher: str, here: Path) -> None:
    package, choice = LAUNCHERS[launcher]
    pytest.importorskip(package)
    ended = run_script("train.py", f"-m {choice} {SMALL} seed={','.join(map(str, SEEDS))}".split())
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.err
    assert_trained(here / "multirun/s", SEEDS)


def assert_trained(sweep: Path, seeds: list[int]) -> None:
    for seed in seeds:
        (path,) = sweep.glob(f"*seed={seed}/result.json")
        assert json.loads(path.read_text())["status"] in ("ok", "chance")
    assert (sweep / "multirun.yaml").is_file()


def test_a_failing_run_of_another_launcher_is_named_in_one_line(here: Path) -> None:
    failing = "-m hydra/launcher=basic data=iris seed=1,2 +callbacks.x._target_=pathlib.Nothing"
    ended = run_script("train.py", failing.split())
    assert ended.code in (1, 2)
    assert "Traceback" not in ended.err
    assert len(ended.lines) == 1, ended.err


def test_private_parts_of_hydra_are_imported_in_one_place() -> None:
    """`get_args_parser`, to refuse unknown options in words of our own."""
    private = re.compile(r"(?:from|import) (?:hydra\._internal|omegaconf\._)\S*(?: import (.*))?")
    found = [(path.name, match[1]) for path in SOURCE.rglob("*.py") for match in private.finditer(path.read_text())]
    assert found == [("hydra_app.py", "get_args_parser")]
    assert {"multirun", "cfg", "overrides"} <= {action.dest for action in get_args_parser()._actions}
