"""Checks of a configuration with a user-defined network (`model._target_`)."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from mlpexp.config.model_config import ModelConfig
from mlpexp.config.overrides import spell
from mlpexp.config.schema import Config
from mlpexp.data.data_sets import DATA_SETS, Sizes
from mlpexp.nn.user_class import arguments_of, load, takes_any
from mlpexp.nn.user_module import UserModule
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.user_imports import add_to_search_path

COMPUTED = {"arguments", "source"}
OWN = {"variant", "_target_", "options", *COMPUTED}
OF_LAYERS = ("effective_rank", "cka")  # measures that need the last hidden layer
_DEFAULTS = {field.name: getattr(ModelConfig(), field.name) for field in fields(ModelConfig)}


def typed_arguments(model: Mapping[str, Any]) -> dict[str, Any]:
    """The group `model` as it was typed, with keys that mlpexp does not know below `arguments`."""
    typed = _DEFAULTS.keys() - COMPUTED - {"options"}  # which is an argument like any other, where it is given
    model_keys = {key: value for key, value in model.items() if key in typed}
    arguments = {key: value for key, value in model.items() if key not in typed and (key, value) != ("options", {})}
    return model_keys | ({"arguments": arguments} if arguments else {})


def settled(cfg: Config, home: Path) -> tuple[Config, list[str]]:
    """The same with the arguments of the class, and the digest of its source; and what is wrong, in a line each.

    Nothing changes for other networks. Keys of `model` that are arguments of the class are among its arguments.

    Args:
        home: the directory in which the program was started; modules are looked for there, too.
    """
    model = cfg.model
    if model.target is None:
        return cfg, []
    problems = list(_other_keys(cfg))
    try:
        add_to_search_path(home)
        cls, source = load(model.target)
        parameters = arguments_of(cls)
    except UserError as error:
        return cfg, [*problems, str(error)]
    except (TypeError, ValueError) as error:
        return cfg, [*problems, f"model._target_={model.target}: its arguments are not known: {error}"]
    shared = {key: value for key, value in _DEFAULTS.items() if key in parameters and key not in OWN}
    arguments = dict(model.arguments)
    for key in shared:
        if (value := getattr(model, key)) is not None:
            arguments[key] = value
    changed = {key for key, default in _DEFAULTS.items() if getattr(model, key) != default} - shared.keys() - OWN
    unknown = [] if takes_any(cls) else [key for key in model.arguments if key not in parameters]
    foreign = sorted({*changed, *unknown})
    names = (
        ", ".join(name for name, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD)
        or "none"
    )
    for key in foreign:
        problems.append(f"model.{key}: model._target_={model.target} has no argument {key}; it has {names}")
    tracking = cfg.tracking if cfg.tracking.diagnostics is not None else replace(cfg.tracking, diagnostics=False)
    completed = replace(cfg, model=replace(model, arguments=arguments, source=source), tracking=tracking)
    sizes = DATA_SETS[cfg.data.name].sizes(cfg.data)
    if sizes is not None and not foreign:
        try:
            check(completed, sizes)
        except UserError as error:
            problems.append(str(error))
    return completed, problems


def check(cfg: Config, sizes: Sizes) -> None:
    """Build the user's network for data of these sizes, and try it.

    Raises:
        UserError: it cannot be built, or not be trained with these settings.
    """
    module = cfg.model.network(sizes.features, sizes.classes).user_module
    if module is None:
        return
    facts = module.facts
    if facts.buffers and (cfg.ema.decay is not None or cfg.swa.start is not None):
        key = "ema.decay" if cfg.ema.decay is not None else "swa.start"
        raise UserError(
            f"{key} is not possible with model._target_={module.target}: {next(iter(facts.buffers))} belongs to the "
            "weights, not to their average; leave it out"
        )
    if cfg.prune.fraction is not None and not module.matrices:
        raise UserError(f"prune.fraction needs weight matrices, and model._target_={module.target} has none")


def stack_obstacle(cfg: Config, sizes: Sizes) -> str | None:
    """Why the user's network cannot be trained in a stack; None where it can, or is mlpexp's own."""
    module: UserModule | None = cfg.model.network(sizes.features, sizes.classes).user_module
    return None if module is None else module.facts.stack_obstacle


def _other_keys(cfg: Config) -> Iterator[str]:
    """Keys of other groups that need to know the layers."""
    target = f"model._target_={cfg.model.target}"
    if cfg.model.variant != "torch_nn":
        yield f"model.variant={cfg.model.variant} is for mlpexp's own network; leave it out with {target}"
    if cfg.stack.threads not in (None, 1):
        yield (
            f"stack.threads={cfg.stack.threads} is not possible with {target}; several stacks are trained at once with "
            "hydra.launcher.backend=fork hydra.launcher.workers=2"
        )
    if cfg.tracking.diagnostics:
        yield f"tracking.diagnostics=true needs mlpexp's own layers; leave it out with {target}"
    if names := [name for name in cfg.diagnostics if name in OF_LAYERS]:
        yield f"diagnostics={spell(names)} needs mlpexp's own layers; leave it out with {target}"
    if cfg.trainer.flags.get("strategy") is not None:
        yield f"trainer.strategy is for mlpexp's own network; leave it out with {target}"
