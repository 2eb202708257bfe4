"""`search.jsonl`: the trials that a search has sampled, generation by generation.

The first line describes the search, each further line holds one generation; a line begins with the SHA-256 of the
rest. A generation is recorded completely or not at all. One that is not recorded has not been trained, and is sampled
again: samplers are seeded by the number of earlier trials, so the trials are the same.
"""

import hashlib
import itertools
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from mlpexp.runtime import safe_files
from mlpexp.runtime.errors import UserError
from mlpexp.store import atomic_files
from mlpexp.store.file_names import SEARCH

LIMIT = 2**30  # bytes

Params = dict[str, Any]  # the searched keys of one trial with their values, as Optuna gives them


class Known(BaseModel):
    """A configuration of an earlier sweep, and its objectives."""

    model_config = ConfigDict(extra="forbid", strict=True)
    params: dict[str, int | float | str]
    values: list[float]


class Search(BaseModel):
    """What is searched.

    Attributes:
        id: drawn when the search began.
        asked: the objectives, and each searched key as it was typed.
        known: configurations of an earlier sweep.
        confirms: whether the best trials are trained with further seeds by default; not in searches of versions that
            did not do so.
    """

    model_config = ConfigDict(extra="forbid", strict=True)
    id: str
    asked: dict[str, str]
    schema_version: int = 1
    known: list[Known] = []
    confirms: bool = False


class Generation(BaseModel):
    """Attributes:
    first: the number of its first trial.
    trials: their parameters.
    clock: with a pruner, stages of earlier trials that were trained before it was sampled; else 0.
    """

    model_config = ConfigDict(extra="forbid", strict=True)
    first: int
    trials: list[dict[str, int | float | str]]
    clock: int = 0


@dataclass
class SearchRecord:
    """The record of one directory."""

    directory: Path
    search: Search
    generations: list[Generation]

    @property
    def num_trials(self) -> int:
        return sum(len(generation.trials) for generation in self.generations)

    def append(self, trials: Sequence[Params], clock: int = 0) -> Generation:
        """Record a generation; it is on the disk when this returns."""
        generation = Generation(first=self.num_trials, trials=list(trials), clock=clock)
        atomic_files.append(self.directory / SEARCH, _sealed(generation), durable=True)
        self.generations.append(generation)
        return generation


def open_record(
    directory: Path,
    asked: Mapping[str, str],
    earlier: tuple[dict[str, str], list[Generation]] | None,
    find_known: Callable[[], list[Known]],
) -> tuple[SearchRecord, str | None]:
    """The record of `directory`, and what was wrong with its file.

    Args:
        asked: what this command searches.
        earlier: the search in Optuna's storage, for directories of versions without records.
        find_known: reads configurations of an earlier sweep; called where the search begins.

    Raises:
        UserError: the file cannot be read, or it is the record of another search.
    """
    record, warning = _load(directory)
    before = record.search.asked if record else earlier[0] if earlier else dict(asked)
    for key in dict.fromkeys([*before, *asked]):
        if before.get(key) != asked.get(key):
            raise UserError(
                f"{directory} holds another search: {key} is {before.get(key, 'not given')} there and "
                f"{asked.get(key, 'not given')} here; choose another name=…"
            )
    if record is None:
        search = Search(id=uuid.uuid4().hex, asked=dict(asked), known=find_known(), confirms=earlier is None)
        record = SearchRecord(directory, search, earlier[1] if earlier else [])
        _write(record)
    return record, warning


def _load(directory: Path) -> tuple[SearchRecord | None, str | None]:
    """The record up to its first damaged line; None where there is none."""
    path = directory / SEARCH
    try:
        content = safe_files.read_bytes(path, LIMIT, follow=False)
    except FileNotFoundError:
        return None, None
    texts = list(itertools.takewhile(lambda text: text is not None, map(_opened, content.splitlines())))
    try:
        search = Search.model_validate_json(texts[0] or b"")
    except (IndexError, ValidationError):
        return None, f"{path} is damaged and has been renamed to {set_aside(path).name}; the search is done again"
    record = SearchRecord(directory, search, [])
    for text in texts[1:]:
        try:
            generation = Generation.model_validate_json(text or b"")
        except ValidationError:
            break
        if generation.first != record.num_trials or not generation.trials:
            break
        record.generations.append(generation)
    if _text(record) == content:
        return record, None
    _write(record)
    if not content.endswith(b"\n"):  # a crash leaves a line without an end
        return record, None
    line = len(record.generations) + 2
    return record, f"{path} is damaged in line {line}; the search is done again from trial {record.num_trials + 1:,} on"


def _write(record: SearchRecord) -> None:
    atomic_files.write(record.directory / SEARCH, _text(record), durable=True)


def _text(record: SearchRecord) -> bytes:
    return b"".join(map(_sealed, [record.search, *record.generations]))


def set_aside(path: Path) -> Path:
    """Rename a file that cannot be used, and return its new path; it keeps its content."""
    for number in itertools.count(1):
        moved = path.with_name(f"{path.name}.damaged-{number}")
        if not moved.exists() and not moved.is_symlink():
            return path.rename(moved)
    raise AssertionError("there are infinitely many numbers")


def _sealed(content: BaseModel) -> bytes:
    # as in records of versions that did not have these fields
    neutral = {name for name in ("clock", "known", "confirms") if not getattr(content, name, None)}
    text = content.model_dump_json(exclude=neutral).encode()
    return hashlib.sha256(text).hexdigest().encode() + b" " + text + b"\n"


def _opened(line: bytes) -> bytes | None:
    """The content of a line; None where it is not what was written."""
    seal, _, text = line.partition(b" ")
    return text if hashlib.sha256(text).hexdigest().encode() == seal else None
