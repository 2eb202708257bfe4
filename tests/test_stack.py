"""A run in a stack against the same run trained alone by Lightning: every number and every file, to the bit."""

import math
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities import registry
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mlpexp import data as datasets
from mlpexp.config import checks, hparams, schema
from mlpexp.config.schema import Config
from mlpexp.data.batches import epoch_orders
from mlpexp.data.prepared_data import Prepared
from mlpexp.models.stack_module import StackModule
from mlpexp.nn import activations
from mlpexp.nn.initialisation import INITIALISERS
from mlpexp.runtime.errors import ConfigError
from mlpexp.store import checkpoint_files, file_names, run_directory
from mlpexp.store.run_directory import Result
from mlpexp.training import resume, single_run, trainer_setup
from mlpexp.training import train_stack as train_stack_module
from mlpexp.training.engine_choice import cannot_be_stacked
from mlpexp.training.planner import plan
from mlpexp.training.stack_run_files import write_run
from mlpexp.training.train_stack import train_stack

# gated activations have layers of their own kind, and share no stack with the others
GATED = [name for name, entry in activations.ACTIVATIONS.items() if entry.gated]
ACTIVATIONS = [name for name in activations.ACTIVATIONS if name not in GATED]
INITS = INITIALISERS.names
QUICK = {
    "trainer.max_epochs": 2,
    "data.test_fraction": 0.5,
    "data.val_fraction": 0.38,  # 216 samples to train on
    "tracking.figures": False,
    "tracking.diagnostics": False,
    "tracking.tensorboard": False,
}
WITH_TIME = ("saved_at", "started")  # what two trainings of one run never share
FUZZED = int(os.environ.get("MLPEXP_FUZZ", "4"))  # stacks; `make fuzz` takes more
GENEROUS = 1 << 30


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with trainer_setup.quiet():
        yield
    torch.set_num_threads(before)


def test_lightning_searches_the_installed_packages_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, str]] = []

    def found(**options: str) -> list[Any]:
        asked.append(options)
        return []

    monkeypatch.setattr(registry, "entry_points", found)
    with trainer_setup.quiet():
        for _ in range(2):
            Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert asked == [{"group": "lightning.pytorch.callbacks_factory"}]
    assert registry.entry_points is found


def configured(settings: Mapping[str, Any]) -> Config:
    """The configuration with these dotted keys, on little data and for two epochs unless they say otherwise."""
    plain = schema.defaults()
    for key, value in (QUICK | dict(settings)).items():
        node = plain
        *path, last = key.split(".")
        for name in path:
            node = node[name]
        node[last] = value
    return checks.parse(plain)


def of(cfg: Config) -> Prepared:
    return datasets.prepare(cfg.data)


def stacked(configs: Sequence[Config]) -> StackModule:
    """One stack of these runs, trained; equal activations stand together."""
    return train_stack(configs, [of(cfg) for cfg in configs])


def written(module: StackModule, row: int, directory: Path) -> Result:
    directory.mkdir(parents=True)
    return write_run(
        module.configs[row], module.data[row], module.state(row), directory, hparams.chosen(module.configs[row])
    )


def assert_same_run(cfg: Config, result: Result, directory: Path, alone_in: Path) -> None:
    """Train `cfg` alone, and compare all that it leaves with what a stack has left in `directory`."""
    alone = single_run.train(cfg, alone_in)
    assert (directory / file_names.METRICS).read_bytes() == (alone_in / file_names.METRICS).read_bytes(), cfg
    for key in ("status", "epoch", "epochs", "identity", "data_digest", "monitor", "message", "num_parameters"):
        assert getattr(result, key) == getattr(alone, key), (key, cfg)
    assert same(result.metrics, alone.metrics), (result.metrics, alone.metrics, cfg)
    assert same(result.objective, alone.objective), cfg
    assert set(result.files) == set(alone.files), cfg
    assert run_directory.read_result(directory).metrics.keys() == alone.metrics.keys()
    for name in (file_names.LAST, file_names.BEST):
        if name in alone.files:
            mine, theirs = (checkpoint_files.load(place / name) for place in (directory, alone_in))
            assert differences(mine, theirs) == [], (name, cfg)


def same(mine: Any, theirs: Any) -> bool:
    return differences(mine, theirs) == []


def differences(mine: Any, theirs: Any, path: str = "") -> list[str]:
    """Where two checkpoints differ, times aside; NaN equals NaN."""
    if path.rpartition("/")[2] in WITH_TIME:
        return []
    if type(mine) is not type(theirs) and not (isinstance(mine, dict) and isinstance(theirs, dict)):
        return [f"{path}: {type(mine).__name__} for {type(theirs).__name__}"]
    match mine:
        case dict():
            if mine.keys() != theirs.keys():
                return [f"{path}: {list(mine)} for {list(theirs)}"]
            return [line for key in mine for line in differences(mine[key], theirs[key], f"{path}/{key}")]
        case list() | tuple():
            if len(mine) != len(theirs):
                return [f"{path}: {len(mine)} items for {len(theirs)}"]
            pairs = enumerate(zip(mine, theirs, strict=True))
            return [line for i, pair in pairs for line in differences(*pair, f"{path}/{i}")]
        case Tensor():
            whole = mine.untyped_storage().nbytes() == mine.nbytes
            equal = mine.dtype == theirs.dtype and torch.equal(mine.nan_to_num(7.0), theirs.nan_to_num(7.0))
            return [] if equal and whole else [f"{path}: {'other values' if whole else 'a slice of a larger tensor'}"]
        case float() if math.isnan(mine):
            return [] if math.isnan(theirs) else [f"{path}: NaN for {theirs}"]
    return [] if mine == theirs else [f"{path}: {mine!r} for {theirs!r}"]


def assert_each_equals_alone(settings: Sequence[Mapping[str, Any]], place: Path) -> StackModule:
    """One stack of these runs, whose every run is also trained alone."""
    configs = [configured(one) for one in settings]
    module = stacked(configs)
    for row, cfg in enumerate(configs):
        result = written(module, row, place / f"stacked-{row}")
        assert_same_run(cfg, result, place / f"stacked-{row}", place / f"alone-{row}")
    return module


# ---------------------------------------------------------------- a run in a stack is the run alone


@pytest.mark.parametrize("names", [ACTIVATIONS, GATED], ids=["plain", "gated"])
def test_every_activation_and_initialisation_keeps_the_bits(names: list[str], tmp_path: Path) -> None:
    count = max(len(names), len(INITS))
    assert_each_equals_alone(
        [
            {
                "model.width": [9, 6],
                "model.activation": sorted(names)[i % len(names)],
                "model.init": INITS[i % len(INITS)],
                "seed": i,
                "optimizer.lr": 0.05,
                "trainer.max_epochs": 1,
            }
            | ({"model.sigma_w": 1.5, "model.sigma_b": 0.1} if INITS[i % len(INITS)] == "scaled_normal" else {})
            for i in range(count)
        ],
        tmp_path,
    )


SGD = [
    {},
    {"optimizer.momentum": 0.9, "optimizer.weight_decay": 1e-3},
    {"optimizer.momentum": 0.5, "optimizer.nesterov": True, "optimizer.schedule": "cosine"},
    {"optimizer.weight_decay": 0.01, "optimizer.schedule": "step", "optimizer.step_epochs": 1},
    {"optimizer.warmup_epochs": 1, "optimizer.lr": 0.5, "test_weights": "last", "monitor": "val/acc"},
]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_every_update_rule_schedule_and_choice_of_epoch_keeps_the_bits(optimizer: str, tmp_path: Path) -> None:
    common: dict[str, Any] = {"optimizer.name": optimizer, "trainer.max_epochs": 3}
    if optimizer != "sgd":
        common |= {"optimizer.momentum": 0.0, "optimizer.nesterov": False, "optimizer.lr": 0.003}
    assert_each_equals_alone([one | common | {"model.width": 12, "seed": i} for i, one in enumerate(SGD)], tmp_path)


DEPTHS, BATCHES = (0, 1, 3, 5), (43, 108, 300)  # 216 = 5 * 43 + 1 = 2 * 108; 300 is more than there is
EACH_ONCE = [(depth, BATCHES[i % len(BATCHES)]) for i, depth in enumerate(DEPTHS)]


@pytest.mark.parametrize(
    ("depth", "batch_size"),
    [pytest.param(*pair, marks=() if pair in EACH_ONCE else pytest.mark.thorough) for pair in product(DEPTHS, BATCHES)],
)
def test_every_depth_and_remainder_of_a_batch_keeps_the_bits(depth: int, batch_size: int, tmp_path: Path) -> None:
    shape = {"model.depth": depth, "model.width": 17, "data.batch_size": batch_size, "data.shuffle": depth != 1}
    assert_each_equals_alone([shape | {"seed": seed} for seed in (0, 2**32 - 1)], tmp_path)


def test_runs_that_end_at_different_epochs_keep_the_bits(tmp_path: Path) -> None:
    module = assert_each_equals_alone(
        [
            {"seed": 1, "trainer.max_epochs": 1},
            {"seed": 2, "trainer.max_epochs": 4, "optimizer.schedule": "cosine"},
            {"seed": 3, "trainer.max_epochs": 9, "optimizer.lr": 9.0, "early_stopping.patience": 1},
            {"seed": 4, "trainer.max_epochs": 3, "early_stopping.patience": 1, "early_stopping.min_delta": 2.0},
        ],
        tmp_path,
    )
    assert len({len(record.history) for record in module.records}) > 2


@pytest.mark.parametrize(
    "data",
    [
        {"data.folds": 4, "data.test_fraction": 0.555},  # 800 samples in four equal folds
        {"data.label_noise": 0.3},
        {"data.split": "none", "data.batch_size": 128, "trainer.max_epochs": 1},
        {"data.test_fraction": 0.0, "data.val_fraction": 0.88},
    ],
    ids=["folds", "label noise", "no split", "no test"],
)
def test_every_run_keeps_its_own_data(data: dict[str, Any], tmp_path: Path) -> None:
    each = [{"data.seed": 1}, {"data.seed": 2}, {"data.seed": 2, "seed": 5}]
    if "data.folds" in data:
        each = [{"data.fold": 0}, {"data.fold": 2}, {"data.fold": 2, "seed": 5}]
    assert_each_equals_alone([data | one | {"model.width": 8} for one in each], tmp_path)


def test_layer_statistics_are_those_of_the_run_alone(tmp_path: Path) -> None:
    settings = {"tracking.diagnostics": True, "model.width": [9, 7], "model.activation": "relu"}
    configs = [configured(settings | {"seed": seed}) for seed in (1, 2)]
    module = stacked(configs)
    for row, cfg in enumerate(configs):
        written(module, row, tmp_path / f"{row}")
        single_run.train(cfg, tmp_path / f"alone-{row}")
        mine, theirs = (
            [line.split(",") for line in (tmp_path / place / file_names.LAYERS).read_text().splitlines()[1:]]
            for place in (f"{row}", f"alone-{row}")
        )
        assert [line[:2] for line in mine] == [line[:2] for line in theirs]
        assert mine[0][0] == "-1"  # before the first step
        flat = [[float(x or "nan") for line in lines for x in line[2:]] for lines in (mine, theirs)]
        assert flat[0] == pytest.approx(flat[1], rel=1e-5, nan_ok=True)  # summed in another order


SHAPES: dict[str, Sequence[Any]] = {
    "model.depth": (0, 1, 1, 2, 2, 3, 4, 5),
    "model.width": (1, 2, 3, 7, 16, 17, 32, 50, 64, 100),
    "data.batch_size": (7, 16, 31, 32, 43, 64, 215, 216),
    "data.shuffle": (True, True, True, False),
    "data.test_fraction": (0.5, 0.5, 0.51, 0.0),
    "data.val_fraction": (0.38, 0.37),
    "optimizer.name": ("sgd", "sgd", "adam", "adamw"),
}
FREE: dict[str, Sequence[Any]] = {
    "seed": (0, 1, 2, 2**32 - 1),
    "data.seed": (0, 1, 7),
    "data.label_noise": (0.0, 0.0, 0.2),
    "model.activation": ACTIVATIONS,
    "model.init": INITS,
    "model.parametrization": ("standard", "standard", "mup"),
    "model.sigma_w": (0.5, 2.0),
    "model.sigma_b": (0.0, 0.3),
    "optimizer.lr": (1e-4, 0.01, 0.1, 0.5, 3.0),
    "optimizer.momentum": (0.0, 0.0, 0.5, 0.99),
    "optimizer.nesterov": (False, True),
    "optimizer.weight_decay": (0.0, 0.0, 1e-4, 0.1),
    "optimizer.schedule": ("constant", "cosine", "step"),
    "optimizer.step_epochs": (1, 2),
    "optimizer.warmup_epochs": (0, 0, 1),
    "early_stopping.patience": (None, None, 1, 2),
    "early_stopping.min_delta": (0.0, 0.05),
    "trainer.max_epochs": (1, 2, 3, 4),
    "monitor": ("val/loss", "val/acc"),
    "test_weights": ("best", "last"),
}


def some_runs(generator: random.Random) -> list[dict[str, Any]]:
    """Settings of runs that can share a stack, drawn at random; impossible ones are drawn again."""

    def draw(options: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        return {key: generator.choice(values) for key, values in options.items()}

    def is_possible(one: Mapping[str, Any]) -> bool:
        try:
            configured(one)
        except ConfigError:
            return False
        return True

    shape = draw(SHAPES)
    if generator.random() < 0.3:
        shape["model.width"] = [generator.choice((1, 5, 16, 33)) for _ in range(generator.randrange(1, 5))]
        del shape["model.depth"]
    chosen: list[dict[str, Any]] = []
    while len(chosen) < generator.choice((2, 2, 3)):
        if is_possible(one := draw(FREE) | shape):
            chosen.append(one)
    return sorted(chosen, key=lambda one: str(one["model.activation"]))


@pytest.mark.parametrize("number", range(FUZZED))
def test_whatever_the_options_a_stacked_run_is_the_run_alone(number: int, tmp_path: Path) -> None:
    assert_each_equals_alone(some_runs(random.Random(f"stack {number}")), tmp_path)


def test_a_stacked_run_is_continued_as_if_it_had_been_alone(tmp_path: Path) -> None:
    """Adam's averages, the schedule's place and the batch order all come from the checkpoint."""
    settings = {"optimizer.name": "adam", "optimizer.lr": 0.01, "optimizer.warmup_epochs": 1, "model.width": 8}
    module = stacked([configured(settings | {"seed": seed}) for seed in (3, 4)])
    directory, whole = tmp_path / "run", tmp_path / "whole"
    written(module, 1, directory)
    longer = {"trainer.max_epochs": 4}
    continued = resume.find(configured(longer | {"resume": str(directory)}), ["resume=…", "trainer.max_epochs=4"])
    result = single_run.train(continued.cfg, directory, continued=continued)
    expected = single_run.train(configured(settings | longer | {"seed": 4}), whole)
    assert (directory / file_names.METRICS).read_bytes() == (whole / file_names.METRICS).read_bytes()
    assert result.metrics == expected.metrics
    mine, theirs = (checkpoint_files.load(place / file_names.LAST) for place in (directory, whole))
    for part in ("epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers"):
        assert differences(mine[part], theirs[part]) == []


# ---------------------------------------------------------------- neighbours


def numbers(configs: Sequence[Config]) -> list[tuple[Any, ...]]:
    """History, test metrics and all saved tensors of each run, trained as one stack, in the order of `configs`."""
    order = sorted(range(len(configs)), key=lambda i: configs[i].model.activation)
    module = stacked([configs[i] for i in order])
    found: list[tuple[Any, ...]] = [()] * len(configs)
    for row, i in enumerate(order):
        tensors = [t[row].clone() for one in (module.best, module.last) for t in one.parameters.values()]
        found[i] = module.records[row].history, module.records[row].tested, tensors
    return found


def test_neighbours_added_taken_away_reordered_or_diverging_change_no_bit() -> None:
    common = {"model.width": 11, "model.depth": 2, "data.batch_size": 43}
    kept = [
        configured(common | one)
        for one in (
            {"seed": 1, "optimizer.momentum": 0.9},
            {"seed": 2, "model.activation": "sigmoid", "data.label_noise": 0.2},
            {"seed": 3, "model.activation": "gelu", "trainer.max_epochs": 3},
        )
    ]
    wild = [
        configured(common | {"seed": 50 + i, "optimizer.lr": 1e30, "model.activation": name})
        for i, name in enumerate(["relu", "gelu", "identity"])
    ]
    calm = [configured(common | {"seed": 90 + i, "optimizer.weight_decay": 0.1}) for i in range(40)]
    expected = numbers(kept)
    assert same(numbers(kept[::-1])[::-1], expected)
    assert same(numbers([*wild, *kept])[3:], expected)
    assert same(numbers([*calm[:20], kept[0], *calm[20:], *wild, *kept[1:]])[20::44], [expected[0]])
    assert same([numbers([one])[0] for one in kept], expected)
    history = numbers([*wild, *kept])[0][0]
    assert not math.isfinite(history[-1]["train/loss"])


# ---------------------------------------------------------------- the plan


def test_every_run_is_planned_exactly_once_and_each_stack_can_be_trained_together() -> None:
    generator = random.Random(0)
    configs = [configured(one) for _ in range(40) for one in some_runs(generator)]
    configs += [configured({"model.variant": "autograd"}), configured({"model.variant": "backprop"})]
    generator.shuffle(configs)
    division = plan(configs, [of(cfg) for cfg in configs], memory_bytes=GENEROUS)
    assert sorted([*division.alone, *(run for stack in division.stacks for run in stack.runs)]) == [
        *range(len(configs))
    ]
    for stack in division.stacks:
        members = [configs[run] for run in stack.runs]
        for uniform in (
            lambda cfg: cfg.model.hidden_sizes,
            lambda cfg: (cfg.data.batch_size, cfg.data.shuffle, cfg.optimizer.name),
            lambda cfg: [len(part) for part in of(cfg).split],
        ):
            assert all(uniform(cfg) == uniform(members[0]) for cfg in members)
        names = [cfg.model.activation for cfg in members]
        assert names == sorted(names)
        assert stack.cost > 0


def test_a_stack_keeps_to_the_memory_it_is_given() -> None:
    configs = [configured({"model.width": 400, "model.depth": 3, "seed": seed}) for seed in range(60)]
    data = [of(cfg) for cfg in configs]
    whole = plan(configs, data, memory_bytes=GENEROUS)
    small = plan(configs, data, memory_bytes=40 << 20)
    assert len(small.stacks) > len(whole.stacks)
    assert all(stack.memory_bytes <= 40 << 20 for stack in small.stacks)
    assert {len(stack.runs) for stack in plan(configs, data, memory_bytes=1).stacks} == {
        2
    }  # one would be padded to two
    lengths = [len(stack.runs) for stack in small.stacks]
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, None),
        ({"model.variant": "backprop"}, "model.variant=backprop"),
        ({"callbacks": {"x": {"_target_": "a.B"}}}, "your own callbacks"),
        ({"logger": {"x": {"_target_": "a.B"}}}, "your own logger"),
        ({"tracking.figures": True}, "tracking.figures=true"),
        ({"trainer.gradient_clip_val": 1.0}, "trainer.gradient_clip_val"),
        ({"trainer.log_every_n_steps": 7}, None),
    ],
)
def test_what_cannot_share_a_stack_says_why(settings: dict[str, Any], reason: str | None) -> None:
    assert cannot_be_stacked(configured(settings)) == reason


# ---------------------------------------------------------------- the device


class Waits(TorchDispatchMode):
    """Counts what would make the host wait for an accelerator."""

    OPERATIONS = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "unique")
    METHODS = ("tolist", "item", "numpy", "__bool__", "__int__", "__float__")

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.count = 0
        for name in self.METHODS:
            monkeypatch.setattr(Tensor, name, self._counted(getattr(Tensor, name)))

    def _counted(self, method: Any) -> Any:
        def call(*args: Any) -> Any:
            self.count += 1
            return method(*args)

        return call

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ in self.OPERATIONS
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_an_epoch_waits_for_the_device_once_however_many_steps_it_has(
    optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waits(epochs: int, batch_size: int) -> int:
        settings = {
            "trainer.max_epochs": epochs,
            "data.batch_size": batch_size,
            "optimizer.name": optimizer,
            "model.width": 4,
        }
        configs = [configured(settings | {"seed": seed, "data.label_noise": 0.1}) for seed in range(3)]
        with monkeypatch.context() as patch, Waits(patch) as counted:
            stacked(configs)
        return counted.count

    waits(1, 54), waits(1, 24)  # each shape's products are tried out once
    few, many = waits(2, 54), waits(5, 54)
    assert many - few == 3 * 1
    assert waits(2, 24) == few


def test_the_test_is_computed_where_the_training_was(monkeypatch):
    configs = [configured({"seed": seed}) for seed in range(2)]
    data = [datasets.prepare(cfg.data) for cfg in configs]
    undisturbed = train_stack(configs, data)
    test = StackModule.test

    def test_elsewhere(module: StackModule) -> None:
        module.to("meta")  # as Lightning moves a module to the CPU when a GPU has trained it
        test(module)

    monkeypatch.setattr(StackModule, "test", test_elsewhere)
    moved = train_stack(configs, data)
    assert [record.tested for record in moved.records] == [record.tested for record in undisturbed.records]


def test_orders_that_are_drawn_ahead_for_a_gpu_are_those_of_a_cpu():
    configs = [configured({"seed": seed, "trainer.max_epochs": 4}) for seed in (5, 5, *range(9))]
    module = StackModule(configs, [datasets.prepare(cfg.data) for cfg in configs])
    orders = train_stack_module._Orders(module)

    class OnGpu:
        device = torch.device("cuda")
        max_epochs, configs, data = module.max_epochs, module.configs, module.data

    orders._module = ahead = OnGpu()  # type: ignore[assignment]
    for epoch, runs in enumerate([range(11), range(11), [0, 4, 7], [7]]):
        ahead.training_runs, ahead.current_epoch = list(runs), epoch  # type: ignore[misc]
        expected = epoch_orders(orders._size, [configs[run].seed for run in runs], epoch)
        assert torch.equal(orders._order(), expected)
    orders.teardown("fit")
