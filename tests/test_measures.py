"""Measures of networks, against independent formulas; as columns of runs alone and in a stack."""

import csv

import numpy as np
import pytest
import torch

from mlpexp.nn.measures import MEASURES, Probe, measure_network
from mlpexp.nn.network import forward, multilayer_perceptron


def test_measures_are_those_of_their_definitions_for_each_run():
    network = multilayer_perceptron(4, [6, 5], 3, "tanh")
    generator = torch.Generator().manual_seed(0)
    now, start = (
        {name: torch.randn(2, *shape, generator=generator) for name, shape in network.shapes.items()} for _ in range(2)
    )
    inputs = torch.randn(2, 40, 4, generator=generator)
    found = measure_network(list(MEASURES), Probe(network, now, start, inputs))
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
    same = measure_network(["cka", "weight_distance"], Probe(network, start, start, inputs))
    assert same["train/cka"].tolist() == pytest.approx([1, 1])
    assert same["train/weight_distance"].tolist() == [0, 0]


def test_a_run_that_has_diverged_or_died_does_not_stop_the_others():
    network = multilayer_perceptron(4, [6], 3, "relu")
    start = {name: torch.ones(3, *shape) for name, shape in network.shapes.items()}
    now = {name: values.clone() for name, values in start.items()}
    now["layers.0.weight"][0] = torch.nan
    now["layers.0.bias"][1] = -100.0
    found = measure_network(list(MEASURES), Probe(network, now, start, torch.rand(3, 10, 4)))
    assert found["train/cka"].isfinite().all()
    assert found["train/effective_rank"][1:].isfinite().all()
    assert found["train/weight_distance"].isfinite().tolist() == [False, True, True]


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
