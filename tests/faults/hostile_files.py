"""Trials of files that are not what they should be: special files, links, hard links, resealed content."""

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from forks import run
from sweeps import SMALL, TABLE, Broken, finished, untouched
from trial import Campaign, Case

from mlpexp.store import file_names, run_directory


def special(campaign: Campaign) -> Iterator[tuple[str, Case]]:
    """Each kind of file replaced by a FIFO, a socket, a device, a directory, a link to itself."""
    for words in (SMALL, TABLE):
        whole = _whole(campaign, words)
        names = _kinds(whole)
        for name in campaign.random.sample(names, 4) if campaign.sample else names:
            for kind, make in campaign.few_of(list(SPECIAL.items())):

                def case(
                    place: Path,
                    whole: Path = whole,
                    words: list[str] = words,
                    name: str = name,
                    make: Callable[[Path], None] = make,
                ) -> str:
                    shutil.copytree(whole, place, dirs_exist_ok=True)
                    (place / name).unlink()
                    make(place / name)
                    ended = run(place, words)
                    if ended.code not in (0, 2) or len(ended.lines) > 1 or "Traceback" in ended.err:
                        raise Broken.by(ended)
                    if ended.code == 0:
                        return "carried on"
                    _remove(place / name)
                    if name.endswith(".jsonl") or words is TABLE:
                        shutil.copy(whole / name, place / name)
                    campaign.again(place, words)
                    return "refused"

                yield f"{kind} for {name}", case


def links(campaign: Campaign) -> Iterator[tuple[str, Case]]:
    """Each file and each directory moved elsewhere, with a link in its place: nothing elsewhere may change."""
    for words in (SMALL, TABLE):
        whole = _whole(campaign, words)
        names = _kinds(whole)
        names += sorted({str(Path(name).parent) for name in names} - {"multirun", "multirun/s"})
        for name in campaign.random.sample(names, 3) if campaign.sample else names:

            def case(place: Path, whole: Path = whole, words: list[str] = words, name: str = name) -> str:
                shutil.copytree(whole, place, dirs_exist_ok=True)
                shutil.move(place / name, place / "theirs")
                (place / name).symlink_to(place / "theirs")
                before = _content(place / "theirs")
                ended = run(place, [*words, "seed=1,2,3"])
                if ended.code not in (0, 2) or len(ended.lines) > 1:
                    raise Broken.by(ended)
                if _content(place / "theirs") != before:
                    raise Broken(f"what {name} was linked to has changed")
                return "carried on" if ended.code == 0 else "refused"

            yield f"a link for {name}", case


def snapshots(campaign: Campaign) -> Iterator[tuple[str, Case]]:
    """A copy by hard links keeps its content while the sweep is spoiled and grown."""
    for words in (SMALL, TABLE):
        whole = _whole(campaign, words)
        for name in campaign.random.sample(_kinds(whole), 2) if campaign.sample else _kinds(whole):

            def case(place: Path, whole: Path = whole, words: list[str] = words, name: str = name) -> None:
                shutil.copytree(whole, place, dirs_exist_ok=True)
                shutil.copytree(place / "multirun", place / "copy", copy_function=os.link)
                before = _content(place / "copy")
                (place / name).unlink()
                ended = run(place, [*words, "seed=1,2,3"])
                if ended.code:
                    raise Broken.by(ended)
                if _content(place / "copy") != before:
                    raise Broken("the copy by hard links has changed")

            yield f"without {name}", case


def shifted(campaign: Campaign) -> Iterator[tuple[str, Case]]:
    """Grids that grow and shrink while the names of directories are the runs' numbers."""
    for number in range(1 if campaign.sample else 6):
        grids = [sorted(campaign.random.sample(range(6), campaign.random.randrange(1, 5))) for _ in range(3)]

        def case(place: Path, grids: list[list[int]] = grids, number: int = number) -> None:
            before: dict[str, tuple[bytes, int]] = {}
            trained: set[int] = set()
            for seeds in grids:
                subdir = "hydra.sweep.subdir=${hydra.job.num}"
                ended = run(place, [*SMALL, f"seed={','.join(map(str, seeds))}", subdir])
                if ended.code:
                    raise Broken.by(ended)
                untouched(place, before)
                trained |= set(seeds)
                before = finished(place)
                if len(before) != 2 * len(trained):  # two widths
                    raise Broken(f"{len(before)} runs are there, {2 * len(trained)} were trained")

        yield f"seeds {grids}", case


def resealed(campaign: Campaign) -> Iterator[tuple[str, Case]]:
    """Markers and table lines of a wrong content with its right checksum."""
    for words in (SMALL, TABLE):
        whole = _whole(campaign, words)
        for what, change in campaign.few_of(list(CHANGES.items())):

            def case(
                place: Path,
                whole: Path = whole,
                words: list[str] = words,
                change: Callable[[dict[str, object]], object] = change,
            ) -> str:
                shutil.copytree(whole, place, dirs_exist_ok=True)
                sweep = place / "multirun/s"
                if words is TABLE:
                    path = sweep / file_names.TABLE
                    line, *others = path.read_text().splitlines(keepends=True)
                    entry = json.loads(line[65:])
                    entry["files"][file_names.RESULT] = _resealed(entry["files"][file_names.RESULT], change)
                    content = json.dumps(entry, separators=(",", ":"))
                    path.write_text(f"{hashlib.sha256(content.encode()).hexdigest()} {content}\n{''.join(others)}")
                else:
                    path = next(sweep.glob(f"*/{file_names.RESULT}"))
                    path.write_text(_resealed(path.read_text(), change))
                ended = run(place, words)
                if ended.code not in (0, 2) or len(ended.lines) > 1 or "Traceback" in ended.err:
                    raise Broken.by(ended)
                if ended.code:
                    shutil.copy(whole / path.relative_to(place), path)
                campaign.again(place, words)
                return "carried on" if ended.code == 0 else "refused"

            yield f"{what}{' of a table' * (words is TABLE)}", case


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


SPECIAL: dict[str, Callable[[Path], None]] = {
    "a FIFO": os.mkfifo,
    "a socket": _socket,
    "/dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "a directory": Path.mkdir,
    "a link to itself": lambda path: path.symlink_to(path.name),
}
CHANGES: dict[str, Callable[[dict[str, object]], object]] = {
    "no metrics": lambda content: content.pop("metrics"),
    "no seconds": lambda content: content.update(seconds={}),
    "a text for a number": lambda content: content.update(epochs="many"),
    "a huge number": lambda content: content.update(epochs=10**4000),
    "an unknown status": lambda content: content.update(status="fine"),
    "a path out of the directory": lambda content: content.update(files={"../../x": {"size": 1, "sha256": ""}}),
    "deep nesting": lambda content: content.update(metrics=json.loads("[" * 500 + "]" * 500)),
}


def _resealed(text: str, change: Callable[[dict[str, object]], object]) -> str:
    content = json.loads(text)
    content.pop("sha256")
    change(content)
    return json.dumps(content | {"sha256": run_directory.seal(content)})


def _whole(campaign: Campaign, words: list[str]) -> Path:
    whole = campaign.place()
    ended = run(whole, words)
    if ended.code:
        raise SystemExit(f"the undisturbed sweep failed: {ended.err}")
    return whole


def _kinds(whole: Path) -> list[str]:
    """The files of the sweep and those of one run."""
    names = sorted(str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file())
    runs = sorted({name.split("/")[2] for name in names if name.count("/") > 2})
    return [name for name in names if name.count("/") < 3 or name.split("/")[2] == runs[0]]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def _content(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}
