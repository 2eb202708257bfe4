"""What may import what, what stays instant, and that every file in conf/ is a configuration that works."""

import ast
import functools
import inspect
import json
import subprocess
import sys
from collections.abc import Container, Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from mlpexp.cli import hydra_app
from mlpexp.config.schema import Config
from mlpexp.config.trainer_flags import trainer_flags

ROOT = Path(__file__).parents[1]
SOURCE, CONF = ROOT / "src", ROOT / "conf"

# From the ground up. An entry is a package, or a part of one that stands on another floor. A module imports
# from floors below its own, and from its own package.
FLOORS = [
    "runtime",
    "config.field_types config.overrides",
    "nn data tracking.trackers",
    "config",
    "tracking extend",
    "store engine",
    "models tracking.curves_file tracking.wandb_tracker",
    "training analysis",
    "sweep",
    "search evaluation api.estimators",
    "report",
    "report.studies",
    "cli",
    "api",
    # what people and Hydra call
    "mlpexp __main__ hydra_plugins scripts",
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names.split()}

FILES = [*sorted(SOURCE.rglob("*.py")), *sorted((ROOT / "scripts").glob("*.py"))]


def longest_prefix(module: str, names: Container[str]) -> str:
    """The longest dotted prefix of a module, or itself, that is among the names; empty where none is."""
    while module and module not in names:
        module = module.rpartition(".")[0]
    return module


def unit(module: str) -> str:
    """The name in `FLOORS` that a dotted module belongs to."""
    top, _, rest = module.partition(".")
    if top != "mlpexp" or not rest:
        return top
    return longest_prefix(rest, FLOOR) or rest.partition(".")[0]


def module_of(path: Path) -> str:
    relative = path.relative_to(SOURCE if path.is_relative_to(SOURCE) else ROOT).with_suffix("")
    return ".".join(part for part in relative.parts if part != "__init__")


@functools.cache
def imports(path: Path) -> list[tuple[int, str]]:
    """Line and dotted module of every import in a file, late ones too."""
    return list(_imports(path))


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write imports in full"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                place = SOURCE / inner.replace(".", "/")
                yield node.lineno, inner if place.is_dir() or place.with_suffix(".py").is_file() else str(node.module)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_go_downward_only(path):
    own = unit(module_of(path))
    assert own in FLOOR, f"give {own} a floor in this test"
    for line, module in imports(path):
        if module.split(".")[0] not in ("mlpexp", "scripts", "hydra_plugins"):
            continue
        other = unit(module)
        assert other in FLOOR, f"{path.name}:{line} imports {module}, which has no floor in this test"
        assert other == own or FLOOR[other] < FLOOR[own], f"{path.name}:{line}: {own} may not import {module}"


def test_every_floor_is_inhabited():
    there = {unit(module_of(path)) for path in FILES}
    assert set(FLOOR) == there


HEAVY = ("torch", "lightning", "sklearn", "matplotlib", "pandas", "scipy")
# by package or module, the longest name that fits
FORBIDDEN = {
    "config": (*HEAVY, "numpy"),
    "config.schema": (*HEAVY, "numpy", "hydra", "omegaconf"),
    "config.model_config": (*HEAVY, "numpy", "hydra", "omegaconf"),
    "config.training_config": (*HEAVY, "numpy", "hydra", "omegaconf"),
    "config.checks": (*HEAVY, "numpy", "hydra", "omegaconf"),
    "config.model_checks": (*HEAVY, "numpy", "hydra", "omegaconf"),
    "config.optimizer_checks": (*HEAVY, "numpy", "hydra", "omegaconf"),
    "data": ("hydra", "omegaconf", "matplotlib"),
    "data.data_config": (*HEAVY, "numpy", "hydra", "omegaconf"),
    "nn": ("lightning", "hydra", "omegaconf", "sklearn"),
    "engine": ("lightning", "hydra", "omegaconf", "sklearn"),
    "models": ("hydra", "omegaconf", "sklearn", "matplotlib"),
    "tracking": ("torch", "lightning", "hydra", "omegaconf", "sklearn"),
    "analysis": ("torch", "lightning", "sklearn"),
    "report": ("torch", "lightning", "sklearn"),
    "api.estimators": ("lightning", "hydra", "omegaconf", "matplotlib", "pandas"),
}


def forbidden(path: Path) -> tuple[str, ...]:
    name = module_of(path).removeprefix("mlpexp.")
    return FORBIDDEN.get(longest_prefix(name, FORBIDDEN), ())


@pytest.mark.parametrize("path", [path for path in FILES if forbidden(path)], ids=module_of)
def test_a_file_keeps_to_its_own_trade(path):
    foreign = [(line, name) for line, name in imports(path) if name.split(".")[0] in forbidden(path)]
    assert foreign == []


# of each command what it says, and which heavy packages are imported after it
PROBE = """
import contextlib, io, json, os, runpy, sys
found = []
sys.path.insert(0, {scripts!r})
for script, arguments, typed in json.load(sys.stdin):
    os.environ |= {{"COMP_LINE": typed, "COMP_POINT": str(len(typed))}}
    sys.argv = [script, *arguments]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), contextlib.suppress(SystemExit):
        runpy.run_path(os.path.join({scripts!r}, script), run_name="__main__")
    from hydra.core.global_hydra import GlobalHydra
    GlobalHydra.instance().clear()
    found.append([said.getvalue(), sorted(set(sys.modules) & set({heavy!r}))])
print(json.dumps(found))
"""
# command -> script, arguments, what is typed where it completes, what is shown
LIGHT = {
    "help": ("train.py", ["--help"], "", "model.activation=tanh"),
    "cfg": ("train.py", ["--cfg", "job"], "", "activation: tanh"),
    "completion": ("train.py", ["-sc", "query=bash"], "python train.py model.acti", "model.activation="),
    "mistake": ("train.py", ["model.activation=tahn"], "", "unknown activation 'tahn'"),
    "mistake in a sweep": ("train.py", ["-m", "model.activation=tahn,relu"], "", "unknown activation 'tahn'"),
    "gradcheck help": ("gradcheck.py", ["--help"], "", "python scripts/gradcheck.py"),
    "gradcheck mistake": ("gradcheck.py", ["model.activation=tahn"], "", "unknown activation 'tahn'"),
    "evaluate help": ("evaluate.py", ["--help"], "", "a run's directory, or a checkpoint"),
    "predict help": ("predict.py", ["--help"], "", "a run's directory, or a checkpoint"),
    "export help": ("export.py", ["--help"], "", "a run's directory, or a checkpoint"),
}


def test_nothing_heavy_is_imported_before_something_is_trained(tmp_path):
    """One fresh process runs all commands, one after the other."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(heavy=HEAVY, scripts=str(ROOT / "scripts"))],
        input=json.dumps([command[:3] for command in LIGHT.values()]),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for (name, (*_, shown)), (said, heavy) in zip(LIGHT.items(), json.loads(done.stdout), strict=True):
        assert shown in said, name
        assert heavy == [], name


def test_the_trainers_flags_are_those_of_the_installed_lightning():
    from lightning.pytorch import Trainer

    assert set(inspect.signature(Trainer.__init__).parameters) - {"self"} == trainer_flags()


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: path.relative_to(CONF).as_posix())
def test_every_file_in_conf_composes_to_a_valid_configuration(path):
    hydra_app.register()
    group = path.parent.relative_to(CONF).as_posix()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(path.stem) if group == "." else compose("train", [f"{group}={path.stem}"])
    hydra_app.parse(cfg)


def test_the_composed_defaults_are_those_of_the_schema():
    hydra_app.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert hydra_app.parse(compose("train")) == Config()
