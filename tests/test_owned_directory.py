"""A directory of derived files holds what was written last, and nobody else's file in it is touched."""

import contextlib
import json
import os
from pathlib import Path

import pytest
from conftest import tree

from mlpexp.runtime.errors import UserError
from mlpexp.store import atomic_files, owned_directory

ADVICE = "choose another directory with --out DIR"
FIRST = {"index.html": "one", "figures/a.png": b"a", "figures/b.png": b"b", "tables/t.csv": "t"}
SECOND = {"index.html": "two", "figures/a.png": b"a2"}


def replace(directory: Path, files: dict[str, str | bytes], **settings: object) -> None:
    owned_directory.replace(directory, files, "report", ADVICE, **settings)  # type: ignore[arg-type]


def content(directory: Path) -> dict[str, bytes]:
    found = (path for path in directory.rglob("*") if path.is_file() and path.name != owned_directory.MANIFEST)
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


def test_the_files_of_the_last_call_take_the_place_of_the_earlier_ones(tmp_path):
    replace(tmp_path / "out", FIRST)
    replace(tmp_path / "out", SECOND)
    assert content(tmp_path / "out") == {"index.html": b"two", "figures/a.png": b"a2"}
    assert not (tmp_path / "out" / "tables").exists()


def test_files_of_others_stay_whatever_their_names(tmp_path):
    replace(tmp_path / "out", FIRST)
    for name in ("figures/mine.png", "tables/mine.csv", "events.out.tfevents.1.mine", "note"):
        (tmp_path / "out" / name).write_text("mine")
    (tmp_path / "out" / "tables" / "t.csv").write_text("edited")
    replace(tmp_path / "out", SECOND)
    found = content(tmp_path / "out")
    assert [name for name, text in found.items() if text == b"mine"] != []
    assert sum(text == b"mine" for text in found.values()) == 4
    assert found["tables/t.csv"] == b"edited"
    assert "figures/b.png" not in found


def test_a_file_that_was_edited_since_is_not_replaced(tmp_path):
    replace(tmp_path, FIRST)
    (tmp_path / "index.html").write_text("edited")
    before = tree(tmp_path)
    with pytest.raises(UserError, match=r"index\.html was not written by mlpexp, or has changed since; .*--out DIR"):
        replace(tmp_path, SECOND)
    assert tree(tmp_path) == before


def spoil_file(out: Path) -> None:
    out.write_text("x")


def spoil_foreign(out: Path) -> None:
    (out / "figures").mkdir(parents=True)
    (out / "figures" / "holiday.png").write_text("x")


def spoil_link(out: Path) -> None:
    (out.parent / "elsewhere").mkdir()
    out.symlink_to("elsewhere")


def spoil_other_kind(out: Path) -> None:
    owned_directory.replace(out, {"a": "b"}, "evaluation", ADVICE)


def spoil_manifest(out: Path) -> None:
    out.mkdir()
    (out / owned_directory.MANIFEST).write_text("{}")


def spoil_fifo(out: Path) -> None:
    out.mkdir()
    os.mkfifo(out / owned_directory.MANIFEST)


def spoil_path(out: Path) -> None:
    out.mkdir()
    listed = {"kind": "report", "files": {"../victim": None}}
    (out / owned_directory.MANIFEST).write_text(json.dumps(listed))


def spoil_inner_link(out: Path) -> None:
    replace(out, FIRST)
    (out.parent / "elsewhere").mkdir()
    (out / "figures").rename(out / "moved")
    (out / "figures").symlink_to("../elsewhere")


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_file,
        spoil_foreign,
        spoil_link,
        spoil_other_kind,
        spoil_manifest,
        spoil_fifo,
        spoil_path,
        spoil_inner_link,
    ],
)
def test_a_directory_that_is_not_ours_is_refused_before_anything_changes(spoil, tmp_path):
    spoil(tmp_path / "out")
    (tmp_path / "victim").write_text("theirs")

    def files() -> dict[str, str]:
        return {name: digest for name, digest in tree(tmp_path).items() if owned_directory.MANIFEST not in name}

    before = files()
    with pytest.raises(UserError) as error:
        replace(tmp_path / "out", SECOND)
    assert "\n" not in str(error.value)
    if spoil is not spoil_inner_link:
        with pytest.raises(UserError):
            owned_directory.check(tmp_path / "out", "report", ADVICE)
        assert files() == before
    else:
        assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_crash_at_any_moment_leaves_what_the_next_call_completes(tmp_path, monkeypatch):
    write = atomic_files.write
    for moment in range(5):
        out = tmp_path / str(moment)
        replace(out, FIRST)
        calls = iter(range(100))

        def crash(path: Path, data: bytes | str, *, moment: int = moment, calls=calls) -> None:
            if next(calls) == moment:
                raise KeyboardInterrupt
            write(path, data)

        monkeypatch.setattr(atomic_files, "write", crash)
        with contextlib.suppress(KeyboardInterrupt):
            replace(out, SECOND)
        monkeypatch.setattr(atomic_files, "write", write)
        replace(out, SECOND)
        assert content(out) == {"index.html": b"two", "figures/a.png": b"a2"}


def test_a_directory_of_an_earlier_version_is_taken_over(tmp_path):
    (tmp_path / "index.html").write_text("old")
    (tmp_path / "events.old").write_text("old")
    (tmp_path / "note").write_text("mine")
    replace(tmp_path, {"index.html": "new"}, earlier=lambda _: ["index.html", "events.old"])
    assert content(tmp_path) == {"index.html": b"new", "note": b"mine"}
