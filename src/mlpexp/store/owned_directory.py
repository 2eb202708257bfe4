"""A directory of files that are derived from runs and can be made again: a report, an evaluation, figures.

A manifest lists every file that was written, with its SHA-256. Only what is listed, and still has that content, is
replaced or removed; everything else in the directory is left unchanged.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, ValidationError

from mlpexp.runtime import safe_files
from mlpexp.runtime.errors import UserError
from mlpexp.runtime.safe_files import NotRegularFile
from mlpexp.store import atomic_files

MANIFEST = ".mlpexp-files.json"
MAX_FILE = 2**30  # bytes

# the names of the files that a version without manifests has left in a directory; empty where it is not ours
Earlier = Callable[[Path], Collection[str]]


class _Manifest(BaseModel):
    """Attributes:
    kind: what the directory holds, e.g. `report`.
    files: the SHA-256 of each file; two of them while a file is being replaced. None: any content.
    """

    model_config = ConfigDict(extra="forbid", strict=True)
    kind: str
    files: dict[str, list[str] | None]


def check(directory: Path, kind: str, advice: str, earlier: Earlier | None = None) -> None:
    """
    Args:
        kind: what the directory holds, e.g. `report`.
        advice: what to do where the directory cannot be used, e.g. `choose another directory with --out DIR`.
        earlier: recognises a directory that was written before there were manifests.

    Raises:
        UserError: `directory` is a file or a link, or holds files and no `kind`.
    """
    _listed(directory, kind, advice, earlier)


def replace(
    directory: Path, files: Mapping[str, bytes | str], kind: str, advice: str, earlier: Earlier | None = None
) -> None:
    """Write `files` into `directory`, in their order, in place of the files of an earlier call.

    A crash at any moment leaves a directory that the next call completes. Arguments as for `check`.

    Args:
        files: contents by names relative to `directory`, which may have one level of subdirectories.

    Raises:
        UserError: see `check`; or a file has one of these names that is not in the manifest.
    """
    listed = _listed(directory, kind, advice, earlier)
    new = {name: content.encode() if isinstance(content, str) else content for name, content in files.items()}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in new.items()}
    for name in new:
        if not _is_ours(directory / name, listed.get(name, [])):
            raise UserError(
                f"{directory / name} was not written by mlpexp, or has changed since; move it away, or {advice}"
            )
    atomic_files.make_directory(directory, parents=True)
    allowed = dict(listed)
    for name, digest in digests.items():
        old = allowed.get(name, [])
        allowed[name] = None if old is None else sorted({*old, digest})
    _write_manifest(directory, kind, allowed)
    for name, content in new.items():
        if (folder := (directory / name).parent) != directory:
            atomic_files.make_directory(folder)
        atomic_files.write(directory / name, content)
    for name in listed.keys() - new.keys():
        path = directory / name
        if _is_ours(path, listed[name]) and not path.parent.is_symlink():
            path.unlink(missing_ok=True)
            if path.parent != directory:
                with contextlib.suppress(OSError):  # other files are there
                    path.parent.rmdir()
    _write_manifest(directory, kind, {name: [digest] for name, digest in digests.items()})


def files_of(directory: Path, kind: str) -> set[Path]:
    """The unchanged files that `replace` has written into a directory, with its manifest."""
    try:
        listed = _listed(directory, kind, "", None)
    except UserError:
        return set()
    unchanged = {directory / name for name, digests in listed.items() if _is_ours(directory / name, digests)}
    return unchanged | {directory / MANIFEST} if listed else set()


def _listed(directory: Path, kind: str, advice: str, earlier: Earlier | None) -> dict[str, list[str] | None]:
    """The files that may be replaced or removed."""
    if directory.is_symlink():
        raise UserError(f"{directory} is a symbolic link; nothing is written through it: {advice}")
    if not directory.exists():
        return {}
    if not directory.is_dir():
        raise UserError(f"{directory} is a file; {advice}")
    path = directory / MANIFEST
    try:
        manifest = _Manifest.model_validate_json(safe_files.read_bytes(path, follow=False))
    except FileNotFoundError:
        names = earlier(directory) if earlier else ()
        if not names and any(not item.name.endswith(atomic_files.SUFFIX) for item in directory.iterdir()):
            raise UserError(f"{directory} is not empty and holds no {kind} of mlpexp; {advice}") from None
        return dict.fromkeys(names)
    except (ValidationError, NotRegularFile) as error:
        raise UserError(f"{path} is damaged; remove {directory} if it holds nothing else, or {advice}") from error
    if manifest.kind != kind:
        raise UserError(f"{directory} holds a directory of the kind {manifest.kind}, not {kind}; {advice}")
    if bad := next((name for name in manifest.files if not _is_safe(name)), None):
        raise UserError(f"{path} lists {bad!r}, which leads out of the directory; {advice}")
    return manifest.files


def _is_safe(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return 1 <= len(parts) <= 2 and name == "/".join(parts) and not {"..", "/"} & set(parts) and "\0" not in name


def _is_ours(path: Path, digests: list[str] | None) -> bool:
    """Whether `path` may be replaced: it is absent, or its content is listed in the manifest."""
    try:
        content = safe_files.read_bytes(path, MAX_FILE, follow=False)
    except FileNotFoundError:
        return True
    except NotRegularFile:
        return False
    return digests is None or hashlib.sha256(content).hexdigest() in digests


def _write_manifest(directory: Path, kind: str, files: dict[str, list[str] | None]) -> None:
    content = {"kind": kind, "files": files}
    atomic_files.write(directory / MANIFEST, json.dumps(content, indent=1, sort_keys=True) + "\n")
