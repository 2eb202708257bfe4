"""Registries: one entry per activation, optimizer, data set, ..., looked up by name."""

from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

from mlpexp.runtime import user_code
from mlpexp.runtime.declared_options import Declared, DeclaredOption
from mlpexp.runtime.errors import UserError, did_you_mean

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """A mapping from names to entries that can be added to, but not changed.

    Args:
        kind: what an entry is, for messages, e.g. "activation".
        entries: the first entries, in the order in which choices are listed.
    """

    def __init__(self, kind: str, entries: Mapping[str, T] | None = None) -> None:
        self.kind = kind
        self._entries: dict[str, T] = dict(entries or {})
        self._files: dict[str, Path] = {}  # of the code that registered an entry
        self._declared: dict[str, Declared] = {}
        user_code.REGISTRIES.append(self)

    def register(self, name: str, entry: T, declared: Declared | None = None) -> T:
        """Add an entry and return it.

        Args:
            declared: its options, see `entry_with`.

        Raises:
            UserError: the name is taken.
        """
        if name in self._entries:
            plugin = self.plugin_of(name)
            by = f" by the plugin {user_code.short_name(plugin.place)}" if plugin else ""
            raise UserError(f"{self.kind} {name!r} is registered already{by}; choose another name")
        self._entries[name] = entry
        self._clear_readers()
        if declared is not None and declared.options:
            self._declared[name] = declared
        if (file := user_code.registering_file()) is not None:
            self._files[name] = file
        return entry

    def remove(self, name: str) -> None:
        """Remove an entry, e.g. because the plugin that registered it has changed."""
        del self._entries[name]
        self._clear_readers()
        self._files.pop(name, None)
        self._declared.pop(name, None)

    @cached_property
    def readers(self) -> Mapping[str, Collection[str]]:
        """The keys of the configuration that only some entries read, such as `momentum`, each with those entries."""
        readers: dict[str, list[str]] = {}
        for name, entry in self._entries.items():
            for key in getattr(entry, "keys", ()):
                readers.setdefault(key, []).append(name)
        return readers

    def _clear_readers(self) -> None:
        vars(self).pop("readers", None)

    def options_of(self, name: str) -> Mapping[str, DeclaredOption]:
        """The options that an entry declares; none for most, and for names that are not registered."""
        return self._declared[name].options if name in self._declared else {}

    def entry_with(self, name: str, options: Mapping[str, object]) -> T:
        """The entry with these values of its options; options that it does not declare are ignored.

        Raises:
            UserError: see `__getitem__`; or it refuses them.
        """
        entry = self[name]
        entry_options = {key: value for key, value in options.items() if key in self.options_of(name)}
        return self._declared[name].entry(entry_options) if entry_options else entry

    def of_files(self, files: Collection[Path]) -> list[str]:
        """The entries that code in these files has registered."""
        return [name for name, file in self._files.items() if file in files and name in self._entries]

    def plugin_of(self, name: str) -> user_code.Loaded | None:
        """The plugin that registered an entry; None for mlpexp's own."""
        return user_code.plugin_of_file(self._files.get(name))

    @property
    def names(self) -> tuple[str, ...]:
        """The choices, in the order of registration."""
        return tuple(self._entries)

    def __getitem__(self, name: str) -> T:
        """Raises `UserError`: there is no entry of this name; the message lists the choices."""
        try:
            return self._entries[name]
        except KeyError:
            raise UserError(self.unknown_message(name)) from None

    def unknown_message(self, name: object) -> str:
        """The message for a name that is not registered."""
        hint = did_you_mean(name, self._entries)
        return f"unknown {self.kind} {name!r}; {hint}{' ' if hint else ''}choose one of {', '.join(self._entries)}"

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
