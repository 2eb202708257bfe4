"""Parses YAML that may be hostile: no tags, no aliases of collections, bounded nesting."""

from pathlib import Path
from typing import Any

import yaml
from yaml.events import AliasEvent

from mlpexp.runtime.safe_files import DamagedFile

MAX_ALIASES = 100  # of scalars, in one file
MAX_DEPTH = 50  # of nested lists and mappings


def parse_yaml(text: str, path: str | Path) -> Any:
    """The plain builtins that a YAML text holds; aliases and nesting are bounded, dates stay text.

    Raises:
        DamagedFile: it is no YAML, or expands beyond the bounds.
    """
    loader = None
    try:
        loader = _Bounded(text)
        return loader.get_single_data()
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DamagedFile(f"{path} cannot be read as YAML ({reason})") from error
    finally:
        if loader is not None:
            loader.dispose()


class _Bounded(yaml.SafeLoader):
    """Stops at what expands: thousands of aliases, or deep nesting."""

    aliases = depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(AliasEvent):
            self.aliases += 1
            if self.aliases > MAX_ALIASES:
                raise ValueError(f"more than {MAX_ALIASES} aliases")
            event = self.peek_event()
            if isinstance(self.anchors.get(event.anchor), yaml.CollectionNode):
                raise ValueError(f"line {event.start_mark.line + 1}: an alias of a list or mapping")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ValueError(f"more than {MAX_DEPTH} levels of nesting")
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


_Bounded.yaml_implicit_resolvers = {
    character: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for character, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
