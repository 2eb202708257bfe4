"""Make the pictures of README.md and docs/ again: the report, TensorBoard's HParams, a terminal with a thousand runs.

Needs chromium and tmux. `python docs/site/pictures.py report terminal` makes some of them.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs/images"
PROMPT = "$ "
GRID = [
    *("-m", "name=grid", "report=true", "model.depth=1,2,3", "model.width=32,64,128"),
    *("model.activation=tanh,relu,gelu", "seed=range(10)"),
]
THOUSAND = "python scripts/train.py -m name=seeds 'seed=range(1000)' record=table report=true"
COLUMNS, ROWS = 100, 40
# as in an active environment: the commands that are printed then have no paths of this machine
ACTIVE = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PS1": PROMPT}


def report(work: Path) -> None:
    """The first screen of the report of 270 runs."""
    _train_grid(work)
    _photograph((work / "multirun/grid/report/index.html").as_uri(), IMAGES / "report.png", 1100, 770)


def hparams(work: Path) -> None:
    """TensorBoard's table of the same runs."""
    _train_grid(work)
    log = work / "tensorboard.log"
    program = [str(Path(sys.executable).parent / "tensorboard"), "--logdir", str(work / "multirun/grid"), "--port", "0"]
    with log.open("w") as opened, subprocess.Popen(program, stdout=opened, stderr=opened) as server:
        try:
            address = _address(log, runs=270)
            _photograph(f"{address}#hparams", IMAGES / "hparams.png", 1400, 800, seconds=60)  # it draws 270 rows
        finally:
            server.terminate()


def terminal(work: Path) -> None:
    """What a terminal shows of a sweep of a thousand runs, as SVG."""
    name = f"pictures{os.getpid()}"
    tmux = ["tmux", "-L", name]
    subprocess.run(
        [
            *tmux,
            "new-session",
            "-d",
            "-x",
            str(COLUMNS),
            "-y",
            str(ROWS),
            "-c",
            str(work),
            "env PS1='$ ' bash --norc --noprofile",
        ],
        check=True,
        env=ACTIVE,
    )
    try:
        subprocess.run([*tmux, "send-keys", f"clear; {THOUSAND}; touch ended", "Enter"], check=True)
        _wait_for((work / "ended").exists, 600)
        time.sleep(1)
        shown = subprocess.run([*tmux, "capture-pane", "-e", "-p"], check=True, capture_output=True, text=True).stdout
    finally:
        subprocess.run([*tmux, "kill-server"], check=False)
    lines = [line for line in shown.rstrip().splitlines() if "touch ended" not in line]
    while lines and lines[-1].strip() in ("", PROMPT.strip()):
        lines.pop()
    console = Console(record=True, width=COLUMNS, file=StringIO())
    console.print(Text(f"{PROMPT}{THOUSAND}"))
    console.print(Text.from_ansi("\n".join(lines)))
    svg = console.export_svg(title="a thousand runs")
    (IMAGES / "terminal.svg").write_text(_without_fonts_of_other_hosts(svg), encoding="utf-8")


PICTURES: dict[str, Callable[[Path], None]] = {"report": report, "hparams": hparams, "terminal": terminal}


def main() -> None:
    """Make the pictures that the command names, all by default."""
    names = sys.argv[1:] or list(PICTURES)
    if unknown := set(names) - set(PICTURES):
        sys.exit(f"unknown picture {', '.join(sorted(unknown))}; choose from {', '.join(PICTURES)}")
    if missing := [program for program in ("chromium", "tmux") if shutil.which(program) is None]:
        sys.exit(f"pictures need {', '.join(missing)}; install them with the system's package manager")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("scripts", "conf"):
            Path(folder, name).symlink_to(ROOT / name)
        for name in names:
            PICTURES[name](Path(folder))
            print(f"docs/images: {name}")


def _train_grid(work: Path) -> None:
    if not (work / "multirun/grid/report").exists():
        subprocess.run(["python", "scripts/train.py", *GRID], cwd=work, check=True, env=ACTIVE)


def _photograph(address: str, image: Path, width: int, height: int, seconds: int = 5) -> None:
    """A screenshot of a page after so many seconds of the page's own clock."""
    with tempfile.TemporaryDirectory() as profile:
        words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
        words += [f"--window-size={width},{height}", f"--virtual-time-budget={seconds * 1000}"]
        subprocess.run(
            ["chromium", *words, f"--screenshot={image}", address], check=True, capture_output=True, timeout=300
        )


def _address(log: Path, runs: int) -> str:
    """TensorBoard's address, when it has read so many runs."""
    found: list[str] = []

    def is_ready() -> bool:
        found[:] = [word for word in log.read_text().split() if word.startswith("http://") and word.endswith("/")]
        if not found:
            return False
        with urllib.request.urlopen(f"{found[-1]}data/runs") as answer:
            return answer.read().count(b"seed=") >= runs

    _wait_for(is_ready, 300)
    return found[-1]


def _wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not ready after {seconds:.0f} s")
        time.sleep(0.3)


def _without_fonts_of_other_hosts(svg: str) -> str:
    head, rest = svg.split("<style>", 1)
    style, tail = rest.split("</style>", 1)
    while "@font-face" in style:
        before, after = style.split("@font-face", 1)
        style = before + after.split("}", 1)[1]
    return f"{head}<style>{style}</style>{tail}"


if __name__ == "__main__":
    main()
