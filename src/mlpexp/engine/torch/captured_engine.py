"""A stack on a GPU: a whole epoch of training captured once as a CUDA graph, and replayed.

A step of many small networks is some 25 kernels of microseconds, and launching them one by one from Python takes longer
than running them. A graph launches an epoch's kernels at once. What a graph replays is fixed: kernels, addresses and
all numbers that Python computed. So what may differ between epochs (order, labels, learning rates) is copied into
tensors that stay, and steps that compute with their number in Python are not captured.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mlpexp.engine.interface import Epoch
from mlpexp.engine.torch.engine import Engine
from mlpexp.nn.optimizers import OPTIMIZERS, UpdateSettings
from mlpexp.nn.outcomes import Outcomes


class CudaGraphs:
    """Captures work on a device by `torch.cuda.graph`."""

    def warm_up(self, work: Callable[[], None]) -> None:
        """Run the work once where it may be captured later, so that libraries have set up what they need."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            work()
        torch.cuda.current_stream().wait_stream(side)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record the work's kernels without running them; returns what runs them.

        Raises:
            RuntimeError: the work cannot be captured.
        """
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        return graph.replay


class _Capture(NamedTuple):
    """A captured epoch.

    Attributes:
        kind: equal for all epochs that it can replay.
        buffers: the tensors that it reads.
        outcomes: overwritten by each replay.
    """

    kind: object
    buffers: Epoch
    replay: Callable[[], None]
    steps: int
    outcomes: Outcomes


class CapturedEngine(Engine):
    """`Engine` for a GPU. The first epoch is plain, the second is captured, and from then on the graph is replayed.

    The epoch after runs have left is plain again, and the one after that is captured again.

    Args:
        graphs: captures and replays; by default CUDA graphs.

    Attributes:
        plain_reason: why epochs are not captured; None where they are.
    """

    def __init__(self, *, graphs: CudaGraphs | None = None, **arguments: Any) -> None:
        self._graphs = graphs or CudaGraphs()
        self._warm: object = None  # the kind of the latest epoch, where it was plain
        self._captured: _Capture | None = None
        super().__init__(**arguments)
        self.plain_reason = cannot_be_captured(arguments["update"])

    def _set_parameters(self, parameters: dict[str, Tensor]) -> None:
        self._warm = self._captured = None  # a graph holds the addresses of the former ones
        super()._set_parameters(parameters)
        if OPTIMIZERS[self._settings.name].can_be_captured:
            self._optimizer.count_on_device()

    def train_epoch(self, epoch: Epoch) -> None:
        """See `StackEngine`."""
        train, device = super().train_epoch, epoch.inputs.device
        if self.plain_reason is not None:
            train(epoch)
            return
        lr = epoch.lr.to(device) if isinstance(epoch.lr, Tensor) else [row.to(device) for row in epoch.lr]
        epoch = epoch._replace(lr=lr)
        is_given, layout = (
            [tensor is not None for tensor in epoch],
            [(tensor.shape, tensor.dtype) for tensor in _changing(epoch)],
        )
        kind = epoch.batch_size, epoch.inputs.data_ptr(), epoch.inputs.shape, is_given, layout
        for step in self._steps.values():
            step.begin_epoch(self.num_steps // -(-epoch.order.shape[-1] // epoch.batch_size))
        if self._captured is None or self._captured.kind != kind:
            if self._warm != kind:
                self._graphs.warm_up(lambda: train(epoch))
                self._warm = kind
                return
            self._captured = self._capture(epoch, kind, train)
        if self._captured is None:
            train(epoch)
        else:
            self._replay(self._captured, epoch)

    def _capture(self, epoch: Epoch, kind: object, train: Callable[[Epoch], None]) -> _Capture | None:
        """The captured epoch; None, with a `plain_reason`, where that is impossible."""
        copies: dict[str, Any] = {
            name: tensor.clone()
            for name, tensor in epoch._asdict().items()
            if isinstance(tensor, Tensor) and name != "inputs"
        }
        if not isinstance(epoch.lr, Tensor):
            copies["lr"] = [row.clone() for row in epoch.lr]
        buffers = epoch._replace(**copies)
        before = self.num_steps
        try:
            replay = self._graphs.capture(lambda: train(buffers))
            return _Capture(kind, buffers, replay, self.num_steps - before, self.train_outcomes)
        except RuntimeError as error:  # a kernel that synchronises, or too little memory for a second epoch
            self.plain_reason = f"an epoch cannot be captured: {str(error).splitlines()[0]}"
            return None
        finally:
            self.num_steps = before

    def _replay(self, captured: _Capture, epoch: Epoch) -> None:
        for buffer, values in zip(_changing(captured.buffers), _changing(epoch), strict=True):
            buffer.copy_(values, non_blocking=True)
        captured.replay()
        self.num_steps += captured.steps
        self.train_outcomes = captured.outcomes


def _changing(epoch: Epoch) -> list[Tensor]:
    """The tensors that may differ between epochs: all but the inputs, of which a graph holds the address."""
    rates = [epoch.lr] if isinstance(epoch.lr, Tensor) else list(epoch.lr)
    optional_tensors = epoch.labels, epoch.order, epoch.class_weights, epoch.sample_weights, epoch.first_rows
    return rates + [tensor for tensor in optional_tensors if tensor is not None]


def cannot_be_captured(update: UpdateSettings) -> str | None:
    """Why the epochs of a stack with these updates cannot be captured; None where they can, as far as is known."""
    if not OPTIMIZERS[update.name].can_be_captured:
        return f"the steps of {update.name} compute with the number of steps"
    return "an average of the weights counts the steps" if update.extras.keys() & {"ema_decay", "swa_start"} else None
