"""The memory that runs of a stack take, and what a device has left for them. Imports torch only to query a GPU."""

from collections.abc import Mapping
from typing import Any

from mlpexp.nn.layers import Dropout, Linear
from mlpexp.nn.network import NetworkSpec
from mlpexp.nn.normalisation import Norm

FLOAT, INDEX = 4, 8  # bytes
COPIES = 4  # of the parameters: weights, gradients, best epoch, optimizer state
DEVICE_COPIES = 7  # also the last epoch, a second tensor of state, and a step's new values
DEVICE_SHARE = 0.4  # of a device's free memory for one stack: allocators round, and other programs may need some
CUDA = ("cuda", "gpu", "auto")  # names of accelerators that may be a GPU


def parameter_bytes(network: NetworkSpec) -> int:
    """Bytes of one run's parameters."""
    return FLOAT * network.num_parameters


def bytes_per_run(network: NetworkSpec, samples: int, batch_size: int, *, is_weighted: bool) -> int:
    """Bytes of a run on the CPU: parameters, an epoch's order, labels and outcomes, a batch's activations."""
    per_sample = 2 * INDEX + INDEX + FLOAT + 1 + (INDEX if is_weighted else 0)
    return COPIES * parameter_bytes(network) + samples * per_sample + _batch_bytes(network, batch_size)


def device_bytes_per_run(network: NetworkSpec, samples: int, evaluated: int, batch_size: int) -> int:
    """Bytes of a run on a GPU, which holds an epoch's index, labels, losses and predictions by sample and by step."""
    per_sample = 2 * (4 * INDEX + 2 * FLOAT)
    return (
        DEVICE_COPIES * parameter_bytes(network)
        + (samples + evaluated) * per_sample
        + 2 * _batch_bytes(network, batch_size)  # the last, smaller batch has buffers of its own
    )


def free_device_bytes(accelerator: str, flags: Mapping[str, Any] = {}) -> int | None:
    """Bytes for one stack on the GPU that a Trainer with these flags uses; None where it uses none."""
    if accelerator not in CUDA:
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    devices = flags.get("devices")
    index = devices[0] if isinstance(devices, list | tuple) and devices else 0
    free, _ = torch.cuda.mem_get_info(index)
    return int(DEVICE_SHARE * free)


def _batch_bytes(network: NetworkSpec, batch_size: int) -> int:
    # values, gradients and masks or copies of a normalisation or a dropout layer
    extra_units = sum(4 * layer.units for layer in network.layers if isinstance(layer, Norm | Dropout))
    # the two halves of gated units with their gradients, and the gate with its argument and gradient
    extra_units += sum(5 * layer.outputs for layer in network.layers if isinstance(layer, Linear) and layer.chunks > 1)
    units = sum(network.sizes) if network.user_module is None else network.units
    return FLOAT * (3 * units + extra_units) * batch_size
