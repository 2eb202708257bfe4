"""Rich's console, with control characters in texts shown as escapes."""

from typing import Any

import rich.console
from rich.text import Text

from mlpexp.runtime.terminal import is_library, printable, say


class Console(rich.console.Console):
    """All texts, of table cells too, are rendered by `render_str`."""

    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str(printable(text), **settings)

    def print(self, *objects: Any, **settings: Any) -> None:
        """As rich's; for another program (`terminal.is_library`) texts on standard error are logged, others dropped."""
        if not is_library():
            super().print(*objects, **settings)
        elif self.stderr and all(isinstance(item, str) for item in objects):
            say(*objects, error=True)
        elif self.stderr:  # a progress bar
            super().print(*objects, **settings)
