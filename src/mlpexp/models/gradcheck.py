"""Gradients by hand, by autograd and by central finite differences, compared for each parameter tensor.

All in float64, on real samples, at the network's initial weights. Letters: B batch, I inputs, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from rich import box
from rich.table import Table
from torch import Generator, Tensor, autograd

from mlpexp.config.schema import Config
from mlpexp.data.datamodule import TableDataModule
from mlpexp.nn.initialisation import initialise
from mlpexp.nn.layers import Activate
from mlpexp.nn.losses import CROSS_ENTROPY, LossFunction, batch_mean
from mlpexp.nn.network import NetworkSpec, Trace, backward, forward, training_tensors
from mlpexp.runtime.errors import UserError

AUTOGRAD_TOLERANCE = 1e-10
DIFFERENCES_TOLERANCE = 1e-6
SAMPLES = 32  # of the batch, at most
STEPS = (1e-3, 1e-4, 1e-5)  # the first that crosses no kink is used
BUDGET_S = 1.5  # for all finite differences, by the rough cost below
ENTRIES = 24  # of each tensor, at most
# A gradient that is 0 except for rounding, e.g. of a bias before batch normalisation, is compared with this share of
# the largest gradient of the network.
VANISHED = 1e-4


class Row(NamedTuple):
    """The comparison for one parameter tensor; differences are relative to its largest gradient entry."""

    name: str
    shape: tuple[int, ...]
    largest: float  # |gradient|
    autograd: float  # by hand and autograd, all entries
    differences: float  # by hand and finite differences, the tested entries
    autograd_differences: float  # autograd and finite differences, the same entries
    tried: int
    skipped: int  # entries at which the loss is not smooth within the smallest step
    faint: int  # tested entries where rounding of the loss may exceed the tolerance

    @property
    def passed(self) -> bool:
        # written so that a NaN fails
        return (
            self.autograd <= AUTOGRAD_TOLERANCE
            and self.differences <= DIFFERENCES_TOLERANCE
            and self.autograd_differences <= DIFFERENCES_TOLERANCE
        )


def check(cfg: Config) -> list[Row]:
    """Compare the gradients of the network that `cfg` describes, on the first training batch.

    Raises:
        UserError: the data cannot be split as asked.
    """
    if cfg.model.target is not None:
        raise UserError(f"model._target_={cfg.model.target} has no gradient by hand to compare; leave it out")
    data = TableDataModule(cfg.data, cfg.seed)
    data.setup()
    inputs, labels, *batch_weights = next(iter(data.train_dataloader()))
    inputs, labels = inputs[:SAMPLES].double(), labels[:SAMPLES]  # (B, I), (B,) or in a regression (B, C)
    network = cfg.model.network(inputs.shape[1], data.prepared.num_classes)
    initial = {name: values.double() for name, values in initialise(network, cfg.model, cfg.seed).items()}
    tensors = training_tensors(network, initial, inputs, cfg.seed, epoch=0, step=0)
    weights = batch_weights[0][:SAMPLES].double() if batch_weights else None  # (B,)
    if (by_class := data.prepared.description.class_weights) is not None:
        label_weights = torch.tensor(by_class, dtype=torch.float64)[labels]
        weights = label_weights if weights is None else weights * label_weights
    if weights is not None and not weights.sum() > 0:
        raise UserError("all samples of the first batch have weight 0, so its loss has no gradient")
    loss, outputs = cfg.loss_function, inputs.new_empty(len(inputs), data.prepared.num_classes)
    targets = loss.dense(labels.double() if labels.is_floating_point() else labels, outputs)
    return compare(Problem(network, tensors, inputs, targets, weights, loss))


def compare(problem: "Problem") -> list[Row]:
    """One row for each parameter."""
    network, tensors = problem.network, problem.tensors
    by_hand, by_autograd = problem.by_hand(), problem.by_autograd()
    entries = problem.affordable_entries()
    generator = Generator().manual_seed(0)  # the same entries in every call
    rows = []
    steepest = max(gradient.abs().max() for gradient in by_hand.values())
    for name in network.shapes:
        parameter = tensors[name]
        hand_gradient, autograd_gradient = by_hand[name], by_autograd[name]
        largest = hand_gradient.abs().max()
        chosen = torch.randperm(parameter.numel(), generator=generator)[:entries]
        slopes_by_index = {int(index): problem.slope(parameter, int(index), largest.item()) for index in chosen}
        finite_slopes = {index: slope for index, slope in slopes_by_index.items() if slope is not None}
        slopes = torch.tensor([slope.value for slope in finite_slopes.values()], dtype=torch.float64)
        rounding = torch.tensor([slope.rounding for slope in finite_slopes.values()], dtype=torch.float64)
        # a difference that rounding explains does not show a wrong gradient
        scale = torch.maximum(largest, rounding / DIFFERENCES_TOLERANCE)
        rows.append(
            Row(
                name=name,
                shape=tuple(parameter.shape),
                largest=largest.item(),
                autograd=_largest_difference(
                    hand_gradient, autograd_gradient, torch.maximum(largest, VANISHED * steepest)
                ),
                differences=_largest_difference(hand_gradient.flatten()[list(finite_slopes)], slopes, scale),
                autograd_differences=_largest_difference(
                    autograd_gradient.flatten()[list(finite_slopes)], slopes, scale
                ),
                tried=len(finite_slopes),
                skipped=len(slopes_by_index) - len(finite_slopes),
                faint=int((scale > largest).sum()),
            )
        )
    return rows


def table(rows: Sequence[Row]) -> Table:
    """The rows for a terminal."""
    shown = Table(
        title="largest relative differences between gradients: by hand,\n"
        "by autograd (auto), by finite differences of some entries (diff)",
        title_justify="left",
        title_style="",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    shown.add_column("parameter", no_wrap=True)
    for name in ("shape", "largest", "hand:auto", "hand:diff", "auto:diff", "entries"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        shape = "×".join(map(str, row.shape))
        numbers = [f"{value:.1e}" for value in (row.largest, row.autograd, row.differences, row.autograd_differences)]
        shown.add_row(row.name, shape, *numbers, str(row.tried), style="" if row.passed else "bold red")
    return shown


def verdict(rows: Sequence[Row]) -> list[str]:
    """The result in sentences; the first one states whether all gradients agree."""
    wrong = [row.name for row in rows if not row.passed]
    limits = f"{AUTOGRAD_TOLERANCE:g} against autograd, {DIFFERENCES_TOLERANCE:g} against finite differences"
    lines = [f"gradients agree ({limits})" if not wrong else f"gradients DISAGREE in {', '.join(wrong)} ({limits})"]
    skipped, tried = sum(row.skipped for row in rows), sum(row.tried for row in rows)
    if skipped:
        lines.append(
            f"{skipped} of {skipped + tried} entries have no finite difference: the smallest step, {STEPS[-1]:g}, "
            "still takes some unit across its kink"
        )
    if faint := sum(row.faint > 0 for row in rows):
        lines.append(
            f"in {faint} of {len(rows)} tensors the gradient is so small that rounding of the loss blurs its finite "
            "differences: trust autograd there"
        )
    return lines


class _Slope(NamedTuple):
    value: float
    rounding: float  # bound on the error from rounding of the loss


@dataclass
class Problem:
    """One network on one batch: its loss as a function of single parameter entries. All tensors are float64.

    Attributes:
        tensors: by name, those that the forward pass reads: parameters and masks of dropout.
        inputs, targets, weights: (B, I), dense (B, C), and of the samples (B,).
    """

    network: NetworkSpec
    tensors: Mapping[str, Tensor]
    inputs: Tensor
    targets: Tensor
    weights: Tensor | None = None
    function: LossFunction = CROSS_ENTROPY

    def __post_init__(self) -> None:
        self.trace = forward(self.network, self.tensors, self.inputs)
        self.start = self.loss(self.trace).item()
        # a few units in the last place of the loss
        self.noise = 16 * torch.finfo(torch.float64).eps * max(1.0, self.start)

    def loss(self, trace: Trace) -> Tensor:
        return batch_mean(self.function.by_hand(trace.logits, self.targets), self.weights)

    def by_hand(self) -> dict[str, Tensor]:
        upstream = self.function.by_hand_gradient(self.trace.logits, self.targets, self.weights)
        return backward(self.network, self.tensors, self.trace, upstream).parameters

    def by_autograd(self) -> dict[str, Tensor]:
        leaves = {name: self.tensors[name].clone().requires_grad_() for name in self.network.shapes}
        loss = self.loss(forward(self.network, {**self.tensors, **leaves}, self.inputs))
        return dict(zip(leaves, autograd.grad(loss, list(leaves.values())), strict=True))

    def affordable_entries(self) -> int:
        """The number of entries of each tensor to test, at four forward passes each; from a formula, not measured."""
        multiplications = len(self.inputs) * self.network.num_parameters
        forward_s = multiplications / 5e9 + 25e-6 * len(self.network.linear)
        return int(min(ENTRIES, max(2, BUDGET_S / (4 * forward_s * len(self.network.shapes)))))

    def slope(self, parameter: Tensor, index: int, largest: float) -> _Slope | None:
        """The derivative of the loss with respect to one entry, from four points around it.

        (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h, whose error shrinks with h⁴: the step can be wide, and
        rounding then matters little.

        Args:
            largest: the tensor's largest |gradient|, to which errors are relative.

        Returns:
            None if the loss is not smooth within the smallest step.
        """
        entry = parameter.view(-1)[index : index + 1]
        original = entry.clone()
        try:
            for step in STEPS:
                values = []
                for shift in (step, -step, 2 * step, -2 * step):
                    entry.copy_(original + shift)
                    trace = forward(self.network, self.tensors, self.inputs)
                    if self._crosses(trace):
                        break
                    values.append(self.loss(trace).item())
                else:
                    if not self._is_smooth(values, step, largest):
                        continue
                    near, far = values[0] - values[1], values[2] - values[3]
                    return _Slope((8 * near - far) / (12 * step), self.noise / step)
        finally:
            entry.copy_(original)
        return None

    def _is_smooth(self, values: Sequence[float], step: float, largest: float) -> bool:
        """Whether the points are those of a smooth function, within the tolerance of the slope.

        A kink that an activation's entry does not list is found here: of a smooth function f(2h) - f(-2h) differs from
        2 (f(h) - f(-h)) by O(h³), and the second difference at 2h from four times that at h by O(h⁴).

        Args:
            values: f(h), f(-h), f(2h), f(-2h).
        """
        above, below, far_above, far_below = (value - self.start for value in values)
        odd = abs((far_above - far_below) - 2 * (above - below))
        even = abs((far_above + far_below) - 4 * (above + below))
        return max(odd, even) <= max(6 * DIFFERENCES_TOLERANCE * largest * step, self.noise)

    def _crosses(self, trace: Trace) -> bool:
        for k, layer in enumerate(self.network.layers):
            if isinstance(layer, Activate):
                x, start = (layer.argument(values[k]) for values in (trace.values, self.trace.values))
                if any(bool(((x > kink) != (start > kink)).any()) for kink in layer.entry.kinks):
                    return True
        return False


def _largest_difference(a: Tensor, b: Tensor, scale: Tensor) -> float:
    """The largest |a - b| relative to `scale`; 0 for tensors without elements."""
    difference = (a - b).abs()
    relative = torch.where(difference == 0, 0.0, difference / scale)  # two zeros agree
    return relative.max().item() if relative.numel() else 0.0
