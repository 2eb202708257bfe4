"""The matrix products of one layer of a stack, each with the bits that `nn.Linear` gives a run alone.

A batched product is fast, but the library that computes it (MKL) chooses its kernel, and so the order of summation,
by shape, number of threads and even address of a matrix, and differently for a batch of matrices than for one. So each
product of each shape is tested once: it is batched where that gives the bits of a new matrix alone. Otherwise it is
computed run by run, with every matrix at an address that a new tensor could have: the same call with the same memory
layout, and so the same bits.

Letters: R runs, B batch, I inputs, O outputs of the layer.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

ALIGNMENT = 64  # bytes; torch's CPU allocator places every tensor at a multiple
TESTED_RUNS = 16  # the addresses of a stack's float32 matrices, modulo ALIGNMENT, repeat after at most 16
TESTED_SUMS = 8192  # per product: two orders of a sum of three differ in one result of ten or so
LARGE_PRODUCT = 1 << 22  # multiplications in one run's product above which batching is not faster
LARGE_MATRIX = 1 << 18  # elements in its matrices above which a test would need much memory


class Plan(NamedTuple):
    """For one shape: which of the layer's products may be batched."""

    forward: bool
    weight: bool
    bias: bool
    input: bool


BATCHED = Plan(True, True, True, True)
LOOPED = Plan(False, False, False, False)


class Affine:
    """z = x W' + b and its gradients, into given buffers.

    Args:
        weight, bias: (R, O, I), (R, O), contiguous; no bias where it is None.
        inputs: (R, B, I), contiguous, or one (B, I) expanded over the runs.
        outputs: (R, B, O), contiguous.
        gradients: dL/dW, dL/db, dL/dz and dL/dx (the last None for the first layer) in the shapes of W, b, z
            and x; None for a forward pass only.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        inputs: Tensor,
        outputs: Tensor,
        gradients: tuple[Tensor, Tensor | None, Tensor, Tensor | None] | None = None,
    ) -> None:
        plan = BATCHED
        if weight.device.type == "cpu":
            plan = _plan(
                len(weight),
                inputs.shape[1],
                weight.shape[2],
                weight.shape[1],
                shared=inputs.stride(0) == 0,
                biased=bias is not None,
                backward=gradients is not None,
                dtype=weight.dtype,
            )
        self.forward = _product(inputs, weight.mT, outputs, batched=plan.forward, bias=bias)
        self._backward: list[Callable[[], object]] = []
        if gradients is not None:
            grad_weight, grad_bias, grad_outputs, grad_inputs = gradients
            self._backward = [_product(grad_outputs.mT, inputs, grad_weight, batched=plan.weight)]
            if grad_bias is not None:
                self._backward.append(_column_sum(grad_outputs, grad_bias, batched=plan.bias))
            if grad_inputs is not None:
                factors = (grad_outputs, weight, grad_inputs)
                if inputs.shape[1:].numel() == 1:
                    # autograd treats a single number as a transposed matrix, and transposes the product
                    factors = (weight.mT, grad_outputs.mT, grad_inputs.mT)
                self._backward.append(_product(*factors, batched=plan.input))

    def backward(self) -> None:
        """dL/dz has been written; write dL/dW, dL/db and dL/dx."""
        for step in self._backward:
            step()


def _product(a: Tensor, b: Tensor, out: Tensor, *, batched: bool, bias: Tensor | None = None) -> Callable[[], object]:
    """out = a b, plus the bias (R, O) where there is one, for every run."""
    together, alone = (torch.bmm, torch.mm) if bias is None else (torch.baddbmm, torch.addmm)
    if batched:
        return partial(together, *([] if bias is None else [bias.unsqueeze(1)]), a, b, out=out)
    rows_a, rows_b, rows_out = AlignedRows(a), AlignedRows(b), AlignedRows(out)
    operands = [*([] if bias is None else [bias.unbind()]), rows_a.rows, rows_b.rows]
    calls = [partial(alone, *row, out=z) for *row, z in zip(*operands, rows_out.rows, strict=True)]

    def run_by_run() -> None:
        rows_a.load()
        rows_b.load()
        for call in calls:
            call()
        rows_out.store()

    return run_by_run


def _column_sum(a: Tensor, out: Tensor, *, batched: bool) -> Callable[[], object]:
    """out = sum of a over the batch, for every run."""
    if batched:
        return partial(torch.sum, a, 1, out=out)
    calls = [partial(torch.sum, x, 0, out=z) for x, z in zip(a.unbind(), out.unbind(), strict=True)]

    def run_by_run() -> None:
        for call in calls:
            call()

    return run_by_run


class AlignedRows:
    """The matrices of a stack one by one, each at an address that a new tensor could have.

    Attributes:
        rows: one view per run, of the stack itself where its addresses are aligned, of a padded copy otherwise.
    """

    def __init__(self, stack: Tensor) -> None:
        self._stack = stack
        self._copy: Tensor | None = None
        step = stack.stride(0) * stack.element_size()
        if (step % ALIGNMENT or stack.data_ptr() % ALIGNMENT) and len(stack) > 1:
            per_line = ALIGNMENT // stack.element_size()
            padded = -(-stack[0].numel() // per_line) * per_line
            storage = stack.new_empty(len(stack) * padded)
            # each matrix keeps its own strides: a transposed one stays transposed
            self._copy = storage.as_strided(stack.shape, (padded, *stack.stride()[1:]))
        self.rows = (stack if self._copy is None else self._copy).unbind()

    def load(self) -> None:
        if self._copy is not None:
            self._copy.copy_(self._stack)

    def store(self) -> None:
        if self._copy is not None:
            self._stack.copy_(self._copy)


def _plan(
    num_runs: int,
    batch: int,
    inputs: int,
    outputs: int,
    *,
    shared: bool,
    biased: bool,
    backward: bool,
    dtype: torch.dtype,
) -> Plan:
    """Which products of this shape may be batched."""
    if num_runs == 1 or batch * inputs == 1:
        return LOOPED
    if batch * inputs * outputs > LARGE_PRODUCT or batch * max(inputs, outputs) > LARGE_MATRIX:
        return LOOPED
    return _tested_plan(batch, inputs, outputs, shared, biased, backward, dtype, torch.get_num_threads())


@cache
def _tested_plan(
    B: int, I: int, O: int, shared: bool, biased: bool, backward: bool, dtype: torch.dtype, threads: int
) -> Plan:
    """`_plan` by test: batched products of random numbers compared with new matrices alone, bit for bit."""
    generator = torch.Generator().manual_seed(0)
    runs = TESTED_RUNS
    plan = BATCHED
    for _ in range(min(32, -(-TESTED_SUMS // (runs * min(B * I, B * O, O * I))))):
        x = torch.randn(1 if shared else runs, B, I, generator=generator, dtype=dtype).expand(runs, B, I)
        weight = torch.randn(runs, O, I, generator=generator, dtype=dtype)
        bias = torch.randn(runs, O, generator=generator, dtype=dtype)
        gradient = torch.randn(runs, B, O, generator=generator, dtype=dtype)
        forward = torch.empty(runs, B, O, dtype=dtype)
        if biased:
            torch.baddbmm(bias.unsqueeze(1), x, weight.mT, out=forward)
            are_equal = [_equal(forward, lambda r: torch.addmm(bias[r], x[r].clone(), weight[r].clone().t()))]  # noqa: B023
        else:
            torch.bmm(x, weight.mT, out=forward)
            are_equal = [_equal(forward, lambda r: x[r].clone() @ weight[r].clone().t())]  # noqa: B023
        if backward:
            by_weight, by_input = torch.empty_like(weight), torch.empty(runs, B, I, dtype=dtype)
            torch.bmm(gradient.mT, x, out=by_weight)
            torch.bmm(gradient, weight, out=by_input)
            by_bias = gradient.sum(1)
            are_equal += [
                _equal(by_weight, lambda r: gradient[r].clone().t() @ x[r].clone()),  # noqa: B023
                _equal(by_bias, lambda r: gradient[r].clone().sum(0)),  # noqa: B023
                _equal(by_input, lambda r: gradient[r].clone() @ weight[r].clone()),  # noqa: B023
            ]
        plan = Plan(*(a and b for a, b in zip(plan, are_equal + [True] * (4 - len(are_equal)), strict=True)))
    return plan


def _equal(stack: Tensor, alone: Callable[[int], Tensor]) -> bool:
    return all(torch.equal(stack[r], alone(r)) for r in range(len(stack)))
