"""Between Hydra and mlpexp: what `scripts/train.py` needs before anything heavy is imported.

Registers the schema, our plugins and the interpolations of conf/, rewords Hydra's errors, and turns every outcome
into an exit code: 0 done, 1 failed, 2 the user's error, 130 interrupted, 143 terminated.
"""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlpexp.cli import automatic_directories, exit_codes
from mlpexp.cli.help_text import help_template
from mlpexp.config import checks, model_checks, own_options, plugin_keys, run_names, schema, sweep_syntax
from mlpexp.config.hydra_messages import hydra_sentence, hydra_sentences, interpolation_sentence
from mlpexp.config.overrides import by_key, shell_word
from mlpexp.config.overrides import parse as parse_override
from mlpexp.config.schema import Config
from mlpexp.data.data_sets import DATA_SETS
from mlpexp.runtime import shell_commands, signals, user_code
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.terminal import say
from mlpexp.store import atomic_files, file_names

_MULTIRUN = {"-m", "--multirun", "hydra.mode=MULTIRUN"}


def conf() -> Path:
    """The directory of the configuration files: of an installed package inside it, of a checkout beside `src`."""
    package = Path(__file__).parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def register(words: Sequence[str] = ()) -> None:
    """Give Hydra the base configuration, the choices of our plugins and the resolvers that `conf/train.yaml` uses.

    Args:
        words: of the command line; the data sets of the plugins that they name are choices, too.
    """
    register_resolvers()
    _import_plugins(words)
    Plugins.instance()  # others store their choices now; in this application ours replace those of the same name
    store = ConfigStore.instance()
    base = OmegaConf.create(schema.defaults())
    OmegaConf.set_struct(base.model, False)  # the arguments of a user-defined class are keys here
    for section in own_options.SECTIONS:
        OmegaConf.set_struct(base[section].options, False)
    store.store(name="schema", node=base)
    for name, entry in DATA_SETS.items():
        store.store(group="data", name=name, node={"name": name, **entry.defaults})
    for (kind, name), defaults in plugin_keys.PLUGINS.items():
        store.store(group=f"hydra/{kind}", name=name, node=defaults, provider="mlpexp")


def _import_plugins(words: Sequence[str]) -> None:
    for word in words:
        if not word.startswith("plugins="):
            continue
        # the check of the configuration says what is wrong
        with suppress(UserError, HydraException, ValueError, TypeError):
            for plugin in parse_override(word).value:
                user_code.load(str(plugin), Path.cwd())


def register_resolvers() -> None:
    """The interpolations `${mlpexp....}`; a process that only trains needs no more.

    They are functions of this module, so that launchers that start other processes can pickle them.
    """
    now = datetime.now()
    resolvers: dict[str, Callable[..., Any]] = {
        "mlpexp.run_dir": partial(_run_dir, now),
        "mlpexp.sweep_name": partial(_sweep_name, now),
        "mlpexp.run_name": run_names.run_name,
        "mlpexp.full_run_name": _full_run_name,
        "mlpexp.output_subdir": _output_subdir,
        "mlpexp.notebook_init": _notebook_init,
        "mlpexp.help": help_template,
        "mlpexp.command": shell_commands.plain,
    }
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)


def _run_dir(started: datetime, resume: str | None) -> str:
    return resume or automatic_directories.run_dir(started)


def _sweep_name(started: datetime, name: str | None) -> str:
    return run_names.safe_component(str(name)) if name is not None else automatic_directories.sweep_name(started)


def _full_run_name(overrides: list[str]) -> str:
    return run_names.run_name(overrides, full=True)


def _output_subdir(resume: str | None) -> str | None:
    """A resumed run keeps the configuration that it was started with."""
    return None if resume else ".hydra"


def _notebook_init(variant: str) -> str:
    """The notebook draws N(0, 1) for its own implementations and uses torch's initialisation for nn.Linear."""
    return "torch" if variant == "torch_nn" else "notebook"


def check_run(config: DictConfig) -> Config:
    """Check all of a single run before anything is written.

    Args:
        config: with Hydra's node.

    Raises:
        UserError: what is wrong.
    """
    plugin_keys.check_chosen(config.hydra)
    cfg = parse(config)
    if "name" in by_key(config.hydra.overrides.task):
        where = shell_word("hydra.run.dir", f"outputs/{cfg.name}")
        say(
            f"note: name is for sweeps (-m) and ignored here; a run's directory is named by {where}",
            error=True,
        )
    if cfg.dry_run:
        raise UserError("dry_run=true shows the plan of a sweep: add -m")
    if cfg.halving.rungs is not None and cfg.resume is None:
        raise UserError("halving compares the runs of a sweep; add -m, or leave it out")
    if cfg.record == "table":
        raise UserError("record=table belongs to a sweep; add -m, or leave it out")
    if cfg.resume is None:
        refuse_used(Path(str(config.hydra.run.dir)), automatic=_is_automatic(config.hydra.run, "dir"))
        summary = model_checks.check_data(cfg)  # before a directory is made
        if summary is not None:
            say(summary)
    else:
        from mlpexp.training import resume

        resume.find(cfg, list(config.hydra.overrides.task))
    if cfg.trainer.accelerator not in ("cpu", "auto") or cfg.trainer.flags or cfg.callbacks or cfg.logger:
        from mlpexp.training import trainer_setup  # Lightning: late, and only where it is needed

        trainer_setup.check(cfg)
    return cfg


class CheckFirst(Callback):
    """Checks the configuration of a single run before Hydra creates its directory."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        try:
            cfg = check_run(config)
            if cfg.resume is None and _is_automatic(config.hydra.run, "dir"):
                automatic_directories.claim(str(config.hydra.run.dir))
            elif cfg.resume is not None:
                atomic_files.detach(Path(cfg.resume) / file_names.LOG)  # Hydra adds to it in place
        except Exception as error:
            # Hydra turns exceptions of callbacks into warnings
            raise Refused(error) from error

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        try:
            if _is_automatic(config.hydra.sweep, "dir") and config.get("name") is None:
                automatic_directories.claim(str(config.hydra.sweep.dir))
        except Exception as error:
            raise Refused(error) from error


def _is_automatic(node: DictConfig, key: str) -> bool:
    """Whether this directory was not given by the user."""
    written = str(OmegaConf.to_container(node, resolve=False)[key])  # type: ignore[call-overload,index]
    return written.startswith(("${mlpexp.run_dir:", "multirun/${mlpexp.sweep_name:"))


class Refused(BaseException):
    """Carries an error past Hydra's `except Exception`."""


def refuse_used(directory: Path, *, automatic: bool = False) -> None:
    """A directory that holds a run, or something else, is not written into.

    Raises:
        UserError: `directory` is a file, holds files, or cannot be made.
    """
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory} is a file; give a directory, e.g. hydra.run.dir=outputs/mine")
    there = next(place for place in (directory, *directory.absolute().parents) if place.exists())
    if there != directory and not there.is_dir():
        raise UserError(f"hydra.run.dir={directory}: {there} is a file; give another directory")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"hydra.run.dir={directory}: {there} cannot be written to; give another directory")
    if not automatic and directory.is_dir() and any(directory.iterdir()):
        raise UserError(
            f"{directory} is not empty; choose another hydra.run.dir, "
            f"or continue the run that is there with {shell_word('resume', str(directory))}"
        )


def parse(cfg: DictConfig) -> schema.Config:
    """The typed, checked configuration of one job; interpolations are resolved here.

    Raises:
        UserError: an interpolation has no value.
        ConfigError: see `checks.parse`.
    """
    job = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    try:
        plain = OmegaConf.to_container(job, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(interpolation_sentence(error)) from error
    return checks.parse(plain, partial(_started_in, cfg))  # type: ignore[arg-type]


def _started_in(cfg: DictConfig) -> Path:
    """The directory in which the program was started; `hydra.job.chdir` has left it when the job begins."""
    if "hydra" in cfg:  # the job has not begun
        return Path(str(cfg.hydra.runtime.cwd))
    return Path(HydraConfig.get().runtime.cwd) if HydraConfig.initialized() else Path.cwd()


def run(main: Callable[[], Any]) -> NoReturn:
    """Call a Hydra main and leave with the right exit code and at most one line on stderr for each problem."""
    verbose = exit_codes.wants_traceback()
    os.environ[exit_codes.FULL_ERROR] = "1"  # Hydra then raises its errors, and `_worded` describes them

    if _completes_value(sys.argv[1:]):
        sys.exit(0)

    def whole() -> None:
        refused: BaseException | None = None
        with signals.interruptible():
            is_sweep = not _MULTIRUN.isdisjoint(sys.argv)
            sys.argv[1:] = sweep_syntax.for_hydra(sys.argv[1:], is_sweep=is_sweep)
            _refuse_unknown_options()
            try:
                main()
            except Refused as error:
                refused = error.__cause__
            finally:
                automatic_directories.release()
            if refused or _failure:
                raise refused or _failure.pop()

    exit_codes.run(whole, verbose=verbose, words=_worded)


def problems(error: BaseException, overrides: Sequence[str]) -> list[str] | None:
    """One line for each problem, of an error that Hydra or OmegaConf has raised; None for another error."""
    match error:
        case HydraException() | OmegaConfBaseException():
            return list(hydra_sentences(error, overrides))
        case ValueError() if _raised_by_hydra(error):
            return [hydra_sentence(error)]
    return None


def _completes_value(arguments: Sequence[str]) -> bool:
    """Answer a shell that completes the value of a key with fixed choices; Hydra offers the current value only."""
    shell = next((word.removeprefix("query=") for word in arguments if word.startswith("query=")), None)
    line = os.environ.get("COMP_LINE", "")
    if shell is None or not {"-sc", "--shell-completion"} & set(arguments) or not line or line[-1].isspace():
        return False
    override = parse_override(line.split()[-1])
    choices = schema.choices().get(override.key)
    if choices is None or override.value_text is None:
        return False
    given, comma, last = override.value_text.rpartition(",")  # of a sweep
    start = override.text.removesuffix(override.value_text) + given + comma
    words = [f"{start}{choice}" for choice in choices if choice.startswith(last)]
    print(("\n" if shell == "fish" else " ").join(words))
    return True


def _refuse_unknown_options() -> None:
    from hydra._internal.utils import get_args_parser

    def refuse(problem: str) -> NoReturn:
        raise UserError(f"{problem}; settings are written without dashes, e.g. model.depth=2, and --help lists them")

    parser = get_args_parser()
    setattr(parser, "error", refuse)  # noqa: B010  # argparse's own prints the whole usage
    if unknown := parser.parse_known_args()[1]:
        if not unknown[0].startswith("-"):
            raise UserError(
                f"settings must stand together: write options such as -m before {unknown[0]} and the others"
            )
        refuse(f"unknown option {unknown[0]}")


_failure: list[BaseException] = []


def fail(error: BaseException) -> None:
    """End the program with this error after Hydra has returned.

    If it were raised inside the job, Hydra would print a message of its own first.
    """
    _failure.append(error)


def _worded(error: BaseException) -> exit_codes.Worded | None:
    """Exit code and messages for an error of Hydra."""
    lines = problems(error, sys.argv[1:])
    return None if lines is None else (2, lines)


def _raised_by_hydra(error: BaseException) -> bool:
    """Whether Hydra's own code raised it: such a ValueError is about a choice of files, e.g. optimizer=3."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith("hydra.")
