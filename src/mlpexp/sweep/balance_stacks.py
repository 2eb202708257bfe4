"""A plan for several workers: no stack so long that the others would wait for it."""

from collections.abc import Iterator
from dataclasses import replace

from mlpexp.sweep.stack_plan import Plan, Stack

USUAL = 48  # runs below which a stack costs noticeably more per run
LEAST = 2


def spread(division: Plan, workers: int) -> Plan:
    """The same runs in at least as many stacks as workers where there are enough of them."""
    if workers == 1 or not division.stacks:
        return division
    share = division.seconds / workers
    stacks = [piece for stack in division.stacks for piece in _cut(stack, share)]
    return replace(division, stacks=stacks, workers=workers)


def _cut(stack: Stack, share_s: float) -> Iterator[Stack]:
    runs = stack.runs
    needed = min(-(-stack.seconds // share_s), len(runs) // LEAST)  # for every worker to have one
    even = min(-(-stack.seconds // (share_s / 2)), len(runs) // USUAL)  # for all to end at about the same time
    pieces = max(1, int(needed), int(even))
    for piece in range(pieces):
        part = runs[piece * len(runs) // pieces : (piece + 1) * len(runs) // pieces]
        portion = len(part) / len(runs)
        yield Stack(runs=part, seconds=stack.seconds * portion, memory_bytes=int(stack.memory_bytes * portion))
