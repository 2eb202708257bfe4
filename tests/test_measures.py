"""Measures of networks, against independent formulas; as columns of runs alone and in a stack."""

import csv
import math
from functools import partial

import numpy as np
import pytest
import torch

from mlpexp.nn.loss_geometry import gradient_noise, top_hessian_eigenvalue
from mlpexp.nn.losses import CROSS_ENTROPY, LOSSES, LossFunction
from mlpexp.nn.measures import MEASURES, Probe, measure_network
from mlpexp.nn.network import forward, multilayer_perceptron


def test_measures_are_those_of_their_definitions_for_each_run():
    network = multilayer_perceptron(4, [6, 5], 3, "tanh")
    generator = torch.Generator().manual_seed(0)
    now, start = (
        {name: torch.randn(2, *shape, generator=generator) for name, shape in network.shapes.items()} for _ in range(2)
    )
    inputs = torch.randn(2, 40, 4, generator=generator)
    labels = torch.randint(3, (2, 40), generator=generator)
    found = measure_network(list(MEASURES), Probe(network, now, start, inputs, labels, CROSS_ENTROPY))
    for run in range(2):
        flat = [
            np.concatenate([values[run].double().numpy().ravel() for values in one.values()]) for one in (now, start)
        ]
        distance = np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[1])
        assert found["train/weight_distance"][run].item() == pytest.approx(distance)
        hidden = []
        for one in (now, start):
            own = {name: values[run] for name, values in one.items()}
            values = forward(network, own, inputs[run]).values[4].double().numpy()
            hidden.append(values - values.mean(0))
        sizes = np.linalg.svd(hidden[0], compute_uv=False)
        shares = sizes / sizes.sum()
        assert found["train/effective_rank"][run].item() == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
        grams = [one @ one.T for one in hidden]
        cka = (grams[0] * grams[1]).sum() / np.sqrt((grams[0] ** 2).sum() * (grams[1] ** 2).sum())
        assert found["train/cka"][run].item() == pytest.approx(cka)
    same = measure_network(["cka", "weight_distance"], Probe(network, start, start, inputs, labels, CROSS_ENTROPY))
    assert same["train/cka"].tolist() == pytest.approx([1, 1])
    assert same["train/weight_distance"].tolist() == [0, 0]


def test_a_run_that_has_diverged_or_died_does_not_stop_the_others():
    network = multilayer_perceptron(4, [6], 3, "relu")
    start = {name: torch.ones(3, *shape) for name, shape in network.shapes.items()}
    now = {name: values.clone() for name, values in start.items()}
    now["layers.0.weight"][0] = torch.nan
    now["layers.0.bias"][1] = -100.0
    labels = torch.randint(3, (3, 10))
    found = measure_network(list(MEASURES), Probe(network, now, start, torch.rand(3, 10, 4), labels, CROSS_ENTROPY))
    assert found["train/cka"].isfinite().all()
    assert found["train/effective_rank"][1:].isfinite().all()
    for name in ("weight_distance", "gradient_square", "gradient_variance", "top_hessian_eigenvalue"):
        assert found[f"train/{name}"].isfinite().tolist() == [False, True, True]


NETWORKS = {
    "plain": multilayer_perceptron(4, [6, 5], 3, "tanh"),
    "residual and layer norm": multilayer_perceptron(4, [4, 4], 3, "gelu", norm="layer", block_depth=1),
    "batch norm": multilayer_perceptron(4, [5], 3, "silu", norm="batch"),
    "linear": multilayer_perceptron(4, [], 3, "tanh"),
}


def problem(network, name, runs=2, samples=36):
    """Random double parameters, running statistics, inputs and targets; the mean loss of one run as a function."""
    generator = torch.Generator().manual_seed(1)
    tensors = {n: torch.rand(runs, *s, generator=generator, dtype=torch.float64) for n, s in network.tensors.items()}
    inputs = torch.randn(runs, samples, 4, generator=generator, dtype=torch.float64)
    loss = LossFunction(name)
    classes = torch.randint(3, (runs, samples), generator=generator)

    def mean_loss(flat, inputs, labels):
        pieces = flat.split([math.prod(shape) for shape in network.shapes.values()])
        own = {n: p.reshape(s) for (n, s), p in zip(network.shapes.items(), pieces, strict=True)}
        return loss.samples(forward(network, own, inputs).logits, labels).mean()

    flat = torch.cat([tensors[n].flatten(1) for n in network.shapes], 1)
    return tensors, inputs, classes, loss, flat, mean_loss


@pytest.mark.parametrize("name", list(LOSSES))
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.thorough(sample=6)
def test_the_top_eigenvalue_is_that_of_the_whole_hessian(network, name):
    tensors, inputs, labels, loss, flat, mean_loss = problem(network, name)
    found = top_hessian_eigenvalue(network, tensors, inputs, labels, loss)
    for run in range(2):
        own = partial(mean_loss, inputs=inputs[run], labels=labels[run])
        hessian = torch.autograd.functional.hessian(own, flat[run])
        values = torch.linalg.eigvalsh(hessian)
        assert found[run].item() == pytest.approx(values[-1].item(), rel=2e-3, abs=1e-9)


@pytest.mark.parametrize("samples", [36, 20, 16, 3])
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.thorough(sample=6)
def test_gradient_noise_is_that_of_the_gradients_of_batches(network, samples):
    tensors, inputs, labels, loss, flat, mean_loss = problem(network, "cross_entropy", samples=samples)
    found = gradient_noise(network, tensors, inputs, labels, loss)
    batches = min(16, samples)
    size = samples // batches
    for run in range(2):
        rows = [slice(k * size, (k + 1) * size) for k in range(batches)]
        each = torch.stack([torch.func.grad(mean_loss)(flat[run], inputs[run, k], labels[run, k]) for k in rows])
        # the covariance of batches, as statistics has it, is that of samples over their number
        variance = size * torch.cov(each.T).trace().item()
        assert found.variance[run].item() == pytest.approx(variance)
        square = each.mean(0).square().sum().item() - variance / (size * batches)
        assert found.square[run].item() == pytest.approx(square, abs=1e-12)
        scale = variance / square if square > 0 else math.nan
        assert found.scale[run].item() == pytest.approx(scale, nan_ok=True)


def test_one_sample_has_no_gradient_noise():
    network = NETWORKS["plain"]
    tensors, inputs, labels, loss, *_ = problem(network, "cross_entropy", samples=1)
    assert torch.stack(gradient_noise(network, tensors, inputs, labels, loss)).isnan().all()


def test_measures_are_columns_of_runs_alone_and_in_a_stack(train, here):
    settings = (
        "stack.engine=torch data=iris trainer.max_epochs=2 model.width=5 tracking.figures=false "
        f"tracking.tensorboard=false diagnostics=[{','.join(MEASURES)}]"
    )
    sweep = train(f"-m {settings} seed=0,1 hydra.sweep.dir=s hydra.sweep.subdir='${{hydra.job.num}}'")
    alone = train(f"{settings} seed=1 hydra.run.dir=alone")
    assert (sweep.code, alone.code) == (0, 0), sweep.err + alone.err
    with (here / "alone/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [f"train/{name}" in rows[0] for name in MEASURES] == [True] * len(MEASURES)
    assert float(rows[1]["train/weight_distance"]) > float(rows[0]["train/weight_distance"]) > 0
    assert (here / "s/1/metrics.csv").read_text() == (here / "alone/metrics.csv").read_text()
    refused = train("diagnostics=[cak]")
    assert (refused.code, "choose one of" in refused.err, "cka" in refused.err) == (2, True, True)


def test_measures_every_few_epochs_stay_where_they_were_after_resume(train, here):
    settings = (
        "data=iris model.width=4 model.norm=batch tracking.figures=false tracking.tensorboard=false "
        "diagnostics_every=2 diagnostics=[gradient_noise_scale,top_hessian_eigenvalue]"
    )
    for words in ("trainer.max_epochs=5 hydra.run.dir=whole", "trainer.max_epochs=3 hydra.run.dir=part"):
        assert train(f"{settings} {words}").code == 0
    resumed = train("resume=part trainer.max_epochs=5")
    assert resumed.code == 0, resumed.err
    text = (here / "whole/metrics.csv").read_text()
    assert (here / "part/metrics.csv").read_text() == text
    eigenvalues = [float(row["train/top_hessian_eigenvalue"]) for row in csv.DictReader(text.splitlines())]
    assert [math.isfinite(value) for value in eigenvalues] == [False, True, False, True, False]
    assert "diagnostics_every needs diagnostics" in train("diagnostics_every=2").line
    assert "give at most 3" in train("diagnostics=[cka] diagnostics_every=4 trainer.max_epochs=3").line


def test_measures_of_the_compiled_engine_are_those_of_the_torch_engine(train, here):
    measures = (
        "diagnostics=[weight_distance,effective_rank,cka,gradient_square,gradient_variance,top_hessian_eigenvalue]"
    )
    more = "data=iris trainer.max_epochs=2 model.width=8 optimizer.lr=0.05 tracking.figures=false"
    for engine in ("compiled", "torch"):
        ended = train(f"-m {measures} {more} seed=0,1 stack.engine={engine} name={engine}")
        assert ended.code == 0, ended.err
    for path in (here / "multirun/torch").glob("*seed=*"):
        one, other = (table(place) for place in (path, here / "multirun/compiled" / path.name))
        for row, wanted in zip(one, other, strict=True):
            assert {k: float(v) for k, v in row.items()} == pytest.approx(
                {k: float(v) for k, v in wanted.items()}, rel=1e-5, abs=1e-9
            )


def table(place):
    with (place / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))
