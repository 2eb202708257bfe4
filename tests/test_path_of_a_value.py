"""The way of a value from the command line to the tensors of a stack stays short; docs/architecture.md lists it."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlpexp.config import checks, compose
from mlpexp.models.stack_engine import LearningRates

SOURCE = str(Path(checks.__file__).parents[2])
FUNCTIONS, FILES = 15, 12  # lower them when it gets shorter


def test_a_learning_rate_passes_through_few_functions_to_its_stack(
    train: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: dict[tuple[str, str], None] = {}

    def noting(function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, which notes itself and its callers up to the sweeper."""

        def noted(*arguments: Any, **options: Any) -> Any:
            code, frame = function.__code__, sys._getframe(1)
            callers = [code]
            while frame.f_code.co_qualname != "run_script" and frame.f_back is not None:
                callers.append(frame.f_code)
                frame = frame.f_back
            names = [caller.co_qualname for caller in callers]
            for caller in callers[: names.index("GridSweeper.sweep") + 1]:
                if caller.co_filename.startswith(SOURCE) and not caller.co_name.startswith("<"):
                    passed[caller.co_filename, caller.co_qualname] = None
            return function(*arguments, **options)

        return noted

    # where it becomes an entry of a mapping, an attribute of the typed configuration, an element of a tensor
    monkeypatch.setattr(compose, "apply", noting(compose.apply))
    monkeypatch.setattr(checks, "parse", noting(checks.parse))
    monkeypatch.setattr(LearningRates, "in_epoch", noting(LearningRates.in_epoch))
    ended = train(
        "-m optimizer.lr=0.1,0.3 trainer.max_epochs=1 model.width=4 data.batch_size=300 name=s "
        "hydra.launcher.backend=process"
    )
    assert ended.code == 0, ended.err
    names = [name for _, name in passed]
    assert {"GridSweeper.sweep", "check", "apply", "parse", "Sweep.launch", "LearningRates.in_epoch"} < set(names)
    assert len(passed) <= FUNCTIONS, names
    assert len({file for file, _ in passed}) <= FILES, sorted({file for file, _ in passed})
