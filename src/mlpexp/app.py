"""Between Hydra and mlpexp: what `scripts/train.py` needs before anything heavy is imported.

Registers the schema and the names of directories, words Hydra's errors for a person, and turns
every outcome into an exit code: 0 done, 1 failed, 2 the user's error, 130 interrupted, 143 terminated.
"""

import os
import re
import sys
import traceback
from collections.abc import Callable
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, OverrideParseException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from mlpexp import checks, config, naming
from mlpexp.app_help import help_template
from mlpexp.errors import Interrupted, UserError

FULL_ERROR = "HYDRA_FULL_ERROR"
GROUPS = ("data", "optimizer", "trainer", "experiment", "hydra/launcher", "hydra/sweeper")


def register() -> None:
    """Give Hydra the base configuration and the resolvers that `conf/train.yaml` uses."""
    ConfigStore.instance().store(name="schema", node=config.defaults())
    now = datetime.now()

    def sweep_name(name: str | None) -> str:
        return naming.safe_component(str(name)) if name is not None else f"{now:%Y-%m-%d/%H-%M-%S}"

    resolvers: dict[str, Callable[..., Any]] = {
        "mlpexp.run_dir": lambda resume: resume or f"outputs/{now:%Y-%m-%d}/{now:%H-%M-%S}",
        "mlpexp.sweep_name": sweep_name,
        "mlpexp.run_name": lambda overrides: naming.run_name(overrides),
        # a resumed run keeps the configuration that it was started with
        "mlpexp.output_subdir": lambda resume: None if resume else ".hydra",
        # the notebook draws N(0, 1) by hand, and leaves torch's layers to torch
        "mlpexp.notebook_init": lambda variant: "torch" if variant == "torch_nn" else "notebook",
        "mlpexp.help": help_template,
    }
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)


class CheckFirst(Callback):
    """Refuses a bad configuration before Hydra creates the run's directory."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        try:
            cfg = parse(config)
            if cfg.resume is None:
                refuse_used(Path(str(config.hydra.run.dir)))
            else:
                from mlpexp import resume

                resume.find(cfg, list(config.hydra.overrides.task))
            if cfg.trainer.accelerator not in ("cpu", "auto"):
                from mlpexp import training

                training.check_accelerator(cfg.trainer.accelerator)
        except Exception as error:
            # Hydra turns a callback's exceptions into warnings; nothing may pass this door
            raise _Refused(error) from error


class _Refused(BaseException):
    """Carries an error through Hydra's `except Exception`."""


def refuse_used(directory: Path) -> None:
    """A directory that holds a run, or something else, is not written into.

    Raises:
        UserError: `directory` is a file, or holds files.
    """
    if directory.is_file():
        raise UserError(f"{directory} is a file; give a directory, e.g. hydra.run.dir=outputs/mine")
    if directory.is_dir() and any(directory.iterdir()):
        raise UserError(
            f"{directory} is not empty; choose another hydra.run.dir, "
            f"or continue the run that is there with resume={directory}"
        )


def parse(cfg: DictConfig) -> config.Config:
    """The typed, checked configuration of one job; interpolations are resolved here.

    Raises:
        UserError: an interpolation has no value.
        ConfigError: see `checks.parse`.
    """
    job = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    try:
        plain = OmegaConf.to_container(job, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(_interpolation(error)) from error
    return checks.parse(plain)  # type: ignore[arg-type]


def run(main: Callable[[], Any]) -> NoReturn:
    """Call a Hydra main and leave with the right exit code and at most one line on stderr a problem."""
    verbose = os.environ.get(FULL_ERROR) == "1"
    os.environ[FULL_ERROR] = "1"  # Hydra then raises its errors, and we word them
    try:
        main()
        if _failure:
            raise _failure.pop()
        code = 0
    except BaseException as error:  # every way out ends in a code
        if isinstance(error, SystemExit):
            raise
        cause = error.__cause__ if isinstance(error, _Refused) and error.__cause__ else error
        if verbose:
            traceback.print_exception(cause)
        code = _report(cause, verbose)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


_failure: list[BaseException] = []


def fail(error: BaseException) -> None:
    """End the program with this error once Hydra has come to its own end.

    Raised inside the job, it would be announced by Hydra in words of its own first.
    """
    _failure.append(error)


def _report(error: BaseException, verbose: bool) -> int:
    def say(line: str) -> None:
        print(f"{Path(sys.argv[0]).name}: {line}", file=sys.stderr)

    match error:
        case Interrupted():
            say(str(error))
            return error.exit_code
        case KeyboardInterrupt():
            say("interrupted")
            return 130
        case BrokenPipeError():
            return 0
        case UserError():
            for line in str(error).splitlines():
                say(line)
            return 2
        case HydraException() | OmegaConfBaseException():
            say(hydra_sentence(error))
            return 2
        case ValueError() if _raised_by_hydra(error):
            say(hydra_sentence(error))
            return 2
        case OSError():
            say(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
            return 1
    hint = "" if verbose else f" (set {FULL_ERROR}=1 for the traceback)"
    say(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}{hint}")
    return 1


def _raised_by_hydra(error: BaseException) -> bool:
    """Whether Hydra's own code raised it: such a ValueError is about a choice of files, e.g. optimizer=3."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith("hydra.")


def hydra_sentence(error: BaseException) -> str:
    """An error of Hydra's or OmegaConf's, in our words."""
    text = str(error)
    if isinstance(error, OverrideParseException):
        reason = re.search(r"Error parsing override '.*'\n(.*)", text)
        why = f": {reason[1]}" if reason and "EQUAL" not in reason[1] else ""
        return f"cannot read the override '{error.override}'{why}; write key=value, e.g. model.depth=2"
    if match := re.search(r"Could not (?:override|append|find) '([^']+)'[^\n]*No match in the defaults list", text):
        return _unknown_group(match[1])
    if match := re.search(r"Could not delete '([^']+)'. No match in the defaults list", text):
        return f"~{match[1]} deletes a choice that is not made; leave it out"
    if match := re.search(r"Multiple values for (\S+)\.", text):
        return f"{match[1]} is chosen twice; to choose another, leave out the +: {match[1]}=…"
    if match := re.search(r"Could not (override|delete)[^']*'([^'=]+)", text):
        key = match[2].lstrip("+~")
        if match[1] == "delete" and key in (known for known, _, _ in config.keys()):
            return f"~{key} deletes nothing: {key} is null, or has another value than the one given"
        return _unknown_group(key) if get_close_matches(key, GROUPS, n=1) else checks.unknown_key(key)
    if match := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        options = getattr(error, "options", None) or []
        close = get_close_matches(match[2], options, n=1) or options[:1]
        example = f", e.g. {match[1]}={close[0]}" if close else ""
        return f"unknown {match[1]} '{match[2]}'; choose one of {', '.join(options)}{example}"
    if match := re.search(r"Ambiguous value for argument '([^']+)'", text):
        key, _, value = match[1].partition("=")
        return f"'{match[1]}' is a list: add -m to sweep over it, or write '{key}=[{value}]' for one list"
    if isinstance(error, OmegaConfBaseException):
        return _interpolation(error)
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        return _interpolation(cause)
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def _unknown_group(given: str) -> str:
    group, _, option = given.partition("=")
    close = get_close_matches(group, GROUPS, n=1)
    keys = [key for key, _, _ in config.keys()]
    if not close and get_close_matches(group, keys, n=1):
        return checks.unknown_key(group)
    hint = f"did you mean {close[0]}={option or '…'}?" if close else f"the groups are {', '.join(GROUPS)}"
    return f"unknown config group '{group}'; {hint}"


def _interpolation(error: OmegaConfBaseException) -> str:
    first = str(error).splitlines()[0]
    key = getattr(error, "full_key", None)
    where = f"{key}: " if key else ""
    if isinstance(error, InterpolationKeyError):
        return f"{where}{first}; name a key that exists, e.g. ${{model.width}}"
    if match := re.search(r"Environment variable '([^']+)' not found", first):
        return f"{where}environment variable {match[1]} is not set; set it, or write ${{oc.env:{match[1]},DEFAULT}}"
    return f"{where}{first}"
