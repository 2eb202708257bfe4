"""A stack on a GPU: a whole epoch of training captured once as a CUDA graph, and replayed.

A step of many small networks is some 25 kernels of microseconds, and launching them one by one from Python takes longer
than running them. A graph launches an epoch's kernels at once. What a graph replays is fixed: kernels, addresses and
all numbers that Python computed. So what may differ between epochs (order, labels, learning rates) is copied into
tensors that stay, and only optimizers whose steps do not compute with Python numbers of the step are captured.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from mlpexp.engine.torch.engine import Engine
from mlpexp.nn.layers import Activate, Gate, Linear
from mlpexp.nn.losses import CROSS_ENTROPY
from mlpexp.nn.network import NetworkSpec
from mlpexp.nn.optimizers import UpdateSettings
from mlpexp.nn.outcomes import Outcomes

# optimizers whose steps are the same kernels with the same numbers in every epoch; the bias correction of Adam and its
# kin is a number that Python computes from the count of steps
CAPTURED_OPTIMIZERS = ("sgd", "signsgd", "lion", "rmsprop", "adagrad")


class Graphs(Protocol):
    """What captures work on a device."""

    def warm_up(self, work: Callable[[], None]) -> None:
        """Run the work once where it may be captured later, so that libraries have set up what they need."""

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record the work's kernels without running them; returns what runs them.

        Raises:
            RuntimeError: the work cannot be captured.
        """


class CudaGraphs:
    """`torch.cuda.graph`."""

    def warm_up(self, work: Callable[[], None]) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            work()
        torch.cuda.current_stream().wait_stream(side)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        return graph.replay


class CapturedEngine(Engine):
    """`Engine` for a GPU. The first epoch is plain, the second is captured, and from then on the graph is replayed.

    The epoch after runs have left is plain again, and the one after that is captured anew.

    Args:
        graphs: what captures.

    Attributes:
        plain_reason: why epochs are not captured; None where they are.
    """

    def __init__(self, *, graphs: Graphs | None = None, **arguments: Any) -> None:
        self._graphs = graphs or CudaGraphs()
        self._warm: object = None  # the kind of the latest epoch, where it was plain
        self._captured: tuple[object, _Epoch] | None = None
        super().__init__(**arguments)
        self.plain_reason = cannot_be_captured(arguments["networks"], arguments["update"])
        loss = arguments.get("loss", CROSS_ENTROPY)
        if self.plain_reason is None and loss != CROSS_ENTROPY:
            self.plain_reason = f"the loss {loss.name!r} is differentiated by autograd"

    def _set_parameters(self, parameters: dict[str, Tensor]) -> None:
        self._warm = self._captured = None  # a graph holds the addresses of the former ones
        super()._set_parameters(parameters)

    def train_epoch(
        self,
        inputs: Tensor,
        labels: Tensor,
        order: Tensor,
        batch_size: int,
        lr: Tensor | Sequence[Tensor],
        **tensors: Tensor | None,
    ) -> None:
        """See `StackEngine`."""
        if self.plain_reason is not None:
            super().train_epoch(inputs, labels, order, batch_size, lr, **tensors)
            return
        given = {name: one for name, one in tensors.items() if one is not None}
        rates = [lr] if isinstance(lr, Tensor) else list(lr)
        changing = [order, labels, *given.values(), *(row.to(inputs.device) for row in rates)]
        # of the inputs the graph holds the address
        kind = batch_size, inputs.data_ptr(), inputs.shape, list(given), [(one.shape, one.dtype) for one in changing]
        if self._captured is not None and self._captured[0] == kind:
            self._replay(self._captured[1], changing)
            return

        def train(own: Sequence[Tensor]) -> None:
            stop = 2 + len(given)
            own_rates = own[stop] if isinstance(lr, Tensor) else own[stop:]
            own_tensors = dict(zip(given, own[2:stop], strict=True))
            Engine.train_epoch(self, inputs, own[1], own[0], batch_size, own_rates, **own_tensors)

        if self._warm != kind:
            self._graphs.warm_up(lambda: train(changing))
            self._warm = kind
            return
        epoch = _Epoch(changing, inputs)
        before = self.num_steps
        try:
            epoch.replay = self._graphs.capture(lambda: train(epoch.buffers))
        except RuntimeError as error:  # a kernel that synchronises, or too little memory for a second epoch
            self.plain_reason = f"an epoch cannot be captured: {str(error).splitlines()[0]}"
            self.num_steps = before
            super().train_epoch(inputs, labels, order, batch_size, lr, **tensors)
            return
        epoch.steps, epoch.outcomes = self.num_steps - before, self.train_outcomes
        self.num_steps = before
        self._captured = kind, epoch
        self._replay(epoch, changing)

    def _replay(self, epoch: "_Epoch", changing: Sequence[Tensor]) -> None:
        for buffer, values in zip(epoch.buffers, changing, strict=True):
            buffer.copy_(values, non_blocking=True)
        epoch.replay()
        self.num_steps += epoch.steps
        self.train_outcomes = epoch.outcomes


class _Epoch:
    """A captured epoch.

    Attributes:
        buffers: what it reads beside the inputs and the parameters: order, labels, learning rates, ...
        inputs: kept alive, because the graph reads their memory.
        outcomes: overwritten by each replay.
    """

    replay: Callable[[], None]
    steps: int
    outcomes: Outcomes

    def __init__(self, changing: Sequence[Tensor], inputs: Tensor) -> None:
        self.buffers = [one.clone() for one in changing]
        self.inputs = inputs


def cannot_be_captured(networks: Sequence[NetworkSpec], update: UpdateSettings) -> str | None:
    """Why the epochs of a stack cannot be captured; None where they can, as far as is known beforehand."""
    if update.name not in CAPTURED_OPTIMIZERS:
        return f"the steps of {update.name} compute with the number of steps"
    kinds = {type(layer) for network in set(networks) for layer in network.layers}
    if others := sorted(kind.__name__ for kind in kinds - {Linear, Activate, Gate}):
        return f"layers of the kinds {', '.join(others)}"
    return "clipping or averaging" if getattr(update, "extras", {}) else None
