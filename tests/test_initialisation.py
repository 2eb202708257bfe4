"""How weights start: torch's numbers, the notebook's numbers, the literature's scales."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from mlpexp.config.schema import ModelConfig
from mlpexp.nn import initialisation
from mlpexp.nn.initialisation import INITIALISERS, initialise_
from mlpexp.nn.network import multilayer_perceptron

INITS = INITIALISERS.names
ARCHITECTURES = [[64, 10], [64, 50, 10], [64, 32, 16, 10], [3, 1, 2]]
SEEDS = [0, 5, 2**32 - 1]
WIDE = [400, 300, 200]  # enough entries for their scale to be measured


def initialise(sizes, init, seed, **sigmas):
    """Weight and bias of each layer."""
    network = multilayer_perceptron(sizes[0], sizes[1:-1], sizes[-1], "tanh")
    tensors = list(initialisation.initialise(network, ModelConfig(init=init, **sigmas), seed).values())
    return list(zip(tensors[::2], tensors[1::2], strict=True))


def same(found, wanted):
    assert len(found) == len(wanted)
    return all(torch.equal(a, b) for one, two in zip(found, wanted, strict=True) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("sizes", ARCHITECTURES, ids=str)
def test_init_torch_is_what_linear_modules_made_under_the_seed_hold_to_the_bit(sizes, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        modules = [nn.Linear(fan_in, fan_out) for fan_in, fan_out in pairwise(sizes)]
    assert same(initialise(sizes, "torch", seed), [(module.weight, module.bias) for module in modules])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("sizes", ARCHITECTURES, ids=str)
def test_init_notebook_is_randn_in_the_notebooks_order_and_shape_to_the_bit(sizes, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        drawn = [torch.randn(fan_in, fan_out) for fan_in, fan_out in pairwise(sizes)]
    assert same(initialise(sizes, "notebook", seed), [(w.T, torch.zeros(w.shape[1])) for w in drawn])


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("sizes", ARCHITECTURES, ids=str)
def test_initial_weights_follow_seed_and_architecture_alone(sizes, init):
    first = initialise(sizes, init, 3)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        torch.rand(7)
        again = initialise(sizes, init, 3)
    assert [weight.shape for weight, _ in first] == [(o, i) for i, o in pairwise(sizes)]
    assert [bias.shape for _, bias in first] == [(o,) for o in sizes[1:]]
    assert {tensor.dtype for layer in first for tensor in layer} == {torch.float32}
    assert same(first, again)
    assert not same(first, initialise(sizes, init, 4))


@pytest.mark.parametrize("init", INITS)
def test_the_callers_random_stream_is_left_alone(init):
    state = torch.random.get_rng_state()
    initialise([64, 50, 10], init, 0)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("init", INITS)
def test_slices_of_a_stack_start_like_runs_alone(init):
    sizes = [64, 20, 10]
    network = multilayer_perceptron(64, [20], 10, "tanh")
    stack = {name: torch.empty(3, *shape) for name, shape in network.shapes.items()}
    for run, seed in enumerate(SEEDS):
        own = {name: values[run] for name, values in stack.items()}
        initialise_(own, network, ModelConfig(init=init), seed)
    for run, seed in enumerate(SEEDS):
        alone = [tensor for layer in initialise(sizes, init, seed) for tensor in layer]
        assert all(torch.equal(values[run], tensor) for values, tensor in zip(stack.values(), alone, strict=True))


def fans(weight):
    return weight.shape[1], weight.shape[0]


# standard deviation of the weights, from the papers
DEVIATIONS = {
    "torch": lambda i, o: math.sqrt(1 / (3 * i)),  # uniform within 1/sqrt(i)
    "fan_in_uniform": lambda i, o: math.sqrt(1 / (3 * i)),  # the same, without biases
    "notebook": lambda i, o: 1.0,
    "xavier_uniform": lambda i, o: math.sqrt(2 / (i + o)),
    "xavier_normal": lambda i, o: math.sqrt(2 / (i + o)),
    "kaiming_uniform": lambda i, o: math.sqrt(2 / i),
    "kaiming_normal": lambda i, o: math.sqrt(2 / i),
    "orthogonal": lambda i, o: math.sqrt(1 / max(i, o)),
    "scaled_normal": lambda i, o: math.sqrt(1 / i),
}


@pytest.mark.parametrize("init", INITS)
def test_weights_have_the_mean_and_scale_of_the_literature(init):
    for weight, _ in initialise(WIDE, init, 0):
        wanted = DEVIATIONS[init](*fans(weight))
        assert weight.std().item() == pytest.approx(wanted, rel=0.02)
        assert abs(weight.mean().item()) < 0.02 * wanted


UNIFORM = ("torch", "fan_in_uniform", "xavier_uniform", "kaiming_uniform")


@pytest.mark.parametrize("init", [init for init in INITS if init != "orthogonal"])
def test_weights_are_uniform_or_normal_as_their_name_says(init):
    for weight, _ in initialise(WIDE, init, 0):
        standard = (weight / DEVIATIONS[init](*fans(weight))).double()
        kurtosis = (standard**4).mean().item()
        assert kurtosis == pytest.approx(1.8 if init in UNIFORM else 3.0, abs=0.15)
        # nothing of a uniform distribution lies beyond its bound
        assert (standard.abs().max() <= math.sqrt(3) + 1e-6) == (init in UNIFORM)


@pytest.mark.parametrize("init", [init for init in INITS if init != "torch"])
def test_biases_start_at_zero(init):
    assert all(not bias.any() for _, bias in initialise([64, 50, 10], init, 0))


@pytest.mark.parametrize("sizes", [[64, 50], [50, 64], [32, 32]], ids=str)
def test_orthogonal_weights_keep_lengths(sizes):
    ((weight, _),) = initialise(sizes, "orthogonal", 0)
    if weight.shape[0] > weight.shape[1]:
        weight = weight.T
    torch.testing.assert_close(weight @ weight.T, torch.eye(len(weight)), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("sigma_w", "sigma_b"), [(0.5, 0.0), (1.5, 0.3), (0.0, 2.0)])
def test_scaled_normal_has_the_deviations_that_were_asked(sigma_w, sigma_b):
    for weight, bias in initialise([400, 500, 600], "scaled_normal", 0, sigma_w=sigma_w, sigma_b=sigma_b):
        assert weight.std().item() == pytest.approx(sigma_w / math.sqrt(weight.shape[1]), rel=0.02)
        assert bias.std().item() == pytest.approx(sigma_b, rel=0.1)


def test_scaled_normal_keeps_the_length_of_a_signal_through_many_linear_layers():
    layers = initialise([500] * 11, "scaled_normal", 0)
    h = torch.randn(50, 500, generator=torch.Generator().manual_seed(1))  # another stream than the weights
    for weight, _ in layers:
        h = h @ weight.T
    assert h.norm().item() / math.sqrt(50 * 500) == pytest.approx(1.0, abs=0.15)
