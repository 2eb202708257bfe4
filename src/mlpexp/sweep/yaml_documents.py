"""YAML documents written again and again with a few other leaves, to the byte as OmegaConf writes them."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import yaml
from omegaconf._utils import get_omega_conf_dumper  # private: it is what OmegaConf.to_yaml dumps with

# a plain scalar wherever it stands: nothing to quote, no space to fold at, and no number looks like it
_PLAIN = re.compile(r"(?:/|[A-Za-z_+~][\w.+\-/\[\],]*=)[\w.+\-/=\[\],]*", re.ASCII)
_CACHED = 8192

Path = tuple[str, ...]


class Document:
    """A YAML document of nested mappings, whose leaves are scalars, lists and empty mappings.

    Where a value is folded or a key quoted in an unforeseen way, `text` is not what OmegaConf writes: compare.

    Attributes:
        leaves: dotted path -> path of each leaf whose keys are identifiers.
    """

    def __init__(self, plain: Mapping[str, Any]) -> None:
        self.leaves: dict[str, Path] = {}
        self._position: dict[str, int] = {}
        self._pieces: list[str] = []
        for path, text in _pieces(plain, ()):
            if path is not None and all(key.isidentifier() for key in path):
                name = ".".join(path)
                self.leaves[name], self._position[name] = path, len(self._pieces)
            self._pieces.append(text)

    def pieces(self, edits: Mapping[str, Any]) -> list[str]:
        """The document with `edits` (dotted path of a leaf -> scalar or list) in place.

        The pieces that no edit touches are shared: a thousand documents cost little more than their differences.
        """
        pieces = self._pieces.copy()
        for name, value in edits.items():
            pieces[self._position[name]] = _leaf(self.leaves[name], value)
        return pieces

    def text(self) -> str:
        return "".join(self._pieces) or dump({})

    def joined(self, names: Collection[str]) -> "Document":
        """The same document in as few pieces as edits of `names` only allow."""
        other = Document({})
        at = {self._position[name]: name for name in names}
        between: list[str] = []
        for i, piece in enumerate(self._pieces):
            if i in at:
                name = at[i]
                other._pieces += ["".join(between), piece]
                other.leaves[name], other._position[name] = self.leaves[name], len(other._pieces) - 1
                between = []
            else:
                between.append(piece)
        other._pieces.append("".join(between))
        return other


def dump(plain: Any) -> str:
    """What `OmegaConf.to_yaml` writes for these plain builtins."""
    return yaml.dump(
        plain, default_flow_style=False, allow_unicode=True, sort_keys=False, Dumper=get_omega_conf_dumper()
    )


def dump_strings(lines: Sequence[str]) -> str:
    """A list of strings as a document of its own."""
    return _strings((), lines) if lines else dump([])


def _pieces(plain: Mapping[Any, Any], above: tuple[Any, ...]) -> Iterator[tuple[Path | None, str]]:
    for key, value in plain.items():
        path = (*above, key)
        named = all(isinstance(key, str) for key in path)
        if isinstance(value, Mapping) and value:
            yield None, f"{_head(path)}\n"
            yield from _pieces(value, path)
        else:
            yield (path if named else None), _leaf(path, value)


def _leaf(path: Path, value: Any) -> str:
    """One leaf's lines. What this writes without the dumper, a test compares with it."""
    if type(value) is int or (isinstance(value, str) and _PLAIN.fullmatch(value)):
        return f"{_head(path)} {value}\n"
    if type(value) is float and "." in (spelled := repr(value)) and "e" not in spelled:
        return f"{_head(path)} {spelled}\n"
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return f"{_head(path)} '{value}'\n"
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return f"{_head(path)}\n{_strings(path, value)}"
    # cached by its repr, because 1, 1.0 and True are equal, as are 0.0 and -0.0
    return _dumped(path, repr(value), _Beside(value))


@lru_cache(_CACHED)
def _head(path: Path) -> str:
    return "  " * (len(path) - 1) + dump({path[-1]: None}).removesuffix(" null\n")


def _strings(path: Path, lines: Sequence[str]) -> str:
    indent = "  " * max(len(path) - 1, 0)
    return "".join(f"{indent}- {line}\n" if _PLAIN.fullmatch(line) else _string(path, line) for line in lines)


@lru_cache(_CACHED)
def _string(path: Path, line: str) -> str:
    text = _nested(path, [line])
    return text.split("\n", 1)[1] if path else text


class _Beside:
    """An argument that is no part of a cache's key."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Beside)


@lru_cache(_CACHED)
def _dumped(path: Path, spelled: str, beside: _Beside) -> str:
    return _nested(path, beside.value)


def _nested(path: Path, value: Any) -> str:
    """One leaf's lines, dumped at its own depth, because where long text is folded depends on the column."""
    for key in reversed(path):
        value = {key: value}
    text = dump(value)
    for _ in path[1:]:
        text = text.split("\n", 1)[1]
    return text
