"""An estimate of the memory that a network needs, before anything is built."""

from collections.abc import Iterator
from dataclasses import replace

from mlpexp.config.model_config import ModelConfig
from mlpexp.config.overrides import spell
from mlpexp.data.data_sets import Sizes
from mlpexp.runtime import portable


def problems(model: ModelConfig, sizes: Sizes) -> Iterator[str]:
    """One sentence if training the network on data of these sizes needs more memory than there is."""
    if model.target is not None:  # it is built to be checked
        return
    needed, available = memory_needed(model, sizes), portable.total_memory()
    if needed > available:
        depth = "" if model.depth is None else f"model.depth={model.depth} "
        parameters = num_parameters(model, sizes.features, sizes.classes)
        yield (
            f"{depth}model.width={spell(model.width)} makes {parameters:,} parameters and would need about "
            f"{needed / 2**30:,.0f} GiB of memory; this machine has {available / 2**30:,.0f}, so choose a smaller "
            "network, e.g. model.depth=2 model.width=64"
        )


def memory_needed(model: ModelConfig, sizes: Sizes) -> int:
    """A rough upper estimate in bytes of what training takes, without building anything."""
    depth = model.num_hidden
    if isinstance(model.width, list):
        widest, units = max(model.width, default=0), sum(model.width)
    else:
        widest, units = model.width, depth * model.width
    # weights, gradients, two of the optimizer, the checkpoints of the best and of the last epoch, one more to write
    numbers = 7 * num_parameters(model, sizes.features, sizes.classes)
    numbers += 2 * sizes.samples * widest + 5 * 256 * units  # evaluation in one piece, and the layers' diagnostics
    return 4 * numbers + 20_000 * depth  # Python objects


def num_parameters(model: ModelConfig, inputs: int, classes: int) -> int:
    """The number of parameters of the network, without building it; for an int `width` at no cost by depth."""
    depth = model.num_hidden
    without_dropout = replace(model, dropout=0.0)  # a list may have another length
    if isinstance(model.width, list) or depth <= 3:
        return without_dropout.network(inputs, classes).num_parameters
    # every further hidden layer adds as many parameters as the third
    two, three = (replace(without_dropout, depth=d).network(inputs, classes).num_parameters for d in (2, 3))
    return two + (depth - 2) * (three - two)
