"""Stacks are sized by the cache of a CPU, and by the free memory of a GPU."""

import pytest
import torch

from mlpexp import data as datasets
from mlpexp.config import checks
from mlpexp.engine.stack_memory import DEVICE_SHARE, device_bytes_per_run, free_device_bytes
from mlpexp.training.planner import MAX_DEVICE_RUNS, MAX_RUNS, plan

GIB = 1 << 30


@pytest.fixture
def gpu(monkeypatch):
    """A GPU with so much free memory."""

    def give(free: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free // (1 + device), 80 * GIB))

    return give


def largest_stack(accelerator: str, runs: int, **stack: object) -> int:
    cfg = checks.parse({"trainer": {"accelerator": accelerator}, "stack": {"engine": "torch"} | stack})
    stacks = plan(
        [cfg] * runs, [datasets.prepare(cfg.data)] * runs, memory_bytes=(stack.get("memory_mib") or 4096) << 20
    ).stacks
    assert sum(len(one.runs) for one in stacks) == runs
    return max(len(one.runs) for one in stacks)


def test_a_gpu_gets_stacks_of_thousands_and_a_cpu_what_fits_its_cache(gpu):
    gpu(60 * GIB)
    assert largest_stack("cpu", 5000) <= MAX_RUNS["torch"] < largest_stack("cpu", 5000, engine="compiled") <= 512
    assert largest_stack("gpu", 5000) == 2500  # two equal ones
    assert largest_stack("gpu", MAX_DEVICE_RUNS) == MAX_DEVICE_RUNS


def test_little_memory_on_the_gpu_makes_smaller_stacks(gpu):
    gpu(GIB // 2)
    cfg = checks.parse({})
    prepared = datasets.prepare(cfg.data)
    network = cfg.model.network(prepared.num_inputs, prepared.num_classes)
    own = device_bytes_per_run(network, len(prepared.split.train), len(prepared.split.test), cfg.data.batch_size)
    stack = largest_stack("gpu", 4000)
    assert stack * own <= DEVICE_SHARE * GIB / 2 < 1.2 * stack * own
    assert largest_stack("gpu", 4000, memory_mib=20) * own <= 20 << 20


def test_the_memory_is_that_of_the_device_that_is_used(gpu):
    gpu(8 * GIB)
    assert free_device_bytes("gpu", {"devices": [1]}) == int(DEVICE_SHARE * 4 * GIB)
    assert free_device_bytes("cuda") == int(DEVICE_SHARE * 8 * GIB)
    assert free_device_bytes("cpu") is None


def test_without_a_gpu_nothing_is_asked(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert free_device_bytes("auto") is None
