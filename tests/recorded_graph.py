"""A CUDA graph's stand-in on the CPU: records the operations of some work, and runs the same ones again.

As with a real graph, recording does not run the work, and a replay uses the recorded tensors and Python numbers.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class RecordedGraphs:
    """See `mlpexp.engine.torch.captured_engine.CudaGraphs`; counts what it does."""

    def __init__(self) -> None:
        self.warm_ups = self.captures = self.replays = 0

    def warm_up(self, work: Callable[[], None]) -> None:
        self.warm_ups += 1
        work()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        self.captures += 1
        recorder = _Recorder()
        with recorder:
            work()
        recorder.restore()

        def replay() -> None:
            self.replays += 1
            recorder.replay()

        return replay


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, ...]] = []
        self.made: set[int] = set()  # addresses of memory that the work allocated
        self.before: dict[int, tuple[Tensor, Tensor]] = {}  # other memory, as it was

    def __torch_dispatch__(self, function: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default):
            raise RuntimeError("operation not permitted when stream is capturing")
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor):
                memory = tensor.untyped_storage()
                if memory.data_ptr() not in self.made and memory.data_ptr() not in self.before:
                    self.before[memory.data_ptr()] = tensor, memory.clone()
        results = function(*args, **kwargs)
        outputs = [one for one in tree_leaves(results) if isinstance(one, Tensor)]
        for output in outputs:
            if output.untyped_storage().data_ptr() not in self.before:
                self.made.add(output.untyped_storage().data_ptr())
        self.operations.append((function, args, kwargs, outputs))
        return results

    def restore(self) -> None:
        for tensor, memory in self.before.values():
            tensor.untyped_storage().copy_(memory)

    @torch.no_grad()
    def replay(self) -> None:
        for function, args, kwargs, outputs in self.operations:
            again = [one for one in tree_leaves(function(*args, **kwargs)) if isinstance(one, Tensor)]
            for output, new in zip(outputs, again, strict=True):
                if output.data_ptr() != new.data_ptr():
                    output.copy_(new)
