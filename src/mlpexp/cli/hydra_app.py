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
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlpexp.cli import automatic_directories, exit_codes
from mlpexp.cli.help_text import help_template
from mlpexp.config import checks, plugin_keys, run_names, schema, sweep_syntax, user_options
from mlpexp.config.hydra_messages import hydra_sentence, hydra_sentences, interpolation_sentence
from mlpexp.config.overrides import parse as parse_override
from mlpexp.data.data_sets import DATA_SETS
from mlpexp.runtime import shell_commands, signals, user_code
from mlpexp.runtime.errors import UserError

_MULTIRUN = {"-m", "--multirun", "hydra.mode=MULTIRUN"}


def conf() -> Path:
    """The directory of the configuration files: of an installed package inside it, of a checkout beside `src`."""
    package = Path(__file__).parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def register(arguments: Sequence[str] = ()) -> None:
    """Give Hydra the base configuration, the choices of our plugins and the resolvers that `conf/train.yaml` uses.

    Args:
        arguments: of the command line; the data sets of the plugins that they name are choices, too.
    """
    register_resolvers()
    _import_plugins(arguments)
    Plugins.instance()  # others store their choices now; in this application ours replace those of the same name
    store = ConfigStore.instance()
    base = OmegaConf.create(schema.defaults())
    OmegaConf.set_struct(base.model, False)  # the arguments of a user-defined class are keys here
    for section in user_options.SECTIONS:
        OmegaConf.set_struct(base[section].options, False)
    store.store(name="schema", node=base)
    for name, entry in DATA_SETS.items():
        store.store(group="data", name=name, node={"name": name, **entry.defaults})
    for (kind, name), defaults in plugin_keys.PLUGINS.items():
        store.store(group=f"hydra/{kind}", name=name, node=defaults, provider="mlpexp")


def _import_plugins(arguments: Sequence[str]) -> None:
    for argument in arguments:
        if not argument.startswith("plugins="):
            continue
        # the check of the configuration says what is wrong
        with suppress(UserError, HydraException, ValueError, TypeError):
            for plugin in parse_override(argument).value:
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
    return resume or automatic_directories.named("outputs", started)


def _sweep_name(started: datetime, name: str | None) -> str:
    if name is not None:
        return run_names.safe_component(str(name))
    return automatic_directories.named("multirun", started).removeprefix("multirun/")


def _full_run_name(overrides: list[str]) -> str:
    return run_names.run_name(overrides, full=True)


def _output_subdir(resume: str | None) -> str | None:
    """A resumed run keeps the configuration that it was started with."""
    return None if resume else ".hydra"


def _notebook_init(variant: str) -> str:
    """The notebook draws N(0, 1) for its own implementations and uses torch's initialisation for nn.Linear."""
    return "torch" if variant == "torch_nn" else "notebook"


class Refused(BaseException):
    """Carries an error past Hydra's `except Exception`."""


def parse(cfg: DictConfig) -> schema.Config:
    """The typed configuration of one job, checked by `checks.parse`; interpolations are resolved here."""
    job = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]) if "hydra" in cfg else cfg
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


def run(main: Callable[[], Any], *, no_sweep: str = "") -> NoReturn:
    """Call a Hydra main and exit with the right code and at most one line on stderr for each problem.

    Args:
        no_sweep: why `-m` is refused, for which Hydra would make a directory.
    """
    verbose = exit_codes.wants_traceback()
    os.environ[exit_codes.FULL_ERROR] = "1"  # Hydra then raises its errors, and `_exit_lines` describes them

    if _completes_value(sys.argv[1:]):
        sys.exit(0)

    def call_hydra() -> None:
        refused: BaseException | None = None
        with signals.interruptible():
            is_sweep = not _MULTIRUN.isdisjoint(sys.argv)
            if is_sweep and no_sweep:
                raise UserError(f"{no_sweep}; leave -m out")
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

    exit_codes.run(call_hydra, verbose=verbose, describe=_exit_lines)


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
    shell = next((argument.removeprefix("query=") for argument in arguments if argument.startswith("query=")), None)
    line = os.environ.get("COMP_LINE", "")
    if shell is None or not {"-sc", "--shell-completion"} & set(arguments) or not line or line[-1].isspace():
        return False
    override = parse_override(line.split()[-1])
    choices = schema.choices().get(override.key)
    if choices is None or override.value_text is None:
        return False
    earlier_values, comma, prefix = override.value_text.rpartition(",")  # of a sweep
    start = override.text.removesuffix(override.value_text) + earlier_values + comma
    completions = [f"{start}{choice}" for choice in choices if choice.startswith(prefix)]
    print(("\n" if shell == "fish" else " ").join(completions))
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


def _exit_lines(error: BaseException) -> exit_codes.ExitLines | None:
    """Exit code and messages for an error of Hydra."""
    lines = problems(error, sys.argv[1:])
    return None if lines is None else (2, lines)


def _raised_by_hydra(error: BaseException) -> bool:
    """Whether Hydra's own code raised it: such a ValueError is about a choice of files, e.g. optimizer=3."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith("hydra.")
