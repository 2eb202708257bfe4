"""Keys that only some choices of another key read, such as `optimizer.betas`."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from mlpexp.config.overrides import spell
from mlpexp.config.schema import default_values


class Entry(Protocol):
    """An entry of a registry with the keys of its group that it reads."""

    @property
    def keys(self) -> tuple[str, ...]: ...


def unread_keys(choice: str, chosen: str, entries: Mapping[str, Entry], settings: Any) -> Iterator[str]:
    """One sentence for each key that was set, and that the chosen entry does not read.

    Args:
        choice: the key that chooses, e.g. "optimizer.name".
        entries: the registry of its choices.
        settings: the group with the keys.
    """
    group = choice.partition(".")[0]
    for key in sorted({key for entry in entries.values() for key in entry.keys} - {*entries[chosen].keys}):
        if getattr(settings, key) != (default := default_values()[f"{group}.{key}"]):
            owners = " or ".join(f"{choice}={name}" for name, entry in entries.items() if key in entry.keys)
            yield f"{group}.{key} needs {owners}; leave it at {spell(default)} with {choice}={chosen}"
