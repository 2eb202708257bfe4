"""What becomes of a unit whose worker was lost: once more, then by halves, until it is known which run kills."""

from dataclasses import replace

from mlpexp.runtime.errors import RunsFailed
from mlpexp.sweep.backends.remote_work import Ended, Lost
from mlpexp.sweep.failure_record import failed
from mlpexp.sweep.work_unit import Unit

ATTEMPTS = 2
HOPELESS = 6  # workers lost before any unit was done


class Losses:
    """Ends a sweep whose workers die whatever they are given."""

    def __init__(self) -> None:
        self._without_success: float = 0

    def succeeded(self) -> None:
        self._without_success = float("-inf")

    def lost(self, error: object) -> None:
        """
        Raises:
            RunsFailed: no worker lives long enough for anything.
        """
        self._without_success += 1
        if self._without_success >= HOPELESS:
            raise RunsFailed(f"{HOPELESS} workers were lost before any of them finished a stack: {error}")


def again(unit: Unit) -> tuple[list[Unit], Ended]:
    """What to try next, and what is given up."""
    unit = replace(unit, losses=unit.losses + 1)
    if unit.losses < ATTEMPTS:
        return [unit], []
    if len(unit.jobs) == 1:
        error = Lost(f"its worker process was lost {unit.losses} times")
        return [], [(unit.places[0], failed(unit.jobs[0], error))]
    half = len(unit.jobs) // 2
    # one more loss and they are halved again
    pieces = [
        replace(unit, places=unit.places[part], jobs=unit.jobs[part], losses=ATTEMPTS - 1, cost=unit.cost / 2)
        for part in (slice(half), slice(half, None))
    ]
    return pieces, []


def told(unit: Unit, who: str, error: object = None) -> str:
    """The line about a loss."""
    count = len(unit.jobs)
    runs = f"its run {unit.jobs[0].directory.name} is" if count == 1 else f"its {count:,} runs are"
    last = unit.losses + 1 >= ATTEMPTS and count == 1
    why = f" ({' '.join(str(error).split()).rstrip('.')[:200]})" if error is not None else ""
    return f"{who} was lost{why}; {runs} " + ("given up" if last else "tried again")
