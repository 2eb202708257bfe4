"""Steps and learning rates by hand, against `torch.optim`."""

import math
import warnings

import pytest
import torch
from torch.optim import lr_scheduler

from mlpexp.config.schema import OptimizerConfig
from mlpexp.models.handmade_mlp import sgd_
from mlpexp.nn.schedules import Plateau, epoch_factors, rate_factor

EPOCHS = 12
SETTINGS = [
    {},
    {"weight_decay": 0.01},
    {"momentum": 0.9},
    {"momentum": 0.9, "weight_decay": 0.01},
    {"momentum": 0.5, "nesterov": True},
    {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_many_steps_by_hand_end_where_torchs_sgd_ends(settings):
    cfg = OptimizerConfig(lr=0.05, **settings)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    theirs = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.SGD([theirs], lr=cfg.lr, **settings)
    ours, velocity = start.clone(), torch.zeros_like(start) if cfg.momentum else None
    for step in range(30):
        lr = cfg.lr / (1 + step)  # a rate that changes, as under a schedule
        optimizer.param_groups[0]["lr"] = lr
        gradient = torch.randn(4, 3, generator=generator, dtype=torch.float64)
        theirs.grad = gradient.clone()
        optimizer.step()
        given = gradient.clone()
        sgd_(ours, given, velocity, cfg, lr, cfg.weight_decay)
        assert torch.equal(given, gradient)  # the gradient is the caller's
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-13, atol=1e-13)


def scheduled(optimizer, *, schedule, warmup_epochs=0, step_epochs=5, step_factor=0.1):
    """The same rule from torch's own schedules."""
    left = EPOCHS - warmup_epochs
    after = {
        "constant": lambda: lr_scheduler.ConstantLR(optimizer, factor=1.0),
        "cosine": lambda: lr_scheduler.CosineAnnealingLR(optimizer, T_max=left),
        "step": lambda: lr_scheduler.StepLR(optimizer, step_epochs, step_factor),
    }[schedule]
    if warmup_epochs == 0:
        return after()
    warmup = lr_scheduler.LinearLR(optimizer, start_factor=1 / (warmup_epochs + 1), total_iters=warmup_epochs)
    return lr_scheduler.SequentialLR(optimizer, [warmup, after()], milestones=[warmup_epochs])


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": "constant"},
        {"schedule": "cosine"},
        {"schedule": "step"},
        {"schedule": "step", "step_epochs": 3, "step_factor": 0.5},
        {"schedule": "constant", "warmup_epochs": 4},
        {"schedule": "cosine", "warmup_epochs": 3},
        {"schedule": "step", "warmup_epochs": 2, "step_epochs": 4},
    ],
    ids=str,
)
def test_the_rate_of_each_epoch_is_that_of_torchs_schedules(settings):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The epoch parameter in `scheduler.step")  # SequentialLR's own doing
        schedule = scheduled(optimizer, **settings)
        wanted = []
        for _ in range(EPOCHS):
            wanted.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
    cfg = OptimizerConfig(lr=0.2, **settings)
    assert [cfg.lr * rate_factor(cfg, epoch, EPOCHS) for epoch in range(EPOCHS)] == pytest.approx(wanted, rel=1e-12)


STEPS = 7  # per epoch


def by_step(optimizer, *, schedule, warmup_steps=0, warmup_epochs=0, pct_start=0.3):
    """The same rule from torch's own schedules, stepped after every step."""
    warmup = warmup_steps + STEPS * warmup_epochs
    total = EPOCHS * STEPS
    if schedule == "one_cycle":
        return lr_scheduler.OneCycleLR(optimizer, 0.2, total, pct_start=pct_start, cycle_momentum=False)
    if schedule == "inverse_sqrt":
        return lr_scheduler.LambdaLR(
            optimizer,
            lambda t: (t + 1) / (warmup + 1) if t < warmup else (max(1, warmup) / max(1, t + (not warmup))) ** 0.5,
        )
    ramp = lr_scheduler.LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
    after = lr_scheduler.LambdaLR(optimizer, lambda t: 0.5 * (1 + math.cos(math.pi * ((t + warmup) // STEPS) / EPOCHS)))
    return lr_scheduler.SequentialLR(optimizer, [ramp, after], milestones=[warmup])


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": "one_cycle"},
        {"schedule": "one_cycle", "pct_start": 0.6},
        {"schedule": "inverse_sqrt"},
        {"schedule": "inverse_sqrt", "warmup_steps": 10},
        {"schedule": "cosine", "warmup_steps": 10},
    ],
    ids=str,
)
def test_the_rate_of_each_step_is_that_of_torchs_schedules(settings):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The epoch parameter in `scheduler.step")
        schedule = by_step(optimizer, **settings)
        wanted = []
        for _ in range(EPOCHS * STEPS):
            wanted.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
    cfg = OptimizerConfig(lr=0.2, **settings)
    found = [0.2 * factor for epoch in range(EPOCHS) for factor in epoch_factors(cfg, epoch, EPOCHS, STEPS)]
    assert found == pytest.approx(wanted, rel=1e-12)


def test_an_inverse_square_root_continues_its_warm_up_in_epochs():
    cfg = OptimizerConfig(lr=0.2, schedule="inverse_sqrt", warmup_epochs=3)
    found = [factor for epoch in range(EPOCHS) for factor in epoch_factors(cfg, epoch, EPOCHS, STEPS)]
    assert found[: 3 * STEPS] == [0.25] * STEPS + [0.5] * STEPS + [0.75] * STEPS
    assert found[3 * STEPS :] == pytest.approx([(21 / t) ** 0.5 for t in range(21, EPOCHS * STEPS)])


@pytest.mark.parametrize("monitor", ["val/loss", "val/acc"])
@pytest.mark.parametrize("patience", [0, 1, 3])
def test_a_plateau_reduces_the_rate_where_torch_does(monitor, patience):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.2)
    mode = "min" if monitor == "val/loss" else "max"
    schedule = lr_scheduler.ReduceLROnPlateau(optimizer, mode, factor=0.5, patience=patience)
    cfg = OptimizerConfig(lr=0.2, schedule="plateau", step_factor=0.5, patience=patience)
    generator = torch.Generator().manual_seed(patience)
    values = (1 + torch.rand(40, generator=generator, dtype=torch.float64).cumsum(0) / 20).tolist()
    values = [1 / value if mode == "min" and i < 10 else value for i, value in enumerate(values)]
    values[15:18] = [math.nan, math.inf if mode == "min" else -math.inf, values[14] * (1 + 5e-5)]
    plateau = Plateau(cfg, monitor)
    for epoch, value in enumerate(values):
        schedule.step(value)
        plateau.update(value)
        assert 0.2 * plateau.factor == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12), epoch
        assert Plateau(cfg, monitor, values[: epoch + 1]).factor == plateau.factor
    assert plateau.factor < 1 or mode == "max"


def test_a_warm_up_as_long_as_the_training_never_reaches_the_full_rate():
    cfg = OptimizerConfig(lr=1.0, schedule="cosine", warmup_epochs=3)
    assert [cfg.lr * rate_factor(cfg, epoch, 3) for epoch in range(3)] == pytest.approx([0.25, 0.5, 0.75])
