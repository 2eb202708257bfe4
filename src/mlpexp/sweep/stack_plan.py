"""How a sweep is divided: stacks, and runs that train alone."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Runs that are trained together, by their position in the sweep; equal activations are neighbours."""

    runs: list[int]
    seconds: float  # estimated
    memory_bytes: int  # estimated


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Every run of the sweep exactly once."""

    stacks: list[Stack]
    alone: dict[int, str]  # position -> why
    workers: int = 1
    slowness: float = 1.0  # of this machine as busy as it is, beside the one of the estimates

    @property
    def seconds(self) -> float:
        """Estimated time of the stacks on one core of the machine of the estimates."""
        return sum(stack.seconds for stack in self.stacks)
