"""A sweep's life, drawn at random: started, killed, its disk failing, its files damaged, its grid grown and shrunk.

Whatever came before, a finished run is neither lost nor trained twice, and the next undisturbed start leaves the
numbers and weights of a sweep to which nothing ever happened.
"""

import csv
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from itertools import product
from pathlib import Path

from forks import Ended, run
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from inject import Fault
from sweeps import QUICK, Broken, finished, picture, untouched

from mlpexp.store import file_names, run_table

WIDTHS, SEEDS = (4, 6, 8), (1, 2, 3)
TABLE = ("record=table", "tracking.tensorboard=false")
GRIDS = st.tuples(
    st.lists(st.sampled_from(WIDTHS), min_size=2, unique=True),
    st.lists(st.sampled_from(SEEDS), min_size=1, unique=True),
)
Picture = dict[str, str]
Rows = dict[str, dict[str, str]]
MANIFEST = "multirun/s/sweep.json"


def live(top: Path, number: int, examples: int) -> int:
    """Draw so many lives; returns the number of commands in them."""
    expected = {kind: _undisturbed(top, kind) for kind in ("run", "table")}
    return run_lives(lambda count: Life(top, expected, count), number, examples, steps=8)


def run_lives(
    machine: Callable[[Callable[[], None]], RuleBasedStateMachine], number: int, examples: int, steps: int
) -> int:
    """Run state machines of so many steps, drawn from seed `number`; returns how often they have called `count`.

    Args:
        machine: makes one, given `count`.
    """
    commands = 0

    def made() -> RuleBasedStateMachine:
        return machine(count)

    def count() -> None:
        nonlocal commands
        commands += 1

    made._hypothesis_internal_use_seed = number  # type: ignore[attr-defined]  # as `seed` leaves it
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        made,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # few steps need no shrinking, which would take minutes
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
    return commands


class Life(RuleBasedStateMachine):
    """One sweep's directory."""

    def __init__(self, top: Path, expected: dict[str, tuple[Picture, Rows]], count: Callable[[], None]) -> None:
        super().__init__()
        self.place, self.count = Path(tempfile.mkdtemp(dir=top)), count
        self.everything = expected
        self.kind = "run"
        self.grid: tuple[list[int], list[int]] = ([4, 6], [1])

    @initialize(kind=st.sampled_from(["run", "run", "table"]), grid=GRIDS)
    def begin(self, kind: str, grid: tuple[list[int], list[int]]) -> None:
        self.kind, self.grid = kind, grid

    @rule(grid=GRIDS)
    def change_the_grid(self, grid: tuple[list[int], list[int]]) -> None:
        """A larger one, a smaller one, another order."""
        self.grid = grid

    @rule()
    def start(self) -> None:
        ended = self._command()
        if ended.code or ended.err:
            raise Broken.by(ended)
        self._compare()

    @rule(number=st.integers(0, 120), torn=st.booleans())
    def start_and_be_killed(self, number: int, torn: bool) -> None:
        ended = self._command(Fault(number, torn=torn))
        if ended.code != (-9 if ended.hits else 0):
            raise Broken.by(ended)

    @rule(
        number=st.integers(0, 120),
        error=st.sampled_from([errno.ENOSPC, errno.EIO, errno.EDQUOT]),
        lasting=st.booleans(),
    )
    def start_while_the_disk_fails(self, number: int, error: int, lasting: bool) -> None:
        ended = self._command(Fault(number, error=error, torn=True, lasting=lasting))
        if ended.hits and (ended.code != 1 or len(ended.lines) != 1 or os.strerror(error) not in ended.err):
            raise Broken.by(ended, f"{ended.hit}; ")

    @precondition(lambda self: self._files())
    @rule(which=st.integers(0, 10**6), where=st.floats(0, 1), how=st.sampled_from(["flip", "cut", "empty", "lose"]))
    def damage_a_file(self, which: int, where: float, how: str) -> None:
        files = self._files()
        path = files[which % len(files)]
        content = bytearray(path.read_bytes())
        match how:
            case "flip" if content:
                bit = int(where * (8 * len(content) - 1))
                content[bit // 8] ^= 1 << bit % 8
            case "cut":
                del content[int(where * len(content)) :]
            case "empty":
                content.clear()
        path.unlink() if how == "lose" else path.write_bytes(content)

    @precondition(lambda self: (self.place / MANIFEST).exists())
    @rule(where=st.floats(0, 1))
    def damage_what_the_study_is(self, where: float) -> None:
        """Nobody can tell any more whether it is the same study: refused, until a person has moved it away."""
        path = self.place / MANIFEST
        content = bytearray(path.read_bytes())
        bit = int(where * (8 * len(content) - 1))
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        ended = self._command()
        if ended.code == 0 and not ended.err:
            return  # a blank has become another one
        if ended.code != 2 or len(ended.lines) != 1 or "sweep.json" not in ended.err:
            raise Broken.by(ended)
        path.unlink()

    def teardown(self) -> None:
        try:
            self.start()
        finally:
            shutil.rmtree(self.place)

    def _command(self, fault: Fault | None = None) -> Ended:
        self.count()
        before, lines = finished(self.place), self._lines()
        ended = run(self.place, _words(self.kind, *self.grid), fault)
        untouched(self.place, before)
        now = self._lines()
        for name, known in lines.items():
            if now.get(name) != known:
                raise Broken(f"{name} was in the table, and was trained again or lost")
        return ended

    def _compare(self) -> None:
        """All that the grid names is there as in an undisturbed sweep, and the table shows it in the grid's order."""
        names = [f"width={width},max_epochs=1,seed={seed}" for width, seed in product(*self.grid)]
        found = picture(self.place, names)
        expected, wanted = self.everything[self.kind]
        for key, value in expected.items():
            if key.partition(":")[0] in names and found.get(key) != value:
                raise Broken(f"{key} is {str(found.get(key))[:200]} in place of {value[:200]}")
        rows = table_rows(self.place / "multirun/s")
        if list(rows) != names:
            raise Broken(f"the table has {list(rows)} in place of {names}")
        for name, row in rows.items():
            if row != wanted[name]:
                raise Broken(f"the row of {name} is {row} in place of {wanted[name]}")

    def _files(self) -> list[Path]:
        sweep = self.place / "multirun/s"
        inside = (path for path in sweep.glob("*=*/**/*") if path.is_file())
        return sorted([*inside, *sweep.glob(file_names.TABLE), *sweep.glob("results.csv")])

    def _lines(self) -> dict[str, list[str]]:
        """Digests of the lines that the journal has of each run."""
        found: dict[str, list[str]] = {}
        for name, files in run_table.read(self.place / "multirun/s"):
            found.setdefault(name, []).append(hashlib.sha256(files[file_names.RESULT].encode()).hexdigest())
        return found


def _words(kind: str, widths: list[int], seeds: list[int]) -> list[str]:
    grid = [f"{key}={','.join(map(str, values))}" for key, values in (("model.width", widths), ("seed", seeds))]
    return ["-m", *grid, *QUICK, *(TABLE if kind == "table" else ())]


def _undisturbed(top: Path, kind: str) -> tuple[Picture, Rows]:
    place = Path(tempfile.mkdtemp(dir=top))
    ended = run(place, _words(kind, list(WIDTHS), list(SEEDS)))
    if ended.code:
        raise Broken(ended.err)
    return picture(place), table_rows(place / "multirun/s")


def table_rows(sweep: Path) -> Rows:
    """The table by name, without times and what depends on the size of the grid."""
    with (sweep / "results.csv").open(newline="") as file:
        return {
            row["name"]: {
                key: cell for key, cell in row.items() if key not in ("run", "seconds", "model.width", "seed")
            }
            for row in csv.DictReader(file)
        }
