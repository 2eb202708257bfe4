"""Data-parallel training is the same run over several processes: weights to rounding, one set of files, no orphans."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mlpexp.config import checks
from mlpexp.data.batches import Batches
from mlpexp.runtime.distributed import Share
from mlpexp.runtime.errors import ConfigError
from mlpexp.store import checkpoint_files

RUN = "data=iris trainer.max_epochs=2 model.width=16 tracking.figures=false "


def table(run: Path) -> list[list[float]]:
    with (run / "metrics.csv").open() as file:
        return [[float(value) for value in row] for row in list(csv.reader(file))[1:]]


def test_a_run_over_two_processes_equals_the_same_run_in_one(train: Callable[..., Any], here: Path) -> None:
    for words in ("hydra.run.dir=one", "hydra.run.dir=two trainer=ddp"):
        ended = train(RUN + words)
        assert ended.code == 0, ended.err
    for name in ("best", "last"):
        one, two = (checkpoint_files.load(here / run / f"checkpoints/{name}.ckpt") for run in ("one", "two"))
        for key, weight in one["state_dict"].items():
            torch.testing.assert_close(two["state_dict"][key], weight, rtol=1e-5, atol=1e-6)
        assert two["callbacks"]["Recorder"].keys() == one["callbacks"]["Recorder"].keys()
    for ours, theirs in zip(table(here / "two"), table(here / "one"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    results = [json.loads((here / run / "result.json").read_bytes()) for run in ("one", "two")]
    assert results[1]["metrics"] == pytest.approx(results[0]["metrics"], rel=1e-5)
    names = [sorted(name for name in result["files"] if not name.startswith("events")) for result in results]
    assert names[0] == names[1]


def test_in_a_sweep_it_trains_alone_and_the_line_says_why(train: Callable[..., Any], here: Path) -> None:
    ended = train("-m seed=1,2 name=s data=iris trainer=ddp trainer.max_epochs=1 model.width=8")
    assert ended.code == 0, ended.err
    assert "2 of them train alone: trainer.strategy" in ended.out
    assert [run.name for run in sorted((here / "multirun/s").glob("*seed=*"))] != []


@pytest.mark.parametrize("size", [1, 5, 32])
def test_the_ranks_slices_make_up_every_batch(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, labels = torch.arange(37).float().unsqueeze(-1), torch.arange(37)
    whole = list(Batches(inputs, labels, size))
    parts = []
    for rank in range(3):
        monkeypatch.setattr("mlpexp.data.batches.share", lambda rank=rank: Share(rank, 3))
        parts.append(list(Batches(inputs, labels, size)))
    for i, (batch, expected) in enumerate(whole):
        assert torch.equal(torch.cat([part[i][0] for part in parts]), batch)
        assert torch.equal(torch.cat([part[i][1] for part in parts]), expected)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"trainer": {"devices": 2}}, "trainer=ddp"),
        ({"trainer": {"devices": 2, "strategy": "ddp_fork"}, "model": {"variant": "backprop"}}, "torch_nn"),
        ({"trainer": {"devices": 0, "strategy": "ddp_fork"}}, "trainer.devices=0"),
    ],
)
def test_what_cannot_be_divided_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        checks.parse(settings)
