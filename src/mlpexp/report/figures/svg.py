"""A figure as SVG without inline styles, for a file of its own and for a page with a strict content policy."""

import io
import re
import warnings

from matplotlib import rc_context
from matplotlib.figure import Figure

from mlpexp.tracking.figures.plot_style import HOUSE

FONT = "'DejaVu Sans', Verdana, sans-serif"  # Verdana is as wide: text stays where it was measured
_STYLE = re.compile(r' style="([^"]*)"')
_TAG = re.compile(r"<[^>]*>")  # what is written stays as it is: 0.8812 is no coordinate
_FONT = re.compile(r"font: (?:(italic|oblique) )?(?:(bold|\d{3}) )?([\d.]+)px [^;]*")


def svg(figure: Figure, name: str, description: str) -> str:
    """The `<svg>` element; every style is an attribute, every id begins with `name`.

    Args:
        description: description for screen readers.
    """
    content = io.StringIO()
    with rc_context({**HOUSE, "svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return clean(content.getvalue(), name, description)


def clean(text: str, name: str, description: str) -> str:
    """matplotlib's SVG without what a page does not need; half the size."""
    from html import escape

    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->|<desc>.*?</desc>", "", text, flags=re.DOTALL)
    text = _STYLE.sub(lambda match: _attributes(match[1]), text)
    used = set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'xlink:href="#', f'href="#{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = _TAG.sub(lambda tag: re.sub(r"(\d\.\d\d)\d+", r"\1", tag[0]), text)  # hundredths of a point
    # a marker takes its colour from where it is used, so that the page can change it
    text = re.sub(r'(<path id="[^"]*" d="[^"]*") stroke="[^"]*"', r"\1", text)
    text = text.replace(" font-family=\"'DejaVu Sans'\"", "")  # the root has it
    text = re.sub(r' transform="rotate\(-0 [^)]*\)"', "", text)
    text = re.sub(r"\n\s*", " ", text).replace("> <", "><")
    text = re.sub(r"<defs></defs>|<defs/>|<g></g>", "", text)
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    assert box is not None
    width, height = (round(float(points) * 4 / 3) for points in box.groups())
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box[0].split(chr(34))[1]}" width="{width}" '
        f'height="{height}" role="img" aria-label="{escape(description)}" font-family="{FONT}" stroke-linejoin="round">'
    )
    return head + text[text.index(">") + 1 :].strip()


def _attributes(style: str) -> str:
    attributes = []
    for item in style.split(";"):
        if match := _FONT.match(item.strip()):
            if match[2] and match[2] not in ("400", "normal"):
                attributes.append(f'font-weight="{match[2]}"')
            attributes.append(f'font-size="{match[3]}"')
        elif ":" in item:
            key, _, value = item.partition(":")
            attributes.append(f'{key.strip()}="{value.strip()}"')
    return "".join(f" {attribute}" for attribute in attributes)
