"""Every command in the README and in docs/ works, in a small form: fewer values and trials, one epoch, no figures.

The commands of a page run in the page's order in one directory, so that later ones find what earlier ones made.
What a page shows as ```console is not run: it needs a cluster, a browser, or minutes.
"""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import run_script
from hydra.core.override_parser.overrides_parser import OverridesParser

from mlpexp.config import sweep_syntax

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# keys that make a command long, and what they are in the small form
SMALL = {"trainer.max_epochs": "1", "tracking.figures": "false"}
LONG = ("experiment", "trainer")  # groups that set max_epochs themselves


def commands(page: Path) -> Iterator[str]:
    """The lines of the page's ```sh blocks, continuation lines joined, without comments."""
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield shlex.join(words)


WITH_COMMANDS = [page for page in PAGES[1:] if page.exists() and any(commands(page))]


def test_every_command_of_the_readme_works(here):
    for command in commands(ROOT / "README.md"):
        _run(command)


@pytest.mark.thorough(sample=3)
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_works(page, here):
    for command in commands(page):
        _run(command)


def test_the_readme_has_the_two_commands_that_do_everything():
    found = list(commands(ROOT / "README.md"))
    assert {"make train", "make test"} <= set(found)


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def _run(command: str) -> None:
    words = shlex.split(command)
    match words:
        case ["make", *targets]:
            told = subprocess.run(
                ["make", "-n", "-C", str(ROOT), *targets], capture_output=True, text=True, timeout=60, check=False
            )
            assert told.returncode == 0, f"{command}: {told.stderr}"
        case ["tensorboard", "--logdir", place]:
            assert any(_there(place).rglob("events.out.tfevents.*")), f"{command}: nothing to see"
        case ["python", script, *arguments] if script.startswith("scripts/"):
            name = script.removeprefix("scripts/")
            arguments = [str(_there(word)) if "DATE/TIME" in word and "=" not in word else word for word in arguments]
            arguments = [re.sub(r"\S+/DATE/TIME", lambda m: str(_there(m[0])), word) for word in arguments]
            arguments = [str(_small_run(Path(word))) if word.startswith("multirun/") else word for word in arguments]
            if "--ensemble" in arguments:  # the small form of a sweep has two runs
                arguments[arguments.index("--ensemble") + 1] = "2"
            if name in ("train.py", "gradcheck.py"):
                arguments = _small(arguments, trains=name == "train.py")
            ended = run_script(name, arguments)
            assert ended.code == 0, f"{command}: {ended.err}"
        case ["git" | "cd" | "source" | "eval" | "pip", *_]:
            pass  # a person's shell, not ours
        case _:
            raise AssertionError(f"{command}: no test knows how to run this")


def _there(place: str) -> Path:
    """A directory as a page names it; DATE/TIME stands for the latest one there."""
    head, found, _ = place.partition("/DATE/TIME")
    if not found:
        return Path(place)
    head = head.rpartition("=")[2]
    latest = sorted(Path(head).glob("*/*"), key=lambda path: path.stat().st_mtime)[-1]
    return Path(place.replace(f"{head}/DATE/TIME", str(latest)))


def _small_run(named: Path) -> Path:
    """The run of a sweep's small form that has the settings of the named one; other paths as they are."""
    if named.exists() or named.parent.parent != Path("multirun"):
        return named
    return next(run for run in sorted(named.parent.iterdir()) if set(named.name.split(",")) <= set(run.name.split(",")))


def _small(arguments: list[str], *, trains: bool) -> list[str]:
    """The same command with at most two values of each swept key, few trials of a search, and short trainings."""
    flags = [word for word in arguments if word.startswith("-")]
    given = [_fewer(word) if "-m" in flags else word for word in arguments if not word.startswith("-")]
    given = [re.sub(r"^(hydra\.sweeper\.n_trials)=\d+$", r"\1=8", word) for word in given]
    resumes = any(word.startswith("resume=") for word in given)
    if not trains or {"--help", "--cfg"} & set(flags):
        return [*arguments[: len(arguments) - len(given)], *given] if "--cfg" not in flags else arguments
    small = dict(SMALL) | ({"trainer.max_epochs": "2"} if resumes else {})
    if any(word.startswith("hydra.sweeper.pruner=") for word in given):  # it compares trials before the last epoch
        small["trainer.max_epochs"] = "3"
    if resumes:
        del small["tracking.figures"]
    kept = [word for word in given if word.partition("=")[0].lstrip("+") not in small]
    return [*flags, *kept, *(f"{key}={value}" for key, value in small.items())]


def _fewer(word: str) -> str:
    """A sweep override with its first two values."""
    if word.startswith(("zip(", "grid(", "skip=", "limit=")):
        return word
    word = sweep_syntax.with_log_range(word)
    override = OverridesParser.create().parse_override(word)
    if not override.is_discrete_sweep():
        return word
    values = [text for text, _ in zip(override.sweep_string_iterator(), range(2), strict=False)]
    return f"{word.partition('=')[0]}={','.join(map(str, values))}"
