"""An ensemble of runs of a sweep: which, whether they can be averaged, and their answers.

Letters: M members, R candidates, N samples, C classes or values of a regression.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mlpexp import data as datasets
from mlpexp.config.schema import Config
from mlpexp.data.data_config import DataConfig
from mlpexp.data.data_description import Description
from mlpexp.evaluation import ensemble_members, greedy_selection, member_checks
from mlpexp.evaluation.ensemble_members import Choice
from mlpexp.evaluation.stacked_networks import (
    EnsembleNetwork,
    StackedNetworks,
    chosen_stacks,
    load_stacks,
    outputs_of_all,
)
from mlpexp.evaluation.trained_run import described_layers, precision_remark
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.terminal import counted

MAX_CANDIDATES = 1_000  # of greedy selection, the best by validation


@dataclass(frozen=True, kw_only=True)
class Member:
    """Attributes:
    picks: how often it was picked; 1 but for greedy selection.
    rank: its place among the candidates, from 0, which is the best by validation.
    validation: its value of the metric that ordered the candidates.
    """

    name: str
    picks: int
    rank: int
    validation: float


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Attributes:
    sweep: its directory.
    members: the best by validation first; with greedy selection in the order of the first picks, M.
    metric: the validation metric that ordered the candidates.
    cfg: of the first member.
    data: what the members were trained on, and their preprocessing.
    remarks: what a reader of its numbers has to know.
    """

    sweep: Path
    choice: Choice
    members: list[Member]
    metric: str
    cfg: Config
    data: Description
    stacks: list[StackedNetworks]
    remarks: list[str]
    configuration: str | None = None

    @property
    def shares(self) -> NDArray[np.float64]:
        """The weight of each member, (M,)."""
        picks = np.array([member.picks for member in self.members], dtype=float)
        shares: NDArray[np.float64] = picks / picks.sum()
        return shares

    @cached_property
    def module(self) -> EnsembleNetwork:
        return EnsembleNetwork(self.stacks, dict(enumerate(self.shares.tolist()))).eval()

    @property
    def title(self) -> Path:
        return self.sweep

    @property
    def located_data(self) -> DataConfig:
        return datasets.locate(self.cfg.data, self.sweep / self.members[0].name, self.data.digest)

    @property
    def weights_description(self) -> str:
        """E.g. `ensemble of the 10 networks with the best val/loss`."""
        count, picks = len(self.members), sum(member.picks for member in self.members)
        networks = counted(count, "network")
        match self.choice.by:
            case "best":
                return f"ensemble of the {networks} with the best {self.metric}"
            case "greedy":
                num_picks = counted(picks, "pick")
                return f"ensemble of {networks} by greedy selection ({num_picks}) on the validation part"
            case "seeds":
                return f"ensemble of {networks} of the best configuration by {self.metric}: {self.configuration}"

    def remark(self) -> str | None:
        return precision_remark(cfg for stack in self.stacks for cfg in stack.configs)

    def origin(self) -> dict[str, Any]:
        """What an exported file says of the networks, as plain builtins."""
        configs = {index: cfg for stack in self.stacks for index, cfg in zip(stack.runs, stack.configs, strict=True)}
        sizes = {index: stack.network.sizes for stack in self.stacks for index in stack.runs}
        networks = [
            {"run": member.name, "share": share, "sizes": sizes[index]} | described_layers(configs[index].model)
            for index, (member, share) in enumerate(zip(self.members, self.shares.tolist(), strict=True))
        ]
        return {"ensemble": {"sweep": str(self.sweep), "selection": self.weights_description, "networks": networks}}

    def member_outputs(self, inputs: Tensor) -> NDArray[np.float64]:
        """Probabilities of each member (M, N, C) for prepared inputs (N, I); in a regression values in data units.

        Raises:
            UserError: an output is not finite.
        """
        return outputs_of_all(self.stacks, inputs)

    def outputs(self, inputs: Tensor) -> NDArray[np.float64]:
        """The weighted mean of the members' outputs, (N, C)."""
        return self.mean(self.member_outputs(inputs))

    def mean(self, outputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of outputs of the members (M, N, C), (N, C)."""
        mean: NDArray[np.float64] = np.tensordot(self.shares, outputs, 1)
        return mean


def load(sweep: Path, choice: Choice) -> Ensemble:
    """The ensemble that `choice` makes of the runs of a sweep.

    Raises:
        UserError: there are too few runs, they differ in data, target or preprocessing, or a checkpoint is unusable.
    """
    candidates = ensemble_members.find(sweep, choice)
    limit = len(candidates.names) if choice.count is None else choice.count
    remarks = [candidates.left_out] if candidates.left_out else []
    if choice.by == "greedy":
        limit = MAX_CANDIDATES
        if len(candidates.names) > limit:
            remarks.append(f"greedy selection among the best {limit:,} of {len(candidates.names):,} runs by validation")
    names = candidates.names[:limit]
    stacks = list(load_stacks([sweep / name for name in names]))
    member_checks.check_shared_data(sweep, names, stacks)
    validation = member_checks.validation_part(sweep / names[0], stacks)
    if validation is not None:
        member_checks.check_recorded(sweep, names, candidates.recorded, stacks, *validation)
    picks = dict.fromkeys(range(len(names)), 1)
    if choice.by == "greedy" and choice.count is not None:
        if validation is None:
            raise UserError(f"greedy selection needs the data of {sweep}, which is not available or has changed")
        picks = Counter(_greedy(stacks, *validation, choice.count))  # in the order of the first picks
        stacks = chosen_stacks(stacks, list(picks))
    if guessing := [names[index] for index in picks if candidates.is_chance[index]]:
        remarks.append(f"no better than guessing: {len(guessing):,} of {len(picks):,} members, e.g. {guessing[0]}")
    first_stack = next(stack for stack in stacks if 0 in stack.runs)
    return Ensemble(
        sweep=sweep,
        choice=choice,
        members=[
            Member(name=names[index], picks=count, rank=index, validation=candidates.values[index])
            for index, count in picks.items()
        ],
        metric=candidates.metric,
        cfg=first_stack.configs[first_stack.runs.index(0)],
        data=first_stack.data,
        stacks=stacks,
        remarks=remarks,
        configuration=candidates.configuration,
    )


def _greedy(stacks: Sequence[StackedNetworks], inputs: Tensor, labels: Tensor, picks: int) -> list[int]:
    if labels.is_floating_point():
        data = stacks[0].data
        scaled = (outputs_of_all(stacks, inputs) - data.target_shift) / data.target_scale  # (R, N, T)
        loss = greedy_selection.squared_error(labels.double().numpy().reshape(-1))
        return greedy_selection.select(scaled.reshape(len(scaled), -1), loss, picks)
    true = labels.numpy()
    probabilities = np.empty((sum(len(stack.runs) for stack in stacks), len(true)))
    for stack in stacks:
        probabilities[stack.runs] = stack.predictions(inputs)[:, np.arange(len(true)), true]
    return greedy_selection.select(probabilities, greedy_selection.log_loss, picks)
