"""The fast composition against Hydra's own: the content of every file, every resolved value, every error."""

import itertools
import logging
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import compositions
import pytest
import yaml
from conftest import COMPOSED
from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.utils import run_job
from hydra.types import HydraContext, RunMode
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf, open_dict

from mlpexp.cli import hydra_app
from mlpexp.config import checks, schema, yaml_text
from mlpexp.config.compose import Composer
from mlpexp.sweep.grid import specs

CONF = Path(__file__).parents[1] / "conf"
FILES = ("config.yaml", "hydra.yaml", "overrides.yaml")


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConfigLoader]:
    hydra_app.register()
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("here"))
    os.environ["MLPEXP_TEST"] = "from outside"
    with compositions.remembered(COMPOSED), initialize_config_dir(str(CONF), version_base="1.3", job_name="train"):
        yield GlobalHydra.instance().config_loader()
    del os.environ["MLPEXP_TEST"]
    os.chdir(before)


@pytest.fixture(scope="module")
def master(loader: ConfigLoader) -> DictConfig:
    overrides = ["hydra.mode=MULTIRUN", "+hydra.job.env_set.MLPEXP_TEST=from env_set"]
    return loader.load_configuration("train", overrides, RunMode.MULTIRUN)


@pytest.fixture(scope="module")
def without_env(loader: ConfigLoader) -> DictConfig:
    return loader.load_configuration("train", ["hydra.mode=MULTIRUN"], RunMode.MULTIRUN)


@pytest.fixture(scope="module")
def composer(loader: ConfigLoader, master: DictConfig) -> Composer:
    """One for all examples, so that whatever leaks from one job into the next is found."""
    return Composer(loader, master)


def by_hydra(loader: ConfigLoader, master: DictConfig, overrides: list[str], number: int) -> dict[str, Any]:
    """What Hydra's basic launcher makes of a job: its files, its directory, what the job sees."""
    cfg = loader.load_sweep_config(master, list(overrides))
    with open_dict(cfg):
        cfg.hydra.job.id = number
        cfg.hydra.job.num = number
    before = HydraConfig.instance().cfg
    ended = run_job(
        task_function=lambda task: OmegaConf.to_container(task, resolve=True),
        config=cfg,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
        hydra_context=HydraContext(config_loader=loader, callbacks=Callbacks()),
        configure_logging=False,
    )
    assert HydraConfig.instance().cfg is before
    if isinstance(ended._return_value, Exception):
        raise ended._return_value
    directory = Path(cfg.hydra.runtime.output_dir)
    subdir = cfg.hydra.output_subdir
    return {
        "config": repr(ended._return_value),
        "directory": str(directory),
        "overrides": ended.overrides,
        "env_set": dict(ended.hydra_cfg.hydra.job.env_set),
        "output_subdir": subdir,
        "ordinary": bool(ended.hydra_cfg.hydra.job.chdir),
    } | {name: content((directory / subdir / name).read_text("utf-8")) if subdir else None for name in FILES}


@cache  # most texts of ours are those of Hydra
def content(text: str) -> str:
    """What a YAML text loads to, with its types: by OmegaConf, and by PyYAML where that reads it."""
    try:
        plain = repr(yaml.safe_load(text))
    except yaml.YAMLError as error:
        plain = type(error).__name__
    return f"{OmegaConf.to_container(OmegaConf.create(text))!r} {plain}"


def by_us(composer: Composer, overrides: list[str], number: int) -> dict[str, Any]:
    composed = composer.compose(specs([overrides], number)[0])
    files = composed.make_files(composed.spec, composed.output_dir) if composed.output_subdir is not None else {}
    return {
        "config": repr(composed.config),
        "directory": composed.output_dir,
        "overrides": list(composed.overrides),
        "env_set": composed.env_set,
        "output_subdir": composed.output_subdir,
        "ordinary": composed.needs_run_job,
    } | {name: content(files[name]) if files else None for name in FILES}


def outcome(call: Any) -> Any:
    try:
        return call()
    except Exception as error:
        return type(error), str(error)


GROUPS = [
    "optimizer=adam",
    "optimizer=sgd",
    "trainer=smoke",
    "experiment=notebook",
    "+experiment=notebook",
    "~optimizer",
    "~experiment",
    "~optimizer=adam",
    "optimizer=[sgd,adam]",
]
VALUES = [
    "seed=0",
    "seed=3",
    "seed=-1",
    "seed=null",
    "++seed=5",
    "+seed=6",
    "model.width=64",
    "model.width=[64,32]",
    "model.width=[]",
    "model.width=['a b',c]",
    "++model.width=[1]",
    "model.activation=relu",
    "model.activation=on",
    "optimizer.lr=1e-05",
    "optimizer.lr=1e5",
    "optimizer.lr=-0.0",
    "optimizer.lr=nan",
    "optimizer.lr=0.30000000000000004",
    "optimizer.nesterov=true",
    "optimizer={lr: 3}",
    "model={depth:2,more:[1,{a:b}]}",
    "+trainer.gradient_clip_val=0.5",
    "+trainer.gradient_clip_val=null",
    "+trainer.gradient_clip_val=[0.5]",
    "++trainer.max_epochs=7",
    "+callbacks.mine={_target_:a.B,x:[1,2]}",
    "++new.deep.key=1",
    "~model.width",
    "~model.width=50",
    "~model",
    "~data.folds",
    "~name",
    "name=study",
    "name='my study: é 日本 😀 # no'",
    "name='it\\'s'",
    "name='12'",
    "name=12",
    "name='???'",
    "name='a\\nb'",
    "name=~",
    "name=" + "long_" * 60,
    "name='" + "many words " * 20 + "'",
    "resume=/some/where",
]
INTERPOLATIONS = [
    "data.seed=${seed}",
    "data.fold=${data.seed}",
    "model.width=${data.batch_size}",
    "+trainer.new=${seed}",
    "name=${optimizer.name}",
    "name=run-${seed}-${model.width}",
    "name=${oc.env:MLPEXP_TEST}",
    "name='in ${oc.env:MLPEXP_TEST}'",
    "data.folds=${oc.env:MLPEXP_NOT_THERE,null}",
    "name=${oc.env:MLPEXP_NOT_THERE,3}",
    "name=${hydra:job.num}",
    "name=${hydra:runtime.output_dir}",
    "name=${now:%Y}",
    "model.init=${mlpexp.notebook_init:${model.variant}}",
    "model.init=${mlpexp.notebook_init:x}",
    "model.init='a ${mlpexp.notebook_init:${model.variant}}'",
    "data.seed=${.fold}",
    "seed=${data.folds}",
    "name='\\${seed}'",
]
HYDRAS = [
    "hydra.job.chdir=true",
    "hydra.job.env_set.MORE=1",
    "hydra.sweep.subdir='run ${hydra.job.num}'",
    "hydra.output_subdir=null",
    "hydra.run.dir=x",
]
WRONG = [
    "optimizer=nope",
    "++optimizer=adam",
    "optimizer=3",
    "optimizr=adam",
    "~trainer=smoke",
    "model.nope=1",
    "nope=1",
    "seed.x=1",
    "~model.nope",
    "~model.width=51",
    "+model.width=3",
    "model.width@x=3",
    "model.width=${model.nope}",
    "name=${oc.env:MLPEXP_NOT_THERE}",
    "data.seed=${data.seed}",
    "seed=${nope:1}",
    "seed=1,2",
    "seed=range(3)",
    "model.width",
    "model.width=[1",
    "name='",
    "=3",
]
THOROUGH = "MLPEXP_THOROUGH" in os.environ
KEYS = [key for key, default, _ in schema.keys() if not isinstance(default, dict)]


def quoted(text: str) -> str:
    return QuotedString(text, Quote.single).with_quotes()


words = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=30)
values = st.one_of(
    st.integers().map(str),
    st.floats().map(repr),
    st.sampled_from(["true", "False", "null", "yes", "y", "n", "0777", "1_000", "1:30", ".5", "5.", "2020-01-01", "="]),
    words.map(quoted),
    st.lists(st.one_of(st.integers().map(str), words.map(quoted)), max_size=3).map(
        lambda items: f"[{','.join(items)}]"
    ),
)
assignments = st.builds("{}{}={}".format, st.sampled_from(["", "", "", "++"]), st.sampled_from(KEYS), values)
overrides = st.lists(
    st.one_of(
        st.sampled_from(VALUES),
        st.sampled_from(VALUES),
        st.sampled_from(INTERPOLATIONS),
        st.sampled_from(GROUPS),
        assignments,
        assignments,
        st.sampled_from(HYDRAS + WRONG),
    ),
    max_size=4,
)
thoroughly = settings(
    max_examples=100 if THOROUGH else 8,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # an example costs Hydra a quarter of a second: no shrinking
)


@pytest.mark.thorough(sample=1)
@thoroughly
@given(given_overrides=overrides, number=st.integers(0, 2000))
def test_a_job_is_composed_as_hydra_composes_it(
    given_overrides: list[str], number: int, loader: ConfigLoader, master: DictConfig, composer: Composer
) -> None:
    expected = outcome(lambda: by_hydra(loader, master, given_overrides, number))
    assert outcome(lambda: by_us(composer, given_overrides, number)) == expected


@pytest.mark.parametrize("override", [*INTERPOLATIONS, *HYDRAS, *WRONG])
@pytest.mark.thorough(sample=16)
def test_every_kind_of_override_is_composed_as_hydra_does(
    override: str, loader: ConfigLoader, master: DictConfig, composer: Composer
) -> None:
    job = ["model.depth=2", override, "seed=4"]
    expected = outcome(lambda: by_hydra(loader, master, job, 7))
    assert outcome(lambda: by_us(composer, job, 7)) == expected


@pytest.mark.parametrize("override", [item for item in INTERPOLATIONS if "oc.env" in item])
def test_the_environment_is_seen_as_hydras_jobs_see_it(
    override: str, loader: ConfigLoader, without_env: DictConfig
) -> None:
    expected = outcome(lambda: by_hydra(loader, without_env, [override, "seed=1"], 0))
    assert outcome(lambda: by_us(Composer(loader, without_env), [override, "seed=1"], 0)) == expected


def test_the_whole_configuration_is_hydras(loader: ConfigLoader, master: DictConfig, composer: Composer) -> None:
    job = ["optimizer=adam", "seed=4", "data.seed=${seed}", "+trainer.new=[1]", "~model.sigma_w"]
    expected, found = loader.load_sweep_config(master, job), composer.full_config(specs([job], 3)[0])
    with open_dict(expected):
        expected.hydra.job.id = expected.hydra.job.num = 3
    assert OmegaConf.to_yaml(found) == OmegaConf.to_yaml(expected)
    assert OmegaConf.get_type(found, "hydra") is OmegaConf.get_type(expected, "hydra")
    assert OmegaConf.is_struct(found) and OmegaConf.is_struct(expected)


def test_no_job_sees_anything_of_another(composer: Composer) -> None:
    first = by_us(composer, ["model.width=3", "seed=1", "+trainer.new=1"], 0)
    second = composer.compose(specs([["seed=2"]], 1)[0])
    assert second.config["seed"] == 2
    assert second.config["model"]["width"] == 50
    assert "new" not in second.config["trainer"]
    assert by_us(composer, ["model.width=3", "seed=1", "+trainer.new=1"], 0) == first


@pytest.mark.parametrize(
    "job",
    [
        ["seed={i}"],
        ["model.depth=2", "model.width={i}", "optimizer.lr=0.{i}", "seed={i}"],
        ["model.width=[{i},3]", "data.seed=${{seed}}", "optimizer=adam", "seed={i}"],
        ["experiment=notebook", "seed={i}"],
        ["model.init=${{oc.env:MLPEXP_INIT}}", "seed={i}"],
        ["trainer=smoke", "+trainer.gradient_clip_val=0.{i}", "~model.sigma_w", "name='my study'", "seed={i}"],
    ],
    ids=" ".join,
)
def test_an_ordinary_sweep_is_composed_by_hydra_once(
    job: list[str], loader: ConfigLoader, without_env: DictConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPEXP_INIT", "notebook")
    composer = Composer(loader, without_env)
    composer.compose(specs([[item.format(i=1) for item in job]])[0])

    def never(*_: object) -> None:
        raise AssertionError("the slow way")

    monkeypatch.setattr(Composer, "_by_hydra", never)
    monkeypatch.setattr(type(loader), "load_sweep_config", never)
    for i in range(2, 30):
        composed = composer.compose(specs([[item.format(i=i) for item in job]], i)[0])
        assert composed.config["seed"] == i
        checks.parse(composed.config)


@pytest.mark.parametrize(
    ("logging_choice", "name", "ordinary"),
    [("mlpexp", "train.log", False), ("default", "train.log", False), ("disabled", None, False)],
)
def test_the_log_file_is_known(loader: ConfigLoader, logging_choice: str, name: str | None, ordinary: bool) -> None:
    sweep = loader.load_configuration("train", [f"hydra/job_logging={logging_choice}"], RunMode.MULTIRUN)
    composed = Composer(loader, sweep).compose(specs([["seed=1"]])[0])
    assert (composed.log_name, composed.needs_run_job) == (name, ordinary)


def test_unforeseen_logging_is_left_to_hydra(loader: ConfigLoader) -> None:
    elsewhere = "hydra.job_logging.handlers.file.filename=elsewhere.log"
    sweep = loader.load_configuration("train", [elsewhere], RunMode.MULTIRUN)
    assert Composer(loader, sweep).compose(specs([["seed=1"]])[0]).needs_run_job


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    words.filter(lambda text: "${" not in text),
    st.sampled_from(
        ["=", "a=b", "/x", "~a=1", "a=[1,2]", "007", "x= y", "on", "1e3", "", "?", "- a", "long words " * 12]
    ),
)
trees = st.recursive(
    st.one_of(leaves, st.lists(leaves, max_size=3)),
    lambda inner: st.dictionaries(st.one_of(st.from_regex(r"[a-z]{1,8}", fullmatch=True), words), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.thorough(sample=1)
@settings(max_examples=200 if THOROUGH else 40, deadline=None)
@given(plain=st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), trees, max_size=4))
def test_our_yaml_loads_to_what_was_written(plain: dict[str, Any]) -> None:
    text = yaml_text.block(plain)
    assert repr(yaml.safe_load(text)) == repr(plain)
    assert repr(OmegaConf.to_container(OmegaConf.create(text))) == repr(plain)


@given(st.lists(words, max_size=4))
@settings(deadline=None)
def test_our_list_of_texts_loads_to_what_was_written(lines: list[str]) -> None:
    assert yaml.safe_load(yaml_text.items(lines)) == lines


def test_composing_leaves_logging_alone(composer: Composer) -> None:
    root = logging.getLogger()
    before = root.level, root.handlers[:]
    composer.compose(specs([["seed=1", "name=${hydra:job.num}"]], 3)[0])
    assert (root.level, root.handlers[:]) == before


@pytest.mark.parametrize("kept", ["", "optimizer=adam", "model.width=3", "monitor=val/acc", "+new=1"])
def test_runs_that_are_called_alike_differ_in_the_seed_only(kept: str, composer: Composer) -> None:
    runs = [[f"seed={seed}", *other, *filter(None, [kept])] for seed in (1, 2) for other in ([], ["threads=2"])]
    composed = [composer.compose(spec) for spec in specs(runs)]
    for one, other in itertools.product(composed, composed):
        same = {**one.config, "seed": 0} == {**other.config, "seed": 0}
        assert one.alike is not None
        assert (one.alike == other.alike) == same


@pytest.mark.parametrize("reference", ["data.seed=${seed}", "name=run-${seed}", "model.width=${seed}"])
def test_runs_whose_seed_is_used_for_something_else_are_not_called_alike(reference: str, composer: Composer) -> None:
    one, other = (composer.compose(spec) for spec in specs([[reference, f"seed={seed}"] for seed in (1, 2)]))
    assert one.alike is None and other.alike is None
    assert {**one.config, "seed": 0} != {**other.config, "seed": 0}
