"""The mathematics by hand, against autograd and against central finite differences, in float64."""

import pytest
import torch
from torch.nn import functional as F

from mlpexp.nn import diagnostics
from mlpexp.nn.activations import ACTIVATIONS
from mlpexp.nn.losses import CROSS_ENTROPY, batch_mean, softmax
from mlpexp.nn.metric_columns import measure
from mlpexp.nn.network import backward, forward, multilayer_perceptron
from mlpexp.nn.outcomes import Outcomes

torch.set_num_threads(1)  # two threads that wait for a busy core take a hundred times longer

LOSS = CROSS_ENTROPY
INPUTS, CLASSES, BATCH = 7, 4, 6
ARCHITECTURES = [[], [5], [5, 5], [5] * 3, [5] * 4, [5] * 5, [9, 3], [2, 6, 3], [1]]
# what torch itself calls each activation
TORCH = {
    "tanh": torch.tanh,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
    "silu": F.silu,
    "elu": F.elu,
    "softplus": F.softplus,
    "sine": torch.sin,
    "mish": F.mish,
    "selu": F.selu,
    "hardtanh": F.hardtanh,
    "relu6": F.relu6,
    "softsign": F.softsign,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "identity": lambda x: x,
    "glu": F.glu,
    "swiglu": lambda x: x.chunk(2, -1)[0] * F.silu(x.chunk(2, -1)[1]),
}
# of a gated activation its function is the one of the gate
GATES = {"glu": torch.sigmoid, "swiglu": F.silu}


def problem(widths, name="tanh", runs=(), seed=0):
    """A network, its random parameters, inputs and one-hot targets in float64, with leading axes `runs`."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*runs, *shape, generator=generator, dtype=torch.float64)

    network = multilayer_perceptron(INPUTS, widths, CLASSES, name)
    parameters = {name: draw(*shape) for name, shape in network.shapes.items()}
    labels = torch.randint(CLASSES, (*runs, BATCH), generator=generator)
    return network, parameters, draw(BATCH, INPUTS), F.one_hot(labels, CLASSES).double()


def cross_entropy(logits, targets):
    return batch_mean(LOSS.by_hand(logits, targets))


def loss(network, parameters, inputs, targets):
    return cross_entropy(forward(network, parameters, inputs).logits, targets)


def by_hand(network, parameters, inputs, targets):
    trace = forward(network, parameters, inputs)
    upstream = LOSS.by_hand_gradient(trace.logits, targets)
    return list(backward(network, parameters, trace, upstream).parameters.values())


def by_autograd(parameters, inputs, targets, name):
    """The derivative of the same loss, written with torch's own functions only."""
    parameters = [tensor.clone().requires_grad_() for tensor in parameters.values()]
    h = inputs
    for i in range(0, len(parameters), 2):
        h = h @ parameters[i].transpose(-1, -2) + parameters[i + 1][..., None, :]
        if i + 2 < len(parameters):
            h = TORCH[name](h)
    losses = -(targets * torch.log(torch.softmax(h, -1) + 1e-8)).sum(-1).mean(-1)
    return torch.autograd.grad(losses.sum(), parameters)


def close(found, wanted, relative):
    """Relative to the largest entry of the tensor; a NaN is never close."""
    return bool((found - wanted).abs().max() <= relative * wanted.abs().max())


@pytest.mark.parametrize("widths", ARCHITECTURES, ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gradients_by_hand_equal_autograds(name, widths):
    network, *rest = problem(widths, name)
    found, wanted = by_hand(network, *rest), by_autograd(*rest, name)
    assert [tensor.shape for tensor in found] == [tensor.shape for tensor in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        assert close(ours, theirs, 1e-10)


@pytest.mark.parametrize("widths", [[], [5], [6, 3, 2]], ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gradients_of_a_run_in_a_stack_equal_autograds_and_those_of_the_run_alone(name, widths):
    network, parameters, inputs, targets = problem(widths, name, runs=(3,))
    found = by_hand(network, parameters, inputs, targets)
    for ours, theirs in zip(found, by_autograd(parameters, inputs, targets, name), strict=True):
        assert close(ours, theirs, 1e-10)
    for run in range(3):
        alone = {name: values[run] for name, values in parameters.items()}
        for ours, theirs in zip(found, by_hand(network, alone, inputs[run], targets[run]), strict=True):
            assert close(ours[run], theirs, 1e-12)


@pytest.mark.parametrize("widths", [[], [4], [3, 4, 2]], ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gradients_by_hand_equal_central_finite_differences(name, widths):
    network, parameters, inputs, targets = problem(widths, name, seed=1)
    step = 1e-6
    gradients = by_hand(network, parameters, inputs, targets)
    for parameter, gradient in zip(parameters.values(), gradients, strict=True):
        differences = torch.empty_like(parameter)
        flat, into = parameter.view(-1), differences.view(-1)
        for i in range(flat.numel()):
            kept = flat[i].item()
            flat[i] = kept + step
            above = loss(network, parameters, inputs, targets)
            flat[i] = kept - step
            below = loss(network, parameters, inputs, targets)
            flat[i] = kept
            into[i] = (above - below) / (2 * step)
        assert close(gradient, differences, 1e-6)


POINTS = torch.cat(
    [torch.tensor([0.0, -0.0, 20.0, 20.0001, 25.0, 60.0, -25.0, -60.0]), torch.linspace(-30, 30, 1201)]
).double()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_torchs_and_its_derivative_autograds(name):
    x = POINTS.clone().requires_grad_()
    wanted_h = GATES.get(name, TORCH[name])(x)
    (wanted,) = torch.autograd.grad(wanted_h.sum(), x)
    h = ACTIVATIONS[name].function(POINTS)
    assert torch.equal(h, wanted_h.detach())
    # the absolute part is the rounding of 1 - h * h, h + 1 and the like where the slope vanishes
    rounding = 1e-14 if name == "gelu_tanh" else 1e-15  # torch subtracts a squared tanh from 1
    torch.testing.assert_close(ACTIVATIONS[name].derivative(POINTS, h), wanted, rtol=1e-10, atol=rounding)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_steepest_slope_of_an_activation_is_what_its_table_says(name):
    slopes = ACTIVATIONS[name].derivative(POINTS, ACTIVATIONS[name].function(POINTS)).abs()
    assert ACTIVATIONS[name].steepest == pytest.approx(slopes.max().item(), rel=2e-3)


def test_logits_depend_on_the_layers_as_a_textbook_says():
    network, parameters, inputs, _ = problem([5, 3])
    w1, b1, w2, b2, w3, b3 = parameters.values()
    x = inputs[0]
    wanted = w3 @ torch.tanh(w2 @ torch.tanh(w1 @ x + b1) + b2) + b3
    trace = forward(network, parameters, inputs)
    torch.testing.assert_close(trace.logits[0], wanted)
    assert [values.shape[1] for values in trace.values] == [INPUTS, 5, 5, 3, 3, CLASSES]


def test_softmax_survives_logits_that_overflow_an_exponential():
    logits = torch.tensor([[1e4, 0.0, -1e4], [-1e4, -1e4, -1e4]])
    torch.testing.assert_close(softmax(logits), torch.tensor([[1.0, 0, 0], [1 / 3, 1 / 3, 1 / 3]]))


def test_cross_entropy_is_torchs_but_for_the_notebooks_epsilon():
    logits = torch.randn(50, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    labels = torch.arange(50) % 10
    ours = cross_entropy(logits, F.one_hot(labels, 10).double())
    # log(p + 1e-8) is at most 1e-8 / p above log(p)
    bound = (1e-8 / softmax(logits).gather(1, labels[:, None])).mean().item()
    assert 0 < F.cross_entropy(logits, labels).item() - ours.item() <= bound


def test_a_hopeless_sample_costs_what_the_notebooks_epsilon_allows():
    targets = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    found = cross_entropy(torch.tensor([[1000.0, -1000.0]], dtype=torch.float64), targets)
    assert found.item() == pytest.approx(18.420680743952367)  # -log(1e-8)


def test_the_mean_loss_is_a_double_whatever_the_losses_are():
    labels = torch.zeros(1797, dtype=torch.int64)
    losses = LOSS.samples(torch.zeros(1797, 10), labels)
    assert losses.dtype == torch.float32
    found = measure("val", Outcomes(losses, labels, labels, 10))["val/loss"]
    assert found.dtype == torch.float64
    assert found.item() == losses.double().mean().item()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_layer_numbers_of_a_stacked_run_equal_those_of_the_run_alone(name):
    network, parameters, inputs, targets = problem([5, 3], name, runs=(2,))
    numbers, _ = diagnostics.inspect(network, parameters, inputs, targets.argmax(-1))
    for run in range(2):
        alone = {name: values[run] for name, values in parameters.items()}
        single, _ = diagnostics.inspect(network, alone, inputs[run], targets[run].argmax(-1))
        for ours, theirs in zip(numbers, single, strict=True):
            torch.testing.assert_close(ours[run], theirs)


def test_layer_numbers_are_norms_of_autograds_gradients_and_shares_of_flat_slopes():
    network, parameters, inputs, targets = problem([5, 3], "tanh")
    numbers, _ = diagnostics.inspect(network, parameters, inputs, targets.argmax(-1))
    w1, b1, w2, b2, w3, b3 = (tensor.clone().requires_grad_() for tensor in parameters.values())
    first = torch.tanh(inputs @ w1.T + b1)
    second = torch.tanh(first @ w2.T + b2)
    F.cross_entropy(second @ w3.T + b3, targets.argmax(-1)).backward()
    torch.testing.assert_close(
        numbers.gradient_norm, torch.stack([torch.linalg.matrix_norm(w.grad) for w in (w1, w2, w3)])
    )
    torch.testing.assert_close(
        numbers.weight_norm, torch.stack([torch.linalg.matrix_norm(w.detach()) for w in (w1, w2, w3)])
    )
    flat = [(1 - h.detach() ** 2 < 0.05).double().mean() for h in (first, second)]
    assert 0 < flat[0] < 1
    torch.testing.assert_close(numbers.saturated, torch.stack(flat))


def test_the_spread_of_signals_is_that_of_activations_and_of_autograds_gradients_by_them():
    network, parameters, inputs, targets = problem([5, 3], "sigmoid")
    numbers, _ = diagnostics.inspect(network, parameters, inputs, targets.argmax(-1))
    w1, b1, w2, b2, w3, b3 = parameters.values()
    before = [(inputs @ w1.T + b1).requires_grad_()]
    first = torch.sigmoid(before[0])
    before.append(first @ w2.T + b2)
    second = torch.sigmoid(before[1])
    before.append(second @ w3.T + b3)
    loss = F.cross_entropy(before[2], targets.argmax(-1), reduction="sum")  # so each sample has its own gradient
    gradients = torch.autograd.grad(loss, before)
    torch.testing.assert_close(numbers.gradient_std, torch.stack([g.std(correction=0) for g in gradients]))
    torch.testing.assert_close(numbers.activation_std, torch.stack([h.std(correction=0) for h in (first, second)]))
    torch.testing.assert_close(numbers.activation_mean, torch.stack([first.mean(), second.mean()]))


def test_rows_have_no_activation_for_the_last_layer():
    network, parameters, inputs, targets = problem([5, 3], runs=(2,))
    numbers, _ = diagnostics.inspect(network, parameters, inputs, targets.argmax(-1))
    runs = list(numbers.rows(-1))
    assert len(runs) == 2
    assert [row[:2] for row in runs[1]] == [[-1, 0], [-1, 1], [-1, 2]]
    assert runs[1][1][2:] == [column[1, 1].item() for column in numbers]
    assert runs[1][2][4:7] == ["", "", ""]
    assert runs[1][2][7] == numbers.gradient_std[1, 2].item()


def test_a_linear_classifier_has_no_saturated_share():
    network, parameters, inputs, targets = problem([])
    numbers, _ = diagnostics.inspect(network, parameters, inputs, targets.argmax(-1))
    assert numbers.gradient_norm.shape == (1,)
    assert numbers.saturated.shape == (0,)
