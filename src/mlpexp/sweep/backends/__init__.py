"""Where the units of a sweep are worked on: in this process, over its cores, over a cluster.

Whatever the place, the files and their bits are the same.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from mlpexp.sweep.jobs import Outcome
from mlpexp.sweep.work import Unit


class Backend(Protocol):
    """Works on units, in any order."""

    def run(self, units: Sequence[Unit], advance: Callable[[float], None]) -> Iterator[tuple[int, Outcome]]:
        """Each run's place and outcome, soon after it has ended; nothing is left behind when the iterator closes.

        Args:
            advance: may be told how far a stack is, counted in whole runs.

        Raises:
            Interrupted: stopped by a signal.
        """
        ...
