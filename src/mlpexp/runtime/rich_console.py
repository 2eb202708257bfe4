"""Rich's console, with control characters in texts shown as escapes."""

from typing import Any

import rich.console
from rich.text import Text

from mlpexp.runtime.terminal import printable


class Console(rich.console.Console):
    """All texts, of table cells too, are rendered by `render_str`."""

    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str(printable(text), **settings)
