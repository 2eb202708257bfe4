"""Checks of the keys of the network, with and without the data that it is for."""

from collections.abc import Iterator

from mlpexp import data
from mlpexp.config import loss_checks, memory_checks, user_network
from mlpexp.config.overrides import spell
from mlpexp.config.schema import Config
from mlpexp.data.data_sets import DATA_SETS, Sizes
from mlpexp.nn.initialisation import INITIALISERS
from mlpexp.runtime.errors import UserError


def problems(cfg: Config) -> Iterator[str]:
    model = cfg.model
    if isinstance(model.width, list) and model.depth not in (None, len(model.width)):
        yield (
            f"model.depth={model.depth} and model.width={spell(model.width)} disagree: the list has "
            f"{len(model.width)} layers; leave model.depth out, or give model.depth={len(model.width)}"
        )
        return
    if model.target is not None:  # `user_network` has checks of its own
        return
    yield from _layers(cfg)
    if model.parametrization == "mup" and not INITIALISERS[model.init].scales_with_fan_in:
        fitting = [name for name, init in INITIALISERS.items() if init.scales_with_fan_in]
        yield (
            f"model.parametrization=mup needs an initialisation whose variance is a constant over the fan-in, which "
            f"model.init={model.init} is not; choose one of {', '.join(fitting)}, e.g. model.init=torch"
        )
    # of a table that has to be read first, `check_data` checks the rest
    sizes = DATA_SETS[cfg.data.name].sizes(cfg.data)
    yield from memory_checks.problems(model, sizes or Sizes(1, 2, 1))
    if sizes is not None:
        yield from loss_checks.few_classes(cfg, sizes.classes)


def _layers(cfg: Config) -> Iterator[str]:
    model = cfg.model
    depth = model.num_hidden
    if isinstance(model.dropout, list) and len(model.dropout) != depth:
        yield (
            f"model.dropout={spell(model.dropout)} has {len(model.dropout)} rates for {depth} hidden layers; give "
            "one for each, or one number for all, e.g. model.dropout=0.2"
        )
    if model.norm_position != "pre" and model.norm == "none":
        yield "model.norm_position needs a norm, e.g. model.norm=layer; or leave it out"
    if model.norm == "batch" and cfg.data.batch_size == 1:
        yield (
            "model.norm=batch needs more than one sample in a batch, which data.batch_size=1 has not; set "
            "data.batch_size=32, or model.norm=layer"
        )
    if not model.bias and model.sigma_b:
        yield "model.sigma_b needs biases; leave it out with model.bias=false"
    if not model.residual and model.block_depth != 1:
        yield "model.block_depth needs model.residual=true; or leave it out"
    if model.residual and isinstance(hidden := model.width, list):
        size = model.block_depth
        # the first block may begin with another number of inputs, and has no skip then
        for start in range(size, len(hidden) - size + 1, size):
            if hidden[start - 1] != hidden[start + size - 1]:
                yield (
                    f"model.residual=true needs equal widths: the block of the hidden layers {start + 1} to "
                    f"{start + size} has {hidden[start - 1]} inputs and {hidden[start + size - 1]} outputs in "
                    f"model.width={spell(model.width)}; give equal numbers, or another model.block_depth"
                )


def check_data(cfg: Config) -> str | None:
    """Read and prepare a data set whose sizes are not known before, and check that the network fits.

    Returns:
        what was read, in one line; None where it was known before.

    Raises:
        UserError: the data cannot be used, or the network needs more memory than there is.
    """
    if DATA_SETS[cfg.data.name].sizes(cfg.data) is not None:
        return None
    prepared = data.prepare(cfg.data)
    sizes = Sizes(prepared.num_inputs, prepared.num_classes, len(prepared.labels))
    user_network.check(cfg, sizes)
    for problem in (*loss_checks.few_classes(cfg, sizes.classes), *memory_checks.problems(cfg.model, sizes)):
        raise UserError(problem)
    return prepared.summary
